"""Frozen problems for every formulation, cut from recorded layers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

from benchmarks.questions import (
    LAYER,
    Question,
    balancing,
    budgeting,
    decoding,
    flowing,
    grouping,
    hopping,
    labelling,
    placing,
    splitting,
)
from moeopt.cluster import Cluster


@dataclass(frozen=True)
class Spec:
    """One problem and the formulations that state it.

    | field | holds |
    |---|---|
    | name | of the problem |
    | size | what grows, in a word or two |
    | formulations | registered names |
    | build | the problem by seed: above 0 experts have other names, and with them columns and rows; the optimum stays |
    | solvers | that are tried, where others would only fill the time; none given: all |
    """

    name: str
    size: str
    formulations: tuple[str, ...]
    build: Callable[[int], Question]
    solvers: tuple[str, ...] = ()


def _gpus(count: int, slots: int, *, nodes: int = 1, node_cost: int = 0) -> Cluster:
    return Cluster.of(gpus=count, nodes=nodes, slots=slots, node_cost=node_cost)


def _placements() -> Iterable[Spec]:
    cut: dict[str, Any] = {"objective": "cut"}
    names: tuple[str, ...]
    for experts, names in (
        (8, ("assignment", "pairs", "blocks", "priced")),
        (12, ("assignment", "pairs", "blocks", "priced")),
        (16, ("pairs", "blocks", "priced")),
    ):
        build = partial(placing, experts=experts, cluster=_gpus(4, experts // 4), **cut)
        yield Spec(f"cut, {experts} experts", f"{experts} experts", names, build)
    eight, few = _gpus(8, 4), ("prices", "highs")
    build = partial(placing, experts=32, cluster=eight, **cut)
    yield Spec("cut, 32 experts, 8 GPUs", "32 experts", ("pairs", "blocks", "priced"), build, few)
    build = partial(placing, experts=32, cluster=eight, load_tolerance="0.10", **cut)
    yield Spec("cut, 32 experts, 8 GPUs, load 10 %", "32 experts", ("pairs", "blocks", "priced"), build, few)
    for experts, names in (
        (8, ("hyperedge", "two-level-blocks", "labelled", "blocks", "priced")),
        (12, ("hyperedge", "two-level-blocks", "labelled", "blocks", "priced")),
        (16, ("two-level-blocks", "labelled", "blocks", "priced")),
    ):
        build = partial(placing, experts=experts, cluster=_gpus(4, experts // 4))
        yield Spec(f"fan-out, {experts} experts", f"{experts} experts", names, build)
    build = partial(placing, experts=32, cluster=eight, load_tolerance="0.10")
    yield Spec("fan-out, 32 experts, 8 GPUs, load 10 %", "32 experts", ("blocks", "priced"), build, few)
    for experts, slots in ((8, (1, 2, 2, 3)), (12, (2, 3, 3, 4))):
        build = partial(placing, experts=experts, cluster=Cluster(1, 4, slots))
        names = ("two-level-blocks", "labelled", *(("hyperedge",) if experts == 8 else ()))
        yield Spec(f"fan-out, {experts} experts, unequal slots", f"{experts} experts", names, build)
    for experts in (8, 12, 16):
        nodes = _gpus(4, experts // 4, nodes=2, node_cost=3)
        build = partial(placing, experts=experts, cluster=nodes, **cut)
        yield Spec(f"cut, {experts} experts, 2 nodes", f"{experts} experts", ("two-level",), build)
        build = partial(placing, experts=experts, cluster=nodes)
        names = ("two-level-blocks", *(("hyperedge",) if experts == 8 else ()))
        yield Spec(f"fan-out, {experts} experts, 2 nodes", f"{experts} experts", names, build)


def _extras() -> Iterable[Spec]:
    """Replicas, tails and moves."""
    both, few = ("covers", "replicated"), ("highs", "cpsat")
    for experts, copies, gpus, tolerance, solvers in (
        (6, 1, 3, None, ()),
        (6, 2, 3, None, ()),
        (6, 2, 3, "0.25", few),
        (8, 1, 3, None, ()),
        (8, 2, 4, None, few),
    ):
        one = _replicas(experts, copies, both, layer=LAYER, tolerance=tolerance, gpus=gpus)
        yield replace(one, solvers=solvers)
    for experts, gpus, solvers in ((6, 3, ()), (8, 4, few)):
        build = partial(budgeting, experts=experts, cluster=_gpus(gpus, 3), copies=2)
        label = f"2 x {experts} experts + 2"
        yield Spec(f"budget, {label}", label, ("joint",), build, solvers)
    for experts in (8, 12, 16):
        build = partial(placing, experts=experts, cluster=_gpus(4, experts // 4), tail="0")
        yield Spec(f"worst family, {experts} experts", f"{experts} experts", ("families",), build)
    build = partial(placing, experts=12, cluster=_gpus(4, 3), tail="0.25")
    yield Spec("worst quarter, 12 experts", "12 experts", ("families",), build)
    for experts, moved in ((8, 2), (12, 4), (32, 4)):
        cluster = _gpus(8, 4) if experts == 32 else _gpus(4, experts // 4)
        build = partial(placing, experts=experts, cluster=cluster, moved=moved)
        label = f"{experts} experts, {moved} moves"
        yield Spec(f"moves, {label}", label, ("migration",), build)


def _replicas(
    experts: int, copies: int, names: tuple[str, ...], *, layer: int, tolerance: str | None, gpus: int = 4
) -> Spec:
    label = f"{experts} + {copies} experts"
    cluster = _gpus(gpus, -(-(experts + copies) // gpus))
    rules: dict[str, Any] = {"replicas": copies, "load_tolerance": tolerance}
    build = partial(placing, experts=experts, cluster=cluster, layer=layer, **rules)
    load = "" if tolerance is None else f", load {100 * float(tolerance):.0f} %"
    where = "" if layer == LAYER else f", layer {layer}"
    return Spec(f"replicas, {label}, {gpus} GPUs{load}{where}", label, names, build)


def _others() -> Iterable[Spec]:
    """Problems that are not placements of one layer for few GPUs a token."""
    for layers, experts in ((2, 8), (3, 8), (3, 12)):
        build = partial(flowing, layers=layers, experts=experts, cluster=_gpus(4, experts // 4), top_k=1)
        label = f"{layers} x {experts} experts"
        yield Spec(f"flow, {label}", label, ("layers", "layer-pairs"), build)
    build = partial(flowing, layers=4, experts=32, cluster=_gpus(8, 4), top_k=4, returning=True)
    yield Spec("flow home, 4 x 32 experts", "4 x 32 experts", ("layers",), build)
    for gpus, measure in ((4, "tail"), (4, "total"), (8, "total")):
        cluster = _gpus(gpus, 32 // gpus, nodes=2, node_cost=3)
        build = partial(labelling, layers=3, cluster=cluster, measure=measure)
        label = f"3 layers, {gpus} GPUs"
        yield Spec(f"labels, {label}, {measure}", label, ("cluster-to-gpu",), build)
    for layers in (4, 14):
        cluster = _gpus(8, 5, nodes=4, node_cost=2)
        build = partial(hopping, layers=layers, cluster=cluster, memory=4 * layers)
        yield Spec(f"hops, {layers} layers", f"{layers} layers", ("hops",), build)
    for requests, experts in ((6, 8), (8, 12), (12, 16)):
        label = f"{requests} requests, {experts} experts"
        build = partial(grouping, requests=requests, experts=experts, groups=2)
        yield Spec(f"groups, {label}", label, ("groups",), build)
    for experts, gpus, measure in (
        (8, 4, "maximum"),
        (8, 4, "deviation"),
        (12, 4, "maximum"),
        (32, 8, "maximum"),
    ):
        build = partial(balancing, experts=experts, cluster=_gpus(gpus, experts // gpus), measure=measure)
        few = ("highs", "cpsat") if experts == 32 else ()
        yield Spec(f"balance, {experts} experts, {measure}", f"{experts} experts", ("balance",), build, few)
    for experts, batches in ((8, 4), (12, 6), (16, 8)):
        build = partial(decoding, experts=experts, cluster=_gpus(4, experts // 4), batches=batches)
        label = f"{experts} experts, {batches} batches"
        yield Spec(f"decode, {label}", label, ("activated",), build)
    for experts, gpus, copies in ((16, 4, 4), (32, 8, 8)):
        build = partial(splitting, experts=experts, gpus=gpus, copies=copies)
        label = f"{experts} + {copies} experts"
        yield Spec(f"split, {label}", label, ("token-split",), build)


def _tiny() -> Iterable[Spec]:
    """One problem a kind on the packaged sample: for a look, in seconds."""
    here: dict[str, Any] = {"source": "sample", "layer": 0}
    two, four = _gpus(4, 2), _gpus(4, 2, nodes=2, node_cost=3)
    flow = partial(flowing, layers=2, experts=6, cluster=_gpus(3, 2), top_k=1, source="sample")
    labels = partial(labelling, layers=2, cluster=_gpus(4, 8), measure="total", source="sample")
    hops = partial(hopping, layers=2, cluster=_gpus(4, 8), memory=16, source="sample")
    place = partial(placing, experts=8, **here)
    budget = partial(budgeting, experts=6, cluster=_gpus(3, 3), copies=1, source="sample", layers=(0, 1))
    for name, formulations, build in (
        ("cut", ("assignment", "pairs", "blocks", "priced"), partial(place, cluster=two, objective="cut")),
        ("fan-out", ("hyperedge", "blocks", "labelled", "priced"), partial(place, cluster=two)),
        ("cut, 2 nodes", ("two-level",), partial(place, cluster=four, objective="cut")),
        ("fan-out, 2 nodes", ("two-level-blocks",), partial(place, cluster=four)),
        ("replicas", ("covers", "replicated"), partial(place, cluster=_gpus(3, 3), replicas=1)),
        ("budget", ("joint",), budget),
        ("worst family", ("families",), partial(place, cluster=two, tail="0")),
        ("moves", ("migration",), partial(place, cluster=two, moved=2)),
        ("flow", ("layers", "layer-pairs"), flow),
        ("labels", ("cluster-to-gpu",), labels),
        ("hops", ("hops",), hops),
        ("groups", ("groups",), partial(grouping, requests=4, experts=8, groups=2, **here)),
        ("balance", ("balance",), partial(balancing, experts=8, cluster=two, measure="maximum", **here)),
        ("decode", ("activated",), partial(decoding, experts=8, cluster=two, batches=2, **here)),
        ("split", ("token-split",), partial(splitting, experts=8, gpus=4, copies=2, **here)),
    ):
        yield Spec(f"tiny, {name}", "8 experts", formulations, build)


def _named(specs: Iterable[Spec]) -> Mapping[str, Spec]:
    every = list(specs)
    named = {spec.name: spec for spec in every}
    if len(named) < len(every):
        raise ValueError(f"two problems share a name: {[spec.name for spec in every]}")
    return MappingProxyType(named)


SPECS = _named([*_placements(), *_extras(), *_others()])
TINY = _named(_tiny())
REPLICAS = _named(
    _replicas(experts, copies, ("covers", "replicated"), layer=layer, tolerance=tolerance)
    for layer in (LAYER, 0)
    for experts in (12, 16)
    for copies in (2, 3, 4)
    for tolerance in (None, "0.10")
)
REPLICAS_32 = _named(
    _replicas(32, copies, ("covers",), layer=LAYER, tolerance=tolerance, gpus=gpus)
    for gpus, copies in ((12, 4), (10, 8))  # so that the contents of a GPU can be listed
    for tolerance in (None, "0.10")
)


def spec(name: str) -> Spec:
    """The spec of this name; ValueError for an unknown one."""
    for group in (SPECS, TINY, REPLICAS, REPLICAS_32):
        if name in group:
            return group[name]
    raise ValueError(f"no problem is named {name!r}; those there are stand in {__name__}")


@cache
def question(name: str, seed: int) -> Question:
    """The problem of this name, built once a process; ValueError for an unknown one."""
    return spec(name).build(seed)
