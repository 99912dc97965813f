"""The data of every kernel, and the least that any code must do with it for the same answer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine_limits import LINE, Need
from benchmarks.micro.local_cuts import sought
from moeopt.block_prices import shares
from moeopt.block_search import BlockSearch, scale_for
from moeopt.cluster import Cluster
from moeopt.expert_sets import ExpertSets
from moeopt.generator import PRESETS, Generator
from moeopt.hypermetric import broken_cuts, broken_triples
from moeopt.priced_partition import LISTED
from moeopt.problem import Problem
from moeopt.seating import Seating
from moeopt.semidefinite import LARGEST, TRIANGLES, Relaxation
from moeopt.set_counting import SetCounter
from moeopt.set_sorting import count_sets
from moeopt.set_tallies import packing
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload
from moeopt_formulations.priced import Priced

STEPS = 30  # of the relaxation before its cuts are sought
BATCH = 1 << 14  # tokens that come at a time
PART = 16  # of the mean cost of a content: reduced costs up to it are sought, as when a gap is closed
FAMILIES = ("code", "math", "chat", "general")


@dataclass(frozen=True)
class Size:
    """What the kernels are given.

    | field | holds |
    |---|---|
    | tokens, experts, top_k | of the trace whose sets hardly repeat; its layers are costed, or counted |
    | layers, counted | layers that are costed, that are counted |
    | gpus | of the cost; every slot is used, here and below |
    | swapped, swapped_gpus | trace and GPUs of swaps and of cuts |
    | priced, priced_gpus | trace and GPUs of pricing |
    | starts | local searches for cuts, per expert |
    """

    tokens: int
    experts: int
    top_k: int
    layers: int
    counted: int
    gpus: int
    swapped: Generator
    swapped_gpus: int
    priced: Generator
    priced_gpus: int
    starts: int


FULL = Size(
    tokens=40_000,
    experts=256,
    top_k=8,
    layers=58,
    counted=32,
    gpus=64,
    swapped=replace(PRESETS["synthetic-256"], layers=1),
    swapped_gpus=64,
    priced=replace(PRESETS["synthetic-64"], layers=1),
    priced_gpus=16,
    starts=4,
)
_TINY = replace(PRESETS["synthetic-64"], layers=1, tokens=400, requests=8, group_size=4)
SMALL = Size(
    tokens=200,
    experts=32,
    top_k=4,
    layers=3,
    counted=2,
    gpus=8,
    swapped=replace(_TINY, experts=16, top_k=4),
    swapped_gpus=4,
    priced=replace(_TINY, experts=12, top_k=3),
    priced_gpus=3,
    starts=4,
)


@dataclass(frozen=True)
class Prepared:
    """A kernel with its data in place.

    | field | holds |
    |---|---|
    | call | does the work, the same every time |
    | units | how much of it, counted exactly |
    | needs | what any code must do for it: the longest of them is the limit |
    """

    call: Callable[[], Any]
    units: int
    needs: tuple[Need, ...]


def spread_trace(size: Size, *, layers: int) -> Trace:
    """Tokens of random families whose experts are far apart by random steps: hardly any set comes twice."""
    rng, steps = np.random.default_rng(0), size.experts // size.top_k
    experts = rng.integers(1, steps, (size.tokens, layers, size.top_k), np.uint16)
    experts[..., 0] = rng.integers(0, size.experts, (size.tokens, layers))
    experts = experts.cumsum(axis=2, dtype=np.uint16) % size.experts
    family = rng.integers(0, len(FAMILIES), size.tokens, np.uint8)
    narrow = experts.astype(np.uint8 if size.experts <= 256 else np.uint16)
    return Trace(narrow, size.experts, families=FAMILIES, family=family)


def of_cost(size: Size) -> Prepared:
    """`Problem.cost` of a partition of a whole model."""
    cluster = Cluster.of(gpus=size.gpus, slots=size.experts // size.gpus)
    problem = Problem.from_trace(spread_trace(size, layers=size.layers), cluster)
    order = np.random.default_rng(1).permuted(
        np.tile(np.arange(size.experts), (size.layers, 1)), axis=1
    )  # which slot an expert has
    placement = problem.partition(order // int(cluster.slots_of[0]))
    layers = problem.workload.layers
    needs = (
        # Another placement is another cost: every set and all its counts are read again.
        Need("move", sum(sets.members.nbytes + sets.counts.nbytes for sets in layers)),
        # Which GPU a member is on stands nowhere but at its number.
        Need("lookup", sum(sets.members.size for sets in layers), table=4 * size.experts),
    )
    return Prepared(lambda: problem.cost(placement), size.tokens * size.layers, needs)


def of_numpy(size: Size) -> Prepared:
    """`Workload.from_trace` as it is below its threshold for compiled code: NumPy alone."""
    trace = spread_trace(size, layers=size.counted)
    return Prepared(lambda: Workload.from_trace(trace), size.tokens * size.counted, _counting(trace))


def of_compiled(size: Size) -> Prepared:
    """The compiled counting that `Workload.from_trace` turns to for large traces."""
    trace = spread_trace(size, layers=size.counted)
    return Prepared(lambda: count_sets(trace), size.tokens * size.counted, _counting(trace))


def of_stream(size: Size) -> Prepared:
    """The compiled counting of tokens that come in batches, each once, of data sets of any size."""
    trace = spread_trace(size, layers=size.counted)
    family = trace.family.astype(np.int16)

    def call() -> list[ExpertSets]:
        layers = []
        for layer in range(size.counted):
            counter = SetCounter(size.experts, top_k=size.top_k, families=len(FAMILIES), limit=size.tokens)
            for first in range(0, size.tokens, BATCH):
                rows = trace.experts[first : first + BATCH, layer].astype(np.uint16)
                counter.add(rows, family[first : first + BATCH], first=first)
            layers.append(counter.tally().expert_sets(exact=True))
        return layers

    return Prepared(call, size.tokens * size.counted, _counting(trace))


def of_looking(size: Size) -> Prepared:
    """The descent by swaps at a local optimum: it looks at every swap once and makes none."""
    _, _, seating = _settled(size.swapped, size.swapped_gpus)
    labels, order = seating.labels[0].copy(), np.random.default_rng(2).permutation(seating.labels.shape[1])
    swaps = int((labels[:, None] != labels).sum())  # every slot holds an expert: seats are experts
    # Of all that a swap changes, what the first expert brings to the GPU of the second is found by that GPU's number.
    need = Need("lookup", swaps, table=LINE * size.swapped_gpus)
    return Prepared(lambda: seating.descend(order), swaps, (need,))


def of_exchanging(size: Size) -> Prepared:
    """Swaps made, then made in reverse: everything is as it was."""
    _, _, seating = _settled(size.swapped, size.swapped_gpus)
    labels, starts = seating.labels[0], seating.room.starts
    seats = np.random.default_rng(3).permutation(len(labels))
    pairs = seats[: len(seats) // 2 * 2].reshape(-1, 2)
    pairs = pairs[
        labels[pairs[:, 0]] != labels[pairs[:, 1]]
    ]  # no seat comes twice: they differ when it is their turn
    there_and_back = np.concatenate([pairs, pairs[::-1]])
    sets = int((starts[there_and_back + 1] - starts[there_and_back]).sum())
    needs = (
        # Every set of both experts has one member less on a GPU and one more on another: counts found by its number.
        Need("lookup", sets, table=seating.tally.held.nbytes),
        # A GPU left or newly touched changes what it is to every member of the set, in the row of that GPU.
        Need("lookup", _changes(seating, there_and_back), table=2 * 8 * len(labels)),
    )
    return Prepared(lambda: seating.exchange(there_and_back), len(there_and_back), needs)


def of_pricing(size: Size) -> Prepared:
    """The search for contents of small reduced cost, at the prices that a local optimum gives its experts."""
    problem, _, seating = _settled(size.priced, size.priced_gpus)
    blocks = Priced().block_range(problem)
    gpu_of = seating.labels[0].astype(np.int64)
    real = shares(blocks, gpu_of)
    scale = scale_for(blocks, real)
    prices = np.rint(real * scale).astype(np.int64)
    threshold = scale * int(blocks.costs(blocks.held(gpu_of)).mean()) // PART

    def call() -> BlockSearch:
        search = BlockSearch.over(blocks, prices, group=0, scale=scale, threshold=threshold, most=LISTED)
        return search.run(Stop(seconds=None).start())

    search = call()
    if not search.complete:
        raise ValueError(f"pricing needs a complete search, found more than {LISTED} contents")
    # A look is at one number, of a square of pairs at each from two sides: half of them are compared at least.
    return Prepared(call, search.looks, (Need("combine", -(-search.looks // 2)),))


def of_triples(size: Size) -> Prepared:
    """All triples of experts searched for broken triangles."""
    y = _relaxed(size)
    triples = comb(len(y), 3)
    # Two of a triple's three numbers are its own in the innermost row; they are compared at least.
    return Prepared(lambda: broken_triples(y, TRIANGLES), triples, (Need("combine", triples),))


def of_cuts(size: Size) -> Prepared:
    """Local searches for larger broken cuts, a sign at a time."""
    y = _relaxed(size)
    n, groups = len(y), size.swapped_gpus
    pairs = np.stack(np.triu_indices(n, 1), axis=1).astype(np.int64)
    starts = np.random.default_rng(4).permutation(pairs)[: size.starts * n]
    _, looked = sought(y, starts, groups=groups, largest=LARGEST)
    # What a change costs is one number of a row, combined with what the change is.
    return Prepared(lambda: broken_cuts(y, starts, groups, LARGEST), looked, (Need("combine", looked),))


def _counting(trace: Trace) -> tuple[Need, ...]:
    """Of counting the sets of a trace."""
    layers = Workload.from_trace(trace).layers
    entry = 8 * packing(trace.n_experts, trace.top_k)[2] + 4 * len(trace.families)
    return (
        # Every choice is seen once, every set and its counts are written.
        Need("move", trace.experts.nbytes + sum(sets.members.nbytes + sets.counts.nbytes for sets in layers)),
        # A token is counted where its set stands, among all sets of the layer.
        Need("lookup", trace.n_tokens * trace.n_layers, table=entry * min(len(sets) for sets in layers)),
    )


def _changes(seating: Seating, pairs: NDArray[np.int64]) -> int:
    """Members of the sets that leave a GPU or newly touch one while the pairs change places, each time it happens."""
    room, labels, held = seating.room, seating.labels[0].copy(), seating.tally.held[0].copy()
    count = 0
    for pair in pairs:
        for mover, source, target in zip(pair, labels[pair], labels[pair[::-1]], strict=True):
            sets = room.of_expert[room.starts[mover] : room.starts[mover + 1]]
            held[sets, source] -= 1
            held[sets, target] += 1
            count += int((held[sets, source] == 0).sum() + (held[sets, target] == 1).sum())
        labels[pair] = labels[pair[::-1]]
    return count * int(room.members.shape[1])


def _settled(generator: Generator, gpus: int) -> tuple[Problem, ExpertSets, Seating]:
    """(problem, its sets, seats at a local optimum) of one layer on equal GPUs, as swap search has them."""
    cluster = Cluster.of(gpus=gpus, slots=generator.experts // gpus)
    problem = Problem.from_trace(generator.generate(), cluster)
    (sets,) = problem.workload.layers
    seats = np.random.default_rng(5).permutation(np.repeat(np.arange(gpus), generator.experts // gpus))
    seating = Seating.of(
        sets,
        weights=problem.set_weights(sets).astype(float),
        labels=seats[None].astype(np.int32),
        prices=np.array([cluster.gpu_cost], float),
        load=sets.load.astype(float),
        cap=float("inf"),
        penalty=1.0,
    )
    seating.descend(np.arange(len(seats)))
    return problem, sets, seating


def _relaxed(size: Size) -> NDArray[np.float64]:
    """float [experts, experts]: the relaxation of a layer after a few steps, before any cut."""
    problem, sets, _ = _settled(size.swapped, size.swapped_gpus)
    relaxation = Relaxation(size.swapped_gpus, size.swapped.experts // size.swapped_gpus)
    relaxation.aim(sets.affinity(problem.set_weights(sets)).astype(float))
    for _ in range(STEPS):
        relaxation.step()
    return relaxation.y
