"""What a recording does not say of itself: experts of a layer, layers of the model, top-k."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from moeopt.trace import Trace
from moeopt.workload import Workload

__all__ = ["Supplement"]

Traffic = TypeVar("Traffic", Trace, Workload)


@dataclass(frozen=True)
class Supplement:
    """Facts that the user adds to a recording; None: the recording says it, or nobody.

    | field | holds |
    |---|---|
    | n_experts | E, routed experts of a layer |
    | layer_ids | absolute indices of the MoE layers, ascending; other rows of the recording are dense and dropped |
    | top_k | experts that a token chooses |
    | model | name of the model |
    | hidden_layers | all layers of the model, dense ones included, where the recording has rows of them but no shape |

    Raises ValueError naming the rule and the value that breaks it.
    """

    n_experts: int | None = None
    layer_ids: tuple[int, ...] | None = None
    top_k: int | None = None
    model: str | None = None
    hidden_layers: int | None = None

    def __post_init__(self) -> None:
        for name in ("n_experts", "top_k", "hidden_layers"):
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise ValueError(f"{name} must be a whole number, found {value!r:.60}")
            if value is not None and not 1 <= value <= 65_536:
                raise ValueError(f"{name} must lie between 1 and 65536, found {value}")
        if self.layer_ids is not None:
            if wrong := [layer for layer in self.layer_ids if not isinstance(layer, int | np.integer)]:
                raise ValueError(f"layer_ids must be whole numbers, found {wrong[0]!r:.60}")
            ids = tuple(int(layer) for layer in self.layer_ids)
            if not ids or ids[0] < 0 or list(ids) != sorted(set(ids)):
                raise ValueError(f"layer_ids must ascend from 0 on, found {list(ids)}")
            object.__setattr__(self, "layer_ids", ids)
            if self.hidden_layers is not None and ids[-1] >= self.hidden_layers:
                raise ValueError(f"layer {ids[-1]} is not among the {self.hidden_layers} hidden layers")

    def experts(self, *, least: int) -> int:
        """E, of a format that does not say it; `least`: one more than the highest id recorded."""
        if self.n_experts is None:
            raise ValueError(
                f"this format does not say how many experts a layer has, ids reach {least - 1}: "
                "give n_experts (moeopt convert --experts)"
            )
        if self.n_experts < least:
            raise ValueError(f"n_experts is {self.n_experts}, found expert {least - 1}")
        return self.n_experts

    def moe_layers(self, rows: int) -> tuple[int, ...]:
        """Rows of the MoE layers, of a format with a row for every hidden layer, dense ones included."""
        if self.hidden_layers not in (None, rows):
            raise ValueError(f"hidden_layers is given as {self.hidden_layers}, the recording has {rows} rows")
        if self.layer_ids is None:
            raise ValueError(
                f"this format has a row for each of the {rows} hidden layers, and dense ones look as if expert 0 "
                "was chosen: give layer_ids of the MoE layers (moeopt convert --moe-layers)"
            )
        if self.layer_ids[-1] >= rows:
            raise ValueError(f"layer {self.layer_ids[-1]} is not among the {rows} rows recorded")
        return self.layer_ids

    def named_layers(self, rows: int) -> tuple[int, ...]:
        """Absolute ids of `rows` MoE layers, of a format that keeps no others: 0, 1, ... unless they are given."""
        if self.layer_ids is None:
            return tuple(range(rows))
        if len(self.layer_ids) != rows:
            raise ValueError(f"{len(self.layer_ids)} layer_ids for the {rows} layers recorded")
        return self.layer_ids

    def settled(self, found: Traffic) -> Traffic:
        """A recording that says all of this itself: it must agree; `layer_ids` picks layers, `model` renames."""
        for name in ("n_experts", "top_k"):
            wanted, own = getattr(self, name), getattr(found, name)
            if wanted is not None and wanted != own:
                raise ValueError(f"{name} is given as {wanted}, the recording says {own}")
        return self.renamed(self.chosen(found))

    def chosen(self, found: Traffic) -> Traffic:
        """The layers given, all without."""
        if self.layer_ids is None:
            return found
        return found.layers(self.layer_ids) if isinstance(found, Trace) else found.only(self.layer_ids)

    def renamed(self, found: Traffic) -> Traffic:
        """Under the name given, its own without."""
        return found if self.model is None else replace(found, model=self.model)
