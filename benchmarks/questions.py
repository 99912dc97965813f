"""What recorded layers ask: problems of every kind, built from a trace; a seed above 0 renames the experts of each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import read_source
from moeopt.activation import ActivationProblem
from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.grouping import GroupingProblem
from moeopt.judged import Judged
from moeopt.labels import LabelProblem
from moeopt.loads import LoadProblem
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.splitting import SplitProblem
from moeopt.topology import HopsProblem
from moeopt.trace import Trace
from moeopt.workload import Workload

LAYER = 10  # of gpt-oss-20b, where not told otherwise
KEPT: Mapping[tuple[str, int, int], tuple[int, ...]] = MappingProxyType(
    {
        ("gpt-oss-20b", 0, 6): (0, 2, 9, 11, 16, 24),
        ("gpt-oss-20b", 0, 8): (0, 2, 5, 7, 9, 11, 16, 24),
        ("gpt-oss-20b", 0, 12): (1, 7, 10, 11, 13, 17, 21, 22, 23, 25, 28, 29),
        ("gpt-oss-20b", 0, 16): (1, 2, 6, 7, 8, 10, 11, 13, 16, 17, 21, 22, 23, 25, 28, 29),
        ("gpt-oss-20b", 10, 6): (5, 7, 10, 11, 23, 26),
        ("gpt-oss-20b", 10, 8): (5, 7, 10, 11, 18, 21, 23, 26),
        ("gpt-oss-20b", 10, 12): (5, 8, 10, 11, 18, 19, 21, 23, 24, 25, 26, 30),
        ("gpt-oss-20b", 10, 16): (2, 5, 8, 10, 11, 13, 14, 16, 18, 19, 21, 23, 24, 25, 26, 30),
        ("sample", 0, 6): (15, 16, 23, 28, 29, 31),
        ("sample", 1, 6): (0, 10, 14, 23, 27, 29),
        ("sample", 0, 8): (15, 16, 19, 21, 23, 28, 29, 31),
    }
)
"""The experts of a layer that keep most tokens, as `most_kept` found them: (source, layer, experts) to ids."""


@dataclass(frozen=True)
class Question:
    """A problem that judges its answers; of placements also the trace, for the checker."""

    problem: Judged
    trace: Trace | None = None


def names_of(experts: int, *, seed: int) -> NDArray[np.int64]:
    """int64 [experts]: the new name of each expert; its own with seed 0."""
    return np.random.default_rng(seed).permutation(experts) if seed else np.arange(experts)


def renamed(trace: Trace, name_of: NDArray[np.int64]) -> Trace:
    """The tokens all of whose experts have a name (at least 0), by these names; ValueError when there are none."""
    ids = name_of[trace.experts.astype(np.int64)]
    whole = (ids >= 0).all(axis=(1, 2))
    if not whole.any():
        raise ValueError(f"no token stays within {int((name_of >= 0).sum())} experts")
    return replace(trace.take(whole), experts=ids[whole], n_experts=int((name_of >= 0).sum()))


def most_kept(trace: Trace, experts: int) -> tuple[int, ...]:
    """So many experts of one layer within which most tokens stay, by exchanges from the most loaded ones."""
    ids = np.sort(trace.experts[:, 0].astype(np.int64), axis=1)
    load = np.bincount(ids.ravel(), minlength=trace.n_experts)
    sets, count = np.unique(ids, axis=0, return_counts=True)
    chosen = np.zeros(trace.n_experts, bool)
    chosen[np.argsort(-load, kind="stable")[:experts]] = True

    def stay(drop: int, take: int) -> int:
        other = chosen.copy()
        other[drop], other[take] = False, True
        return int(count[other[sets].all(axis=1)].sum())

    best = int(count[chosen[sets].all(axis=1)].sum())
    while True:
        outside = np.flatnonzero(~chosen).tolist()
        pairs = [(a, b) for a in np.flatnonzero(chosen).tolist() for b in outside]
        value, drop, take = max((stay(a, b), -a, -b) for a, b in pairs) if pairs else (best, 0, 0)
        if value <= best:
            return tuple(np.flatnonzero(chosen).tolist())
        best, chosen[-drop], chosen[-take] = value, False, True


def layer_of(source: str, layer: int, *, experts: int, seed: int) -> Trace:
    """One layer cut to so many experts, renamed."""
    recorded = read_source(source, layers=(layer,))
    kept = KEPT.get((source, layer, experts), tuple(range(recorded.n_experts)))
    if len(kept) != experts:
        raise ValueError(f"no {experts} experts are frozen for layer {layer} of {source}")
    name_of = np.full(recorded.n_experts, -1)
    name_of[list(kept)] = names_of(experts, seed=seed)
    return renamed(recorded, name_of)


def placing(
    seed: int,
    *,
    experts: int,
    cluster: Cluster,
    source: str = "gpt-oss-20b",
    layer: int = LAYER,
    moved: int | None = None,
    **rules: Any,
) -> Question:
    """A placement problem of one layer; with `moved`, so many moves away from consecutive experts on each GPU."""
    trace = layer_of(source, layer, experts=experts, seed=seed)
    if moved is not None:
        primary = np.empty((1, experts), np.int64)
        primary[0, names_of(experts, seed=seed)] = linear(experts, cluster)
        incumbent = Placement.partition(primary, cluster, layer_ids=(layer,), model=trace.model)
        rules = {**rules, "incumbent": incumbent, "max_moves": moved}
    return Question(Problem.from_trace(trace, cluster, **rules), trace)


def budgeting(
    seed: int,
    *,
    experts: int,
    cluster: Cluster,
    copies: int,
    source: str = "gpt-oss-20b",
    layers: tuple[int, int] = (0, LAYER),
) -> Question:
    """Two layers with one budget of copies, each cut by itself: the n-th tokens that stay in either go together."""
    parts = [layer_of(source, layer, experts=experts, seed=seed) for layer in layers]
    tokens = min(part.n_tokens for part in parts)
    chosen = np.concatenate([part.experts[:tokens] for part in parts], axis=1)
    trace = replace(parts[0].take(np.arange(tokens)), experts=chosen, layer_ids=np.array(layers, np.int32))
    rules: dict[str, Any] = {"replicas": copies, "total_replicas": copies}
    return Question(Problem.from_trace(trace, cluster, **rules), trace)


def linear(experts: int, cluster: Cluster) -> NDArray[np.int64]:
    """int64 [experts]: the GPU of each, consecutive experts together, as many on each as the slots ask for."""
    return np.repeat(np.arange(cluster.gpus), -(-experts // cluster.gpus))[:experts]


def flowing(
    seed: int,
    *,
    layers: int,
    experts: int,
    cluster: Cluster,
    top_k: int,
    source: str = "gpt-oss-20b",
    returning: bool = False,
) -> Question:
    """Consecutive layers, the flow among the most loaded experts of each; every layer is renamed by itself."""
    recorded = _consecutive(source, layers, top_k)
    whole = FlowProblem.from_trace(recorded, replace(cluster, slots=recorded.n_experts), returning=returning)
    load = [
        np.bincount(ids.ravel(), minlength=recorded.n_experts) for ids in recorded.experts.transpose(1, 0, 2)
    ]
    order = [
        np.argsort(-of, kind="stable")[:experts][np.argsort(names_of(experts, seed=seed and seed * 100 + at))]
        for at, of in enumerate(load)
    ]
    flow = np.array(
        [part[here][:, there] for part, here, there in zip(whole.flow, order[:-1], order[1:], strict=True)]
    )
    home = (
        None
        if whole.home is None
        else np.array([part[here] for part, here in zip(whole.home, order, strict=True)])
    )
    return Question(FlowProblem(flow, home, cluster, layer_ids=whole.layer_ids, model=whole.model))


def labelling(
    seed: int, *, layers: int, cluster: Cluster, measure: str, source: str = "gpt-oss-20b"
) -> Question:
    """Groups of consecutive experts, to be sent to GPUs; every layer's groups are renamed by themselves."""
    recorded = _consecutive(source, layers, 4)
    flow = FlowProblem.from_trace(recorded, cluster, returning=False)
    group = linear(recorded.n_experts, cluster)
    groups = [names_of(cluster.gpus, seed=seed and seed * 100 + at)[group] for at in range(layers)]
    return Question(LabelProblem(flow.flow, np.array(groups), cluster, measure, layer_ids=flow.layer_ids))


def hopping(
    seed: int, *, layers: int, cluster: Cluster, memory: int, source: str = "gpt-oss-20b"
) -> Question:
    """Layer l is dispatched by GPU l, counted round; so many experts of all layers fit a GPU."""
    recorded = _consecutive(source, layers, 0)
    recorded = renamed(recorded, names_of(recorded.n_experts, seed=seed))
    dispatch = np.arange(layers) % cluster.gpus
    return Question(
        HopsProblem.from_workload(Workload.from_trace(recorded), cluster, dispatch=dispatch, memory=memory)
    )


def grouping(
    seed: int, *, requests: int, experts: int, groups: int, source: str = "gpt-oss-20b", layer: int = LAYER
) -> Question:
    """The requests with most tokens within the kept experts, renamed as well; a quarter more or fewer a group."""
    trace = layer_of(source, layer, experts=experts, seed=seed)
    named, tokens = np.unique(trace.request, return_counts=True)
    chosen = named[np.argsort(-tokens, kind="stable")[:requests]]
    problem = GroupingProblem.from_trace(trace.take(np.isin(trace.request, chosen)), groups=groups)
    order = names_of(requests, seed=seed)
    return Question(replace(problem, activations=problem.activations[order]))


def balancing(
    seed: int,
    *,
    experts: int,
    cluster: Cluster,
    measure: str,
    source: str = "gpt-oss-20b",
    layer: int = LAYER,
) -> Question:
    """The loads of a layer, or of its kept experts by the tokens that stay."""
    trace = layer_of(source, layer, experts=experts, seed=seed)
    return Question(LoadProblem.from_workload(Workload.from_trace(trace), cluster, measure=measure))


def decoding(
    seed: int,
    *,
    experts: int,
    cluster: Cluster,
    batches: int,
    source: str = "gpt-oss-20b",
    layer: int = LAYER,
    replicas: int = 0,
) -> Question:
    """Evenly spaced decode batches of four tokens."""
    trace = layer_of(source, layer, experts=experts, seed=seed)
    problem = ActivationProblem.from_trace(
        trace, cluster, batch_size=4, layer=layer, phase=None, most=batches, replicas=replicas
    )
    return Question(problem)


def splitting(
    seed: int, *, experts: int, gpus: int, copies: int, source: str = "gpt-oss-20b", layer: int = LAYER
) -> Question:
    """Consecutive experts together; the most loaded have one more copy each, on the next GPUs but one, in turn."""
    trace = layer_of(source, layer, experts=experts, seed=0)
    (sets,) = Workload.from_trace(trace).layers
    hosts = np.zeros((experts, gpus), bool)
    hosts[np.arange(experts), np.arange(experts) * gpus // experts] = True
    for at, expert in enumerate(np.argsort(-sets.load, kind="stable")[:copies].tolist()):
        hosts[expert, (int(hosts[expert].argmax()) + 2 + at % (gpus - 2)) % gpus] = True
    order = names_of(experts, seed=seed)
    return Question(SplitProblem(sets.load[order], hosts[order]))


@cache
def _consecutive(source: str, layers: int, top_k: int) -> Trace:
    """Layers from LAYER on (of the sample: the first), of each token the `top_k` highest-rated experts; 0: all."""
    first = 0 if source == "sample" else LAYER
    recorded = read_source(source, layers=tuple(range(first, first + layers)))
    chosen = recorded.experts[:, :, : top_k or recorded.top_k]
    return replace(recorded, experts=np.ascontiguousarray(chosen))
