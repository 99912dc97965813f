"""The label-free model of replicas is what it says, and says why where it does not apply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt import gatherings
from moeopt.cluster import Cluster
from moeopt.dispatch import Plan
from moeopt.formulation import Tabulated
from moeopt.gatherings import Gatherings, content_sizes, partitions, togetherness
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.solvers.door import Session, Status
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations import covers as module
from moeopt_formulations.covers import Covers
from tests.replica_strategies import replica_problems

COVERS = Covers()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(sets: list[list[int]], experts: int, cluster: Cluster, **changes: object) -> Problem:
    return Problem.from_trace(Trace(np.array(sets)[:, None, :], experts), cluster, **changes)  # type: ignore[arg-type]


def test_it_offers_its_matrix() -> None:
    assert isinstance(COVERS, Tabulated)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems())
def test_it_agrees_with_brute_force(session: Session, problem: Problem) -> None:
    assert check_formulation(COVERS, [problem], session=session) == 1


@pytest.mark.parametrize(
    ("experts", "cluster", "replicas", "tolerance"),
    [
        (5, Cluster(1, 3, 3), 2, None),  # fewer copies than slots: contents of 1 to 3
        (4, Cluster(1, 3, 4), 8, None),  # every GPU holds everything
        (4, Cluster(3, 1, 2, gpu_cost=1, node_cost=2), 2, None),  # a GPU a node
        (4, Cluster(2, 2, 2), 3, None),  # nodes without a price
        (3, Cluster(1, 3, 1), 0, None),  # one slot: nothing is together
        (3, Cluster(1, 4, 1), 1, "1"),
        (3, Cluster(1, 3, 2), 3, "0"),  # the same content twice
        (2, Cluster(1, 3, 2), 2, "0.5"),
        (2, Cluster(1, 3, 2), 0, "2"),  # GPUs stay empty
    ],
)
def test_every_shape_agrees_with_brute_force(
    session: Session, experts: int, cluster: Cluster, replicas: int, tolerance: str | None
) -> None:
    rng = np.random.default_rng(0)
    sets = [rng.permutation(experts)[:2].tolist() for _ in range(6)]
    problem = problem_of(sets, experts, cluster, replicas=replicas, load_tolerance=tolerance)
    assert check_formulation(COVERS, [problem], session=session) == 1


def test_three_pairs_of_one_set_half_chosen_save_nothing(session: Session) -> None:
    """Copies on {0,1}, {1,2}, {0,2}: the touch form pays 1.5 GPUs, the truth is 2."""
    problem = problem_of([[0, 1, 2]], 3, Cluster(1, 3, 2), replicas=3)
    matrix = COVERS.matrix(problem)
    contents = {content: at for at, content in enumerate(Gatherings.of(problem).contents)}
    lower, upper = matrix.lower.copy(), matrix.upper.copy()
    for content, at in contents.items():
        lower[at] = upper[at] = float(content in ({0, 1}, {1, 2}, {0, 2}))
    outcome = session.solve(replace(matrix, lower=lower, upper=upper), relax=True)
    assert outcome.status == Status.OPTIMAL
    assert outcome.objective == pytest.approx(1)


def test_equal_contents_are_two_gpus_under_a_load_cap(session: Session) -> None:
    """Three tokens of a pair on two GPUs of cap 3: six activations fit, three pairs do not."""
    problem = problem_of([[0, 1]] * 3, 2, Cluster(1, 2, 2), replicas=2, load_tolerance="0")
    assert problem.load_cap == 3
    assert check_formulation(COVERS, [problem], session=session) == 1
    outcome = session.solve(COVERS.matrix(problem))
    assert outcome.objective == pytest.approx(1)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(tolerances=(None,)))
def test_star_and_triple_cut_off_no_placement_and_lift_the_relaxation(
    session: Session, problem: Problem
) -> None:
    matrix = COVERS.matrix(problem)
    strong = session.solve(matrix, relax=True)
    whole = session.solve(matrix)
    assert strong.objective is not None
    assert whole.objective is not None
    assert strong.objective <= whole.objective + 1e-6 * (1 + abs(whole.objective))


def test_free_slots_of_a_start_are_filled() -> None:
    problem = problem_of([[0, 1], [2, 3], [1, 2]], 4, Cluster(1, 2, 3), replicas=2)
    start = problem.partition(np.array([0, 0, 1, 1]))
    x = COVERS.values(problem, start)
    matrix = COVERS.matrix(problem)
    assert matrix.violation(x) == 0
    assert matrix.value(x) == problem.cost(start) == 1
    answer = COVERS.placement(problem, x)
    assert isinstance(answer, Placement)
    assert answer.hosts.sum() == 6
    assert problem.cost(answer) <= 1


def test_points_that_stand_for_nothing_are_refused() -> None:
    problem = problem_of([[0, 1], [0, 2]], 3, Cluster(1, 2, 2), replicas=1, load_tolerance="0.5")
    plan = next(iter(problem.candidates()))
    assert isinstance(plan, Plan)
    x = COVERS.values(problem, plan)
    assert isinstance(COVERS.placement(problem, x), Plan)
    assert COVERS.placement(problem, np.zeros(x.size)) is None
    data = Gatherings.of(problem)
    alone = np.zeros(x.size)
    alone[data.content_index[frozenset({0, 1}), 0]] = 2
    assert COVERS.placement(problem, alone) is None  # expert 2 is nowhere
    served = x.copy()
    served[len(data.contents) + len(data.parts) :] = 0
    assert COVERS.placement(problem, served) is None  # nobody serves the tokens
    model = COVERS.build(problem)
    for variable in model.component_data_objects(model.z.ctype):
        variable.set_value(0, skip_validation=True)
    with pytest.raises(ValueError, match="no placement"):
        COVERS.read(model)


@pytest.mark.parametrize(
    ("cluster", "changes", "words"),
    [
        (Cluster(1, 2, (3, 2)), {}, "slots or speeds are unequal"),
        (Cluster(2, 2, 2, node_cost=3), {}, "2 nodes have node cost 3"),
        (Cluster(1, 2, 2), {"objective": "cut"}, "not the cut"),
        (Cluster(1, 2, 2), {"tail": 0}, "tail is 0"),
    ],
)
def test_it_says_why_it_does_not_apply(cluster: Cluster, changes: dict[str, object], words: str) -> None:
    assert words in COVERS.supports(problem_of([[0, 1], [1, 2]], 4, cluster, **changes))


def test_it_says_when_there_is_too_much_to_list(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of([[0, 1], [1, 2]], 4, Cluster(1, 2, 3), replicas=2)
    assert COVERS.supports(problem) == ""
    wide = problem_of([list(range(11))], 11, Cluster(1, 2, 11), replicas=0)
    assert COVERS.supports(wide) == "partitions of 11 experts of a token, enumeration ends at 10"
    monkeypatch.setattr(module, "LARGEST_COLUMNS", 3)
    assert COVERS.supports(problem) == "4 columns for 2 expert sets, the limit is 3"
    assert COVERS.supports(replace(problem, load_tolerance="1")).startswith("28 columns")
    monkeypatch.setattr(module, "LARGEST_CONTENTS", 3)
    assert COVERS.supports(problem) == "4 contents of a GPU, enumeration ends at 3"


@pytest.mark.parametrize(
    ("k", "most", "count"), [(1, 4, 1), (3, 3, 5), (4, 4, 15), (4, 2, 10), (5, 5, 52), (4, 1, 1)]
)
def test_partitions_are_counted_by_bell(k: int, most: int, count: int) -> None:
    ways = partitions(k, most=most)
    assert len(set(ways)) == count
    assert all(sorted(place for part in way for place in part) == list(range(k)) for way in ways)
    assert ways[-1] == tuple((place,) for place in range(k))


@pytest.mark.parametrize(("k", "most"), [(2, 2), (3, 3), (4, 2), (4, 3), (4, 4), (5, 4)])
def test_what_must_be_together_forbids_nothing_that_can_be_served(k: int, most: int) -> None:
    """A GPU for each part of a partition is enough for every row that lists the partition."""
    rows = togetherness(k, most=most)
    for number, way in enumerate(partitions(k, most=most)):
        for used, terms in rows:
            counted = sum(times * sum(set(places) <= set(part) for part in way) for places, times in terms)
            assert counted >= (number in used)


def test_only_sizes_that_occur_are_listed() -> None:
    problem = problem_of([[0, 1]], 5, Cluster(1, 3, 3), replicas=2)
    assert list(content_sizes(problem)) == [1, 2, 3]
    assert gatherings.content_count(problem) == 5 + 10 + 10
    assert list(content_sizes(replace(problem, replicas=4))) == [3]
