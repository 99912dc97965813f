"""Traffic of which only the load of every expert is known: enough for even loads, and for nothing else."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NoReturn, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt import storage
from moeopt.expert_sets import ExpertSets
from moeopt.workload import Workload

__all__ = ["UNPAIRED", "LoadCounts", "load_workload"]

UNPAIRED = (
    "only the loads of the experts are recorded: they serve moeopt.loads.LoadProblem and "
    'objective="load", everything else needs a trace or pair counts'
)
_LARGEST = 1 << 46  # of a load: sums over 65,536 experts stay in 64 bits


def _refuse(_: object) -> NoReturn:
    raise ValueError(UNPAIRED)


@dataclass(frozen=True, eq=False)
class LoadCounts(ExpertSets):
    """Traffic of one layer as loads. What would need to know which experts go together raises ValueError.

    | field | holds |
    |---|---|
    | counts | int64 [experts, families]: tokens that chose the expert |
    | n_experts | E |
    | top_k | experts that a token chooses; 1 where nobody knows it: every activation is a token then |

    Raises ValueError naming the rule and the value that breaks it.
    """

    complete: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    members: NDArray[np.int32] = field(init=False, repr=False, default=cast(Any, property(_refuse)))
    top_k: int = field(kw_only=True, default=1)

    def __post_init__(self) -> None:
        if isinstance(self.top_k, bool) or not 1 <= self.top_k <= self.n_experts:
            raise ValueError(f"top-k must lie between 1 and the {self.n_experts} experts, found {self.top_k}")
        counts = np.asarray(self.counts)
        if counts.dtype.kind not in "iu" or counts.ndim != 2 or len(counts) != self.n_experts:
            raise ValueError(
                f"loads must be whole numbers [{self.n_experts} experts, families], found {counts.dtype} of "
                f"shape {counts.shape}"
            )
        if counts.size and (counts.min() < 0 or counts.max() >= _LARGEST):
            raise ValueError(f"loads must lie from 0 to 2^46, found {counts.min()} to {counts.max()}")
        counts = counts.astype(np.int64)
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)

    @property
    def coactivations(self) -> NDArray[np.int64]:
        """Not known: ValueError."""
        raise ValueError(UNPAIRED)

    def weighted_load(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [experts]: `weights` [experts] themselves, a row being an expert."""
        return np.asarray(weights, np.int64)

    def affinity(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """Not known: ValueError."""
        raise ValueError(UNPAIRED)

    def joined(self, other: ExpertSets, *, counts: NDArray[np.int64]) -> "LoadCounts":
        """The traffic of both; `counts` int64 [own experts, then the other's, families] replaces theirs."""
        if not isinstance(other, LoadCounts):
            raise ValueError("loads and other traffic do not add: see load_workload")
        both = counts.reshape(2, self.n_experts, -1).sum(axis=0)
        return LoadCounts(both, self.n_experts, top_k=self.top_k)

    def misfit(self, tokens: NDArray[np.int64]) -> str:
        """Why the loads are not of so many families; layers may have different totals."""
        if (families := self.counts.shape[1]) != len(tokens):
            return f"loads are of {families} families, tokens of {len(tokens)}"
        return ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the loads, the same on every machine."""
        content = hashlib.sha256(f"moeopt-loads 1 {self.n_experts} {self.top_k} {self.counts.shape}".encode())
        content.update(self.counts.astype("<i8").tobytes())
        return content.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: top_k and loads."""
        return {"top_k": self.top_k, "loads": self.counts.tolist()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, n_experts: int) -> Self:
        """Inverse of `to_dict`; ValueError names what does not fit."""
        loads = storage.whole_numbers(document, "loads")
        return cls(loads, n_experts, top_k=storage.field(document, "top_k", kind=int))


def load_workload(
    loads: ArrayLike,
    *,
    layer_ids: Sequence[int],
    families: Sequence[str] = ("all",),
    top_k: int | None = None,
    model: str = "",
) -> Workload:
    """The workload of loads [layers, experts, families] or [layers, experts], activations of every expert.

    Tokens of a family are the most that any layer counts, over k, rounded up: recorders miss some. Whole numbers given
    as floats are taken; ValueError names layer and expert that are none.
    """
    found = np.asarray(loads)
    found = found[:, :, None] if found.ndim == 2 else found
    if found.ndim != 3 or 0 in found.shape or found.dtype.kind not in "iuf":
        raise ValueError(
            f"loads must be numbers [layers, experts, families], found {found.dtype} {found.shape}"
        )
    if len(layer_ids) != len(found) or len(families) != found.shape[2]:
        raise ValueError(
            f"loads of shape {found.shape} need {len(found)} layer ids and {found.shape[2]} families, "
            f"found {len(layer_ids)} and {len(families)}"
        )
    whole = np.isfinite(found) & (found >= 0) & (found < _LARGEST)
    whole[whole] = found[whole] == np.floor(found[whole])
    for layer, expert, family in np.argwhere(~whole)[:1]:
        raise ValueError(
            f"layer {layer_ids[layer]}, expert {expert}: a load is a whole number from 0 to 2^46, "
            f"found {found[layer, expert, family]}"
        )
    counts, k = found.astype(np.int64), top_k or 1
    tokens = -(-counts.sum(axis=1).max(axis=0) // k)
    tokens.setflags(write=False)
    layers = tuple(LoadCounts(one, counts.shape[1], top_k=k) for one in counts)
    return Workload(layers, tuple(int(layer) for layer in layer_ids), tuple(families), tokens, model)
