"""Lines in the pairs that share a group bound what a partition costs, whatever the references say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.partition_lines import UNITS, Level, Lines, hull_lines, partition_levels
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.trace import Trace
from tests.problem_strategies import problems


def labels_of(problem: Problem, placement: Placement, level: Level) -> NDArray[np.int32]:
    """Group of each expert on a level."""
    return np.asarray(placement.primary[0] // (problem.cluster.gpus // level.groups))


def further(problem: Problem, labels: NDArray[np.int32]) -> int:
    """Cost of a level by definition: separated pairs, or groups touched beyond the first."""
    (sets,) = problem.workload.layers
    rows = zip(sets.members.tolist(), problem.set_weights(sets).tolist(), strict=True)
    if problem.objective == "fan-out":
        return sum(weight * (len(set(labels[row])) - 1) for row, weight in rows)
    return sum(
        weight * sum(labels[i] != labels[j] for i in row for j in row if i < j) for row, weight in rows
    )


@settings(max_examples=60, deadline=None)
@given(problem=problems(unequal=False, most_experts=6), seed=st.integers(0, 1000), count=st.integers(1, 3))
def test_no_partition_costs_less_than_its_lines_say(problem: Problem, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    total = 0
    placements = [p for p in problem.candidates() if isinstance(p, Placement)]
    for level in partition_levels(problem):
        references = []
        for _ in range(count if problem.objective == "fan-out" else 0):
            upper = np.triu(rng.integers(0, UNITS, (level.seats, level.seats)), 1)
            references.append(upper + upper.T)
        lines = Lines.of(problem, level, references=references)
        for placement in placements:
            labels = labels_of(problem, placement, level)
            together = np.triu(labels[:, None] == labels, 1)
            n = len(labels)
            shown = lines.unit * (lines.constant - int((lines.weights[:n, :n] * together).sum()))
            cost = further(problem, labels)
            assert shown <= lines.denominator * cost
            assert cost % lines.divisor == 0
            if problem.objective == "cut" and lines.unit == 1:
                assert shown == cost
        total += level.price
    if placements and not total:
        assert problem.cost(placements[0]) == 0


@pytest.mark.parametrize("slots", [2, 3])
def test_of_tokens_with_two_experts_the_lines_are_exact(slots: int) -> None:
    trace = Trace(np.array([[[0, 1]], [[0, 1]], [[1, 2]], [[2, 3]], [[0, 3]]]), 4)
    problem = Problem.from_trace(trace, Cluster(1, 2, slots))
    (level,) = partition_levels(problem)
    lines = Lines.of(problem, level, references=[np.full((level.seats, level.seats), UNITS // 2)])
    for placement in problem.candidates():
        assert isinstance(placement, Placement)
        labels = placement.primary[0]
        together = np.triu(labels[:, None] == labels, 1)
        shown = lines.constant - int((lines.weights[:4, :4] * together).sum())
        assert shown == lines.denominator * problem.cost(placement)


@pytest.mark.parametrize(("chosen", "slots"), [(3, 3), (5, 2), (6, 8), (7, 3), (8, 8)])
def test_hull_lines_are_below_all_partitions_and_touch_two(chosen: int, slots: int) -> None:
    scale, starts, slopes = hull_lines(chosen, slots)

    def sizes(experts: int, most: int) -> list[list[int]]:
        if not experts:
            return [[]]
        return [[s, *rest] for s in range(1, min(experts, most) + 1) for rest in sizes(experts - s, s)]

    for q in range(chosen + 1):
        points = {(sum(s * (s - 1) // 2 for s in part), len(part)) for part in sizes(q, slots)}
        gaps = [
            {scale * parts - (a - b * pairs) for pairs, parts in points}
            for a, b in zip(starts[q], slopes[q], strict=True)
        ]
        assert all(min(gap) == 0 for gap in gaps)
        for a, b in zip(starts[q].tolist(), slopes[q].tolist(), strict=True):
            tight = [pairs for pairs, parts in points if scale * parts == a - b * pairs]
            assert len(tight) >= (2 if b else 1)


def test_three_experts_half_together_cost_more_than_chords_of_each_say() -> None:
    """All pairs at one half: 5/2 - 3/4 groups; each expert by itself would only say 3/2."""
    scale, starts, slopes = hull_lines(3, 3)
    best = max((starts[3] - slopes[3] * 1.5) / scale)
    assert best == pytest.approx(1.75)


def test_heavy_tokens_are_counted_in_units_and_stay_below_their_cost() -> None:
    ids = np.array([[[0, 1]], [[1, 2]], [[0, 2]], [[2, 3]]])
    trace = Trace(ids, 4, families=("a", "b"), family=np.array([0, 1, 1, 1], np.uint8))
    problem = Problem.from_trace(
        trace, Cluster(1, 2, 2), family_weights={"a": 0.123, "b": 0.877}, objective="cut"
    )
    (level,) = partition_levels(problem)
    lines = Lines.of(problem, level, references=[])
    assert lines.unit > 1
    assert problem.total_weight * 0.999 < lines.unit * lines.constant <= problem.total_weight


@pytest.mark.parametrize(
    ("cluster", "options", "words"),
    [
        (Cluster(1, 2, (3, 2)), {}, "equal slots"),
        (Cluster(1, 2, 3), {"replicas": 1}, "without copies"),
        (Cluster(1, 2, 3), {"tail": 0}, "worst of them"),
        (Cluster(1, 400, 3), {}, "at most 1024 slots"),
    ],
)
def test_problems_without_such_levels_are_refused(
    cluster: Cluster, options: dict[str, int], words: str
) -> None:
    problem = Problem.from_trace(Trace(np.array([[[0, 1]], [[2, 3]]]), 4), cluster, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=words):
        partition_levels(problem)


def test_gpus_that_are_nodes_are_one_level_and_a_level_without_price_is_none() -> None:
    trace = Trace(np.array([[[0, 1]], [[2, 3]]]), 4)

    def levels(cluster: Cluster) -> list[tuple[int, ...]]:
        return [tuple(level) for level in partition_levels(Problem.from_trace(trace, cluster))]

    assert levels(Cluster(2, 1, 3, gpu_cost=2, node_cost=3)) == [(5, 2, 3)]
    assert levels(Cluster(2, 2, 1, gpu_cost=2, node_cost=3)) == [(2, 4, 1), (3, 2, 2)]
    assert levels(Cluster(2, 2, 9, gpu_cost=0, node_cost=1)) == [(1, 2, 4)]
    assert levels(Cluster(1, 1, 4)) == []
