"""Routing traces: which experts every token chose in every layer."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

PREFILL, DECODE = 0, 1


@dataclass(frozen=True, eq=False)
class Trace:
    """Router choices of one model, token by token.

    | field | holds |
    |---|---|
    | experts | uint8 or uint16 [tokens, layers, k]: ids chosen, in any order, distinct within a token and layer |
    | n_experts | E, routed experts per layer |
    | layer_ids | int32 [layers]: absolute index of each MoE layer in the model, ascending |
    | families | names of the task families; `family` indexes them |
    | family | uint8 [tokens] |
    | request | int32 [tokens]: sequence a token belongs to |
    | position | int32 [tokens]: place of the token in its sequence |
    | phase | uint8 [tokens]: 0 prefill, 1 decode |
    | model | name of the model, free text |

    Omitted token fields mean one request, positions in order, prefill, one family called "all".
    Raises ValueError naming the rule and the first value that breaks it.
    """

    experts: NDArray[Any]
    n_experts: int
    layer_ids: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    families: tuple[str, ...] = ("all",)
    family: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    request: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    position: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    phase: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    model: str = ""

    def __post_init__(self) -> None:
        experts = np.asarray(self.experts)
        if experts.ndim != 3:
            raise ValueError(f"experts must have axes [tokens, layers, k], found shape {experts.shape}")
        tokens, layers, k = experts.shape
        if 0 in experts.shape:
            raise ValueError(f"empty trace: experts has shape {experts.shape} [tokens, layers, k]")
        count = _integer("n_experts", self.n_experts)
        if not 1 <= count <= 65_536:
            raise ValueError(f"n_experts must be between 1 and 65536, found {count}")
        if k > count:
            raise ValueError(f"top-k {k} exceeds n_experts {count}")
        experts = _checked_ids(experts, count)
        families = tuple(str(name) for name in self.families)
        if not families or len(set(families)) != len(families):
            raise ValueError(f"families must be distinct names, found {list(families)}")
        if len(families) > 256:
            raise ValueError(f"at most 256 families, found {len(families)}")
        ids = self.layer_ids if np.size(self.layer_ids) else np.arange(layers)
        columns = {
            "layer_ids": _column("layer_ids", ids, np.int32, layers),
            "family": _column("family", _default(self.family, tokens), np.uint8, tokens),
            "request": _column("request", _default(self.request, tokens), np.int32, tokens),
            "position": _column(
                "position", self.position if np.size(self.position) else np.arange(tokens), np.int32, tokens
            ),
            "phase": _column("phase", _default(self.phase, tokens), np.uint8, tokens),
        }
        if (np.diff(columns["layer_ids"]) <= 0).any():
            raise ValueError(f"layer_ids must ascend, found {columns['layer_ids'].tolist()}")
        if (highest := int(columns["family"].max())) >= len(families):
            raise ValueError(f"family {highest} out of range, there are {len(families)} families")
        if (highest := int(columns["phase"].max())) > DECODE:
            raise ValueError(f"phase must be 0 (prefill) or 1 (decode), found {highest}")
        for name, value in {"experts": experts, "n_experts": count, "families": families, **columns}.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def n_tokens(self) -> int:
        return int(self.experts.shape[0])

    @property
    def n_layers(self) -> int:
        return int(self.experts.shape[1])

    @property
    def top_k(self) -> int:
        return int(self.experts.shape[2])

    def layers(self, ids: Iterable[int]) -> Self:
        """The same tokens, only the layers with these absolute ids (in ascending order)."""
        wanted = sorted(set(ids))
        known = {int(layer): index for index, layer in enumerate(self.layer_ids)}
        if missing := [layer for layer in wanted if layer not in known]:
            raise ValueError(f"layer {missing[0]} is not in the trace, whose layers are {sorted(known)}")
        index = [known[layer] for layer in wanted]
        return replace(self, experts=self.experts[:, index], layer_ids=self.layer_ids[index])

    def take(self, tokens: ArrayLike) -> Self:
        """The tokens of a boolean mask or an index array, in that order."""
        rows = np.asarray(tokens)
        return replace(
            self,
            experts=self.experts[rows],
            family=self.family[rows],
            request=self.request[rows],
            position=self.position[rows],
            phase=self.phase[rows],
        )

    def split(self, fraction: float, *, seed: int) -> tuple[Self, Self]:
        """Part the requests, family by family: (the rest, about `fraction` of each family's requests).

        Every request lies wholly on one side. A family with a single request stays in the first part.
        A request with tokens of several families counts for the family of its first token.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"held-out fraction must lie between 0 and 1, found {fraction}")
        rng = np.random.default_rng(seed)
        requests, first = np.unique(self.request, return_index=True)
        held: list[NDArray[np.int32]] = []
        for family in range(len(self.families)):
            members = requests[self.family[first] == family]
            size = min(round(fraction * len(members)), len(members) - 1)
            held.append(rng.permutation(members)[: max(size, 0)])
        mask = np.isin(self.request, np.concatenate(held))
        if not mask.any():
            raise ValueError(
                f"held-out fraction {fraction} leaves no request aside: the trace has {len(requests)} requests"
            )
        return self.take(~mask), self.take(mask)


def _checked_ids(experts: NDArray[Any], count: int) -> NDArray[Any]:
    """Ids as the narrowest unsigned type, in range and distinct per token and layer."""
    if experts.dtype.kind not in "iu":
        raise ValueError(f"experts must be integers, found dtype {experts.dtype}")
    low, high = int(experts.min()), int(experts.max())
    if low < 0 or high >= count:
        where = np.argwhere((experts < 0) | (experts >= count))[0]
        raise ValueError(
            f"expert id {int(experts[tuple(where)])} out of range 0..{count - 1}, "
            f"token {where[0]}, layer index {where[1]}"
        )
    ids = np.ascontiguousarray(experts, dtype=np.uint8 if count <= 256 else np.uint16)
    for layer in range(ids.shape[1]):  # a layer at a time bounds the memory of the sorted copy
        ordered = np.sort(ids[:, layer], axis=-1)
        repeated = (ordered[:, 1:] == ordered[:, :-1]).any(axis=-1)
        if repeated.any():
            token = int(np.argmax(repeated))
            raise ValueError(
                f"expert repeated within token {token}, layer index {layer}: {ids[token, layer].tolist()}"
            )
    return ids.copy() if ids is experts else ids


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, found {value!r}")
    return int(value)


def _default(column: NDArray[Any], tokens: int) -> NDArray[Any]:
    return column if np.size(column) else np.zeros(tokens, np.uint8)


def _column(name: str, values: ArrayLike, dtype: type, length: int) -> NDArray[Any]:
    found = np.asarray(values)
    if found.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), found {found.shape}")
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, found dtype {found.dtype}")
    limits = np.iinfo(dtype)
    if int(found.min()) < max(limits.min, 0) or int(found.max()) > limits.max:
        raise ValueError(
            f"{name} must lie between 0 and {limits.max}, found {int(found.min())}..{int(found.max())}"
        )
    return found.astype(dtype)
