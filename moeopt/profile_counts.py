"""What a profile is computed from, counted a layer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.expert_sets import ExpertSets
from moeopt.streamed import Streamed
from moeopt.trace import Trace
from moeopt.workload import Workload

__all__ = ["LayerCounts", "Tokens", "Traffic", "counted", "sets_of", "whole_workload"]

Traffic = Trace | Workload | Streamed
PER_WINDOW = 16  # activations of a mean expert, at least: below, loads of windows are noise
MOST_PAIRED = 4096  # experts of a layer: pairs take the square of them


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """One layer.

    | field | holds |
    |---|---|
    | load | int64 [experts] |
    | families | int64 [families, experts]; None where they are not kept apart |
    | parts | int64 [families, phases, halves, experts]: by `Tokens.part`; None without tokens |
    | windows, mixed | int64 [windows, experts]: by `Tokens.window` and `Tokens.mixed`; None without them |
    | sets | of the layer, without families |
    | flow | int64 [experts, experts]: tokens of an expert here and one in the next layer; None: none, or not known |
    """

    load: NDArray[np.int64]
    families: NDArray[np.int64] | None
    sets: ExpertSets
    parts: NDArray[np.int64] | None = None
    windows: NDArray[np.int64] | None = None
    mixed: NDArray[np.int64] | None = None
    flow: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Tokens:
    """How the tokens of a trace are told apart, in every layer alike.

    | field | holds |
    |---|---|
    | part | int64 [tokens]: (family x 2 + phase) x 2 + half; a half has every other request of a family, by id |
    | window | int64 [tokens]: consecutive windows of equal size, in the order of the rows; None: too few tokens |
    | mixed | int64 [tokens]: as many windows, every so many-th request in one; None: fewer than two requests in each |
    | requests | int64 [families]: requests that have tokens of the family |
    | n_requests | in all |
    | n_windows | of them; 0 for none |
    """

    part: NDArray[np.int64]
    window: NDArray[np.int64] | None
    mixed: NDArray[np.int64] | None
    requests: NDArray[np.int64]
    n_requests: int
    n_windows: int

    @classmethod
    def of(cls, trace: Trace, *, windows: int) -> Self:
        """At most so many windows; each has 16 activations of a mean expert, at least."""
        family = trace.family.astype(np.int64)
        ids, request = np.unique(trace.request, return_inverse=True)
        pairs, pair = np.unique(family * len(ids) + request.reshape(-1), return_inverse=True)
        requests = np.bincount(pairs // len(ids), minlength=len(trace.families))
        rank = np.arange(len(pairs)) - (requests.cumsum() - requests)[pairs // len(ids)]
        tokens = trace.n_tokens
        count = min(windows, tokens * trace.top_k // (PER_WINDOW * trace.n_experts), tokens)
        count = count if count > 1 else 0
        return cls(
            (family * 2 + trace.phase) * 2 + rank[pair.reshape(-1)] % 2,
            np.arange(tokens) * count // tokens if count else None,
            request.reshape(-1) % count if count and len(ids) >= 2 * count else None,
            requests.astype(np.int64),
            len(ids),
            count,
        )


def counted(traffic: Traffic, tokens: Tokens | None) -> Iterator[LayerCounts]:
    """Every layer in turn; `tokens` are those of a trace, None of any other traffic. One layer is held at a time."""
    if isinstance(traffic, Trace):
        for index in range(traffic.n_layers):
            yield _of_trace(traffic, index, tokens or Tokens.of(traffic, windows=0))
        return
    workload = whole_workload(traffic)
    for index, sets in enumerate(workload.layers):
        families: NDArray[np.int64] | None = None
        if isinstance(traffic, Streamed):
            families = np.ascontiguousarray(traffic.loads[index].T)
        elif sets.complete or not sets.paired:
            families = np.stack([sets.weighted_load(own) for own in sets.counts.T])
        yield LayerCounts(sets.load if families is None else families.sum(axis=0), families, sets)


def whole_workload(traffic: Workload | Streamed) -> Workload:
    """The workload; of streamed traffic what its expert sets are known of, all tokens or a sample."""
    return traffic.workload if isinstance(traffic, Streamed) else traffic


def sets_of(traffic: Traffic, index: int) -> ExpertSets:
    """The expert sets of a layer, by position, or what is known instead; of a trace without families."""
    if not isinstance(traffic, Trace):
        return whole_workload(traffic).layers[index]
    ones = np.ones((traffic.n_tokens, 1), np.int64)
    return ExpertSets.of(traffic.experts[:, index], ones, n_experts=traffic.n_experts)


def _of_trace(trace: Trace, index: int, tokens: Tokens) -> LayerCounts:
    ids = trace.experts[:, index]
    rows, experts = tokens.n_windows, trace.n_experts
    names, last = len(trace.families), index + 1 == trace.n_layers
    parts = _loads(ids, tokens.part, rows=names * 4, experts=experts).reshape(names, 2, 2, experts)
    families = parts.sum(axis=(1, 2))
    return LayerCounts(
        families.sum(axis=0),
        families,
        sets_of(trace, index),
        parts,
        None if tokens.window is None else _loads(ids, tokens.window, rows=rows, experts=experts),
        None if tokens.mixed is None else _loads(ids, tokens.mixed, rows=rows, experts=experts),
        None if last or experts > MOST_PAIRED else _flow(ids, trace.experts[:, index + 1], experts),
    )


def _loads(ids: NDArray[Any], row: NDArray[np.int64], *, rows: int, experts: int) -> NDArray[np.int64]:
    """int64 [rows, experts]: activations of ids [tokens, k], the tokens in rows."""
    cells = np.zeros(rows * experts, np.int64)
    base = row * experts
    for column in ids.T:
        cells += np.bincount(base + column, minlength=len(cells))
    return cells.reshape(rows, experts)


def _flow(here: NDArray[Any], there: NDArray[Any], experts: int) -> NDArray[np.int64]:
    """int64 [experts, experts]: tokens that choose one here [tokens, k] and one there."""
    cells = np.zeros(experts * experts, np.int64)
    columns = [column.astype(np.int64) for column in there.T]
    for first in here.T:
        base = first.astype(np.int64) * experts
        for column in columns:
            cells += np.bincount(base + column, minlength=len(cells))
    return cells.reshape(experts, experts)
