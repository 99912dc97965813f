"""What a GPU may hold when experts have copies, and how the tokens of an expert set may be split into parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.columns import contents
from moeopt.mixtures import Mixed
from moeopt.problem import Problem

__all__ = ["Demands", "Gatherings", "content_count", "content_sizes", "demands", "partitions", "togetherness"]

Part = frozenset[int]


class Demands(NamedTuple):
    """Traffic that is served alike.

    | field | holds |
    |---|---|
    | sets | int64 [demands]: index of the expert set |
    | tokens | int64 [demands]: its tokens; 1 without a load tolerance, where the demand is a whole set |
    | weights | int64 [demands]: objective of the tokens, of one token under a load tolerance, on one further GPU |
    | families | bool [demands, families]: families whose tokens the demand is about |
    """

    sets: NDArray[np.int64]
    tokens: NDArray[np.int64]
    weights: NDArray[np.int64]
    families: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Gatherings:
    """Contents of GPUs, and the demands for parts of one layer on interchangeable GPUs.

    | field | holds |
    |---|---|
    | contents | tuple of frozensets: what a GPU may hold; repeated where several GPUs may hold the same |
    | repeats | int64 [contents]: 0 for the first GPU with this content, 1 for the second, ... |
    | parts | tuple of frozensets: every expert, and the parts that tokens may be served in, smallest first |
    | partitions | how k positions may be parted, each a tuple of tuples of positions; all apart comes last |
    | sets, tokens, weights, families | as `Demands` has them |
    | members | int32 [demands, k] |
    | copies | E + R, all of them placed |
    | gpus, slots | G, and how many experts a GPU may hold |
    | capped | whether there is a load tolerance |
    """

    contents: tuple[Part, ...]
    repeats: NDArray[np.int64]
    parts: tuple[Part, ...]
    partitions: tuple[tuple[tuple[int, ...], ...], ...]
    sets: NDArray[np.int64]
    tokens: NDArray[np.int64]
    weights: NDArray[np.int64]
    families: NDArray[np.bool_]
    members: NDArray[np.int32]
    copies: int
    gpus: int
    slots: int
    capped: bool

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """The gatherings of a problem of one layer."""
        (sets,) = problem.workload.layers
        cluster, experts = problem.cluster, sets.n_experts
        slots = min(int(cluster.slots_of[0]), experts)
        unit = cluster.further_gpu
        sizes = content_sizes(problem)
        listed = [frozenset[int]()] if 0 in sizes else []
        for block in contents(experts, [size for size in sizes if size]):
            listed += [frozenset(row) for row in block.tolist()]
        together, repeats = [], []
        for content in listed:
            for repeat in range(_most_repeats(len(content), problem) if problem.load_caps is not None else 1):
                together.append(content)
                repeats.append(repeat)
        rows, tokens, weights, families = demands(problem, unit=unit)
        members = sets.members[rows]
        found = {
            frozenset(part)
            for size in range(2, min(slots, sets.top_k) + 1)
            for places in combinations(range(sets.top_k), size)
            for part in np.unique(members[:, places], axis=0).tolist()
        }
        parts = [frozenset([e]) for e in range(experts)] + sorted(found, key=lambda a: (len(a), sorted(a)))
        return cls(
            tuple(together),
            np.array(repeats, np.int64),
            tuple(parts),
            partitions(sets.top_k, most=slots),
            rows,
            tokens,
            weights,
            families,
            members,
            experts + problem.replicas,
            cluster.gpus,
            slots,
            problem.load_caps is not None,
        )

    @property
    def most_copies(self) -> int:
        """No expert is on more GPUs."""
        return min(self.gpus, 1 + self.copies - sum(len(part) == 1 for part in self.parts))

    @cached_property
    def served(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(part, content): `inside` without the parts that no token has."""
        part, content = self.inside
        used = self.traffic[part] > 0
        return part[used], content[used]

    @cached_property
    def part_index(self) -> dict[Part, int]:
        """Where each part stands in `parts`."""
        return {part: index for index, part in enumerate(self.parts)}

    @cached_property
    def content_index(self) -> dict[tuple[Part, int], int]:
        """Where each content stands in `contents`, by content and repeat."""
        return {key: at for at, key in enumerate(zip(self.contents, self.repeats.tolist(), strict=True))}

    @cached_property
    def inside(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(part, content) of every part inside a content, by part and then content."""
        held = np.zeros((len(self.contents), 1 + max(max(part) for part in self.parts)), bool)
        for at, content in enumerate(self.contents):
            held[at, list(content)] = True
        found = [np.flatnonzero(held[:, list(part)].all(axis=1)) for part in self.parts]
        return np.repeat(np.arange(len(self.parts)), [len(one) for one in found]), np.concatenate(found)

    @cached_property
    def demand_parts(self) -> dict[tuple[int, ...], NDArray[np.int64]]:
        """int64 [demands]: the part that each demand has at some positions, for every choice that can be one."""
        largest = max(len(part) for part in self.parts)
        k = self.members.shape[1]
        return {
            places: np.array(
                [self.part_index[frozenset(row)] for row in self.members[:, places].tolist()], np.int64
            )
            for size in range(1, min(largest, k) + 1)
            for places in combinations(range(k), size)
        }

    @cached_property
    def traffic(self) -> NDArray[np.int64]:
        """int64 [parts]: tokens whose set contains the part."""
        total = np.zeros(len(self.parts), np.int64)
        for index in self.demand_parts.values():
            np.add.at(total, index, self.tokens)
        return total


def togetherness(k: int, *, most: int) -> list[tuple[list[int], list[tuple[tuple[int, ...], int]]]]:
    """What must be together somewhere for a partition to be used: (partitions, terms).

    Of the listed `partitions`, no more is used than the number of GPUs that the terms count: the sum of coefficient x
    GPUs that hold all of the positions. Three kinds: all of two or more positions together; position a with b or c;
    two of three positions. The count is 0 or at least 1, and every listed partition needs one such GPU.
    """
    ways = [[frozenset(part) for part in partition] for partition in partitions(k, most=most)]
    rows: list[tuple[list[int], list[tuple[tuple[int, ...], int]]]] = []

    def add(families: Sequence[tuple[int, ...]], terms: list[tuple[tuple[int, ...], int]]) -> None:
        used = [
            at for at, way in enumerate(ways) if any(part.issuperset(one) for part in way for one in families)
        ]
        rows.append((used, terms))

    for size in range(2, min(k, most) + 1):
        for places in combinations(range(k), size):
            add([places], [(places, 1)])
    if most >= 2:
        for triple in combinations(range(k), 3):
            pairs = list(combinations(triple, 2))
            whole = [triple] if most >= 3 else []
            add(pairs, [(pair, 1) for pair in pairs] + [(triple, -2) for triple in whole])
            for apart in pairs:  # the two other pairs share the position that is not in `apart`
                star = [pair for pair in pairs if pair != apart]
                add(star, [(pair, 1) for pair in star] + [(triple, -1) for triple in whole])
    return rows


def content_sizes(problem: Problem) -> range:
    """Sizes of contents in placements with all E + R copies."""
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    slots = min(int(problem.cluster.slots_of[0]), experts)
    return range(max(0, experts + problem.replicas - (gpus - 1) * slots), slots + 1)


def content_count(problem: Problem) -> int:
    """How many contents enumeration would list, repeats aside."""
    from math import comb

    return sum(comb(problem.workload.n_experts, size) for size in content_sizes(problem))


def partitions(k: int, *, most: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Every way to part k positions into parts of at most `most`; all apart comes last."""

    def extend(rest: tuple[int, ...]) -> list[tuple[tuple[int, ...], ...]]:
        if not rest:
            return [()]
        first, others = rest[0], rest[1:]
        return [
            ((first, *chosen), *parted)
            for size in range(min(most - 1, len(others)), -1, -1)
            for chosen in combinations(others, size)
            for parted in extend(tuple(place for place in others if place not in chosen))
        ]

    return tuple(sorted(extend(tuple(range(k))), key=len))


def _most_repeats(size: int, problem: Problem) -> int:
    """How many GPUs may hold one content of this size: a repeat takes `size` replicas."""
    return problem.cluster.gpus if size == 0 else min(problem.cluster.gpus, 1 + problem.replicas // size)


def demands(problem: Problem, *, unit: int) -> Demands:
    """What a problem of one layer asks for; `unit` is the cost of one further GPU for a token of weight 1.

    Without a load tolerance a demand is a set. With one, tokens of families with unlike multipliers compete for the
    copies, so that a demand is a set and a multiplier.
    """
    (sets,) = problem.workload.layers
    if problem.load_caps is None:
        everyone = np.ones((len(sets), len(problem.multipliers)), bool)
        weights = unit * problem.set_weights(sets)
        return Demands(np.arange(len(sets)), np.ones(len(sets), np.int64), weights, everyone)
    # Under a mixture every family by itself: mixtures of one problem have the same demands.
    alike = np.arange(len(problem.multipliers)) if isinstance(problem, Mixed) else problem.multipliers
    group = np.unique(alike, return_inverse=True)[1]
    first = np.unique(group, return_index=True)[1]
    counts = np.stack([sets.counts[:, group == g].sum(axis=1) for g in range(len(first))], axis=1)
    rows, classes = np.nonzero(counts)
    values = problem.multipliers[first]
    return Demands(rows, counts[rows, classes], unit * values[classes], group[None, :] == classes[:, None])
