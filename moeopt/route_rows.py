"""Rows of a table of routes made a trace: every token in every layer once, with equally many experts."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.readers.routed_experts import refuse_dense
from moeopt.supplement import Supplement
from moeopt.trace import Trace


@dataclass(frozen=True, eq=False)
class Routes:
    """A row a token and layer, or a token, layer and slot, in any order.

    | field | holds |
    |---|---|
    | request, position | int64 [rows]: together they are the token |
    | layer | int64 [rows]: absolute id |
    | experts | integers [rows, k], or [rows] where `slot` is there |
    | phase | uint8 [rows] |
    | family | int64 [rows]: index into `families` |
    | slot | int64 [rows]: which of the k experts of the token and layer; None: a row holds all of them |
    """

    request: NDArray[Any]
    position: NDArray[Any]
    layer: NDArray[Any]
    experts: NDArray[Any]
    phase: NDArray[Any]
    family: NDArray[Any]
    families: tuple[str, ...] = ("all",)
    slot: NDArray[Any] | None = None

    def taken(self, rows: NDArray[Any]) -> "Routes":
        """The rows of a mask or an index array."""
        arrays = {
            name: getattr(self, name)[rows]
            for name in ("request", "position", "layer", "experts", "phase", "family")
        }
        return replace(self, **arrays, slot=None if self.slot is None else self.slot[rows])

    def where(self, row: int) -> str:
        """The place of a row, for errors."""
        return f"request {self.request[row]}, position {self.position[row]}, layer {self.layer[row]}"


def routed_trace(routes: Routes, supplement: Supplement, *, n_experts: int | None = None) -> Trace:
    """The trace of the rows; of the layers given in `supplement`, of all without. `n_experts`: what the file says.

    Raises ValueError naming the first token and layer that is missing, there twice, or of another top-k.
    """
    if not len(routes.layer):
        raise ValueError("empty trace: the table has no rows")
    if supplement.layer_ids is not None:
        routes = _chosen(routes, supplement.layer_ids)
    if routes.slot is not None:
        routes = _gathered(routes, routes.slot)
    routes = routes.taken(_order(routes.request, routes.position, routes.layer))
    layers = np.unique(routes.layer)
    token = _groups(routes.request, routes.position)
    key = token * len(layers) + np.searchsorted(layers, routes.layer)
    for row in np.flatnonzero(key[1:] == key[:-1])[:1]:
        raise ValueError(f"{routes.where(row)} is there twice")
    tokens = int(token[-1]) + 1
    if len(key) != tokens * len(layers):
        _refuse_missing(routes, key, layers)
    shape = (tokens, len(layers))
    for name in ("phase", "family"):
        column = getattr(routes, name).reshape(shape)
        for row in np.flatnonzero(column != column[:, :1])[:1]:
            raise ValueError(f"{routes.where(row)}: {name} is another than in the token's other layers")
    experts = routes.experts.reshape(*shape, -1)
    refuse_dense(experts, tuple(layers.tolist()))
    if supplement.top_k not in (None, experts.shape[2]):
        raise ValueError(f"top_k is given as {supplement.top_k}, the recording says {experts.shape[2]}")
    if n_experts is not None and supplement.n_experts not in (None, n_experts):
        raise ValueError(f"n_experts is given as {supplement.n_experts}, the recording says {n_experts}")
    first = slice(None, None, len(layers))
    return Trace(
        experts,
        supplement.experts(least=int(experts.max()) + 1) if n_experts is None else n_experts,
        layer_ids=layers,
        families=routes.families,
        family=routes.family[first],
        request=routes.request[first],
        position=routes.position[first],
        phase=routes.phase[first],
        model=supplement.model or "",
    )


def _chosen(routes: Routes, layer_ids: tuple[int, ...]) -> Routes:
    there = set(np.unique(routes.layer).tolist())
    if missing := [layer for layer in layer_ids if layer not in there]:
        raise ValueError(f"layer {missing[0]} is not in the recording, whose layers are {sorted(there)}")
    return routes if len(there) == len(layer_ids) else routes.taken(np.isin(routes.layer, layer_ids))


def _gathered(routes: Routes, slot: NDArray[Any]) -> Routes:
    """A row a token and layer, of a row a slot."""
    order = _order(routes.request, routes.position, routes.layer, slot)
    routes, slot = routes.taken(order), slot[order]
    group = _groups(routes.request, routes.position, routes.layer)
    for row in np.flatnonzero((slot[1:] == slot[:-1]) & (group[1:] == group[:-1]))[:1]:
        raise ValueError(f"{routes.where(row)}: slot {slot[row]} is there twice")
    counts = np.bincount(group)
    k = int(np.bincount(counts).argmax())
    starts = np.cumsum(counts) - counts
    for index in np.flatnonzero(counts != k)[:1]:
        raise ValueError(f"{routes.where(starts[index])}: {counts[index]} experts, other rows have {k}")
    return replace(routes.taken(starts), experts=routes.experts.reshape(-1, k), slot=None)


def _refuse_missing(routes: Routes, key: NDArray[Any], layers: NDArray[Any]) -> None:
    """The first of the keys 0, 1, ... that is not there."""
    gaps = np.flatnonzero(key != np.arange(len(key)))
    place = int(gaps[0]) if gaps.size else len(key)
    row = int(np.searchsorted(key, place // len(layers) * len(layers)))
    raise ValueError(
        f"request {routes.request[row]}, position {routes.position[row]}: layer {layers[place % len(layers)]} is "
        f"missing, every token needs all {len(layers)} layers. A last layer that is computed only for the tokens "
        "to sample from is left out by layer_ids (--moe-layers)"
    )


def _groups(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """int64 [rows]: number of the group of equal keys, of sorted rows."""
    new = np.zeros(len(keys[0]), bool)
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.cumsum(new, dtype=np.int64)


def _order(*keys: NDArray[Any]) -> NDArray[Any]:
    """Index that sorts rows by the keys, the first counting most; equal rows stay in order."""
    packed = np.zeros(len(keys[0]), np.int64)
    span = 1
    for key in keys:
        least, most = int(key.min()), int(key.max())
        span *= most - least + 1
        if span >= 1 << 62:
            return np.lexsort(keys[::-1])
        packed = packed * (most - least + 1) + (key.astype(np.int64) - least)
    return np.argsort(packed, kind="stable")
