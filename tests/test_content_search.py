"""The search over contents: the least cost, bounds that the checker accepts, and a word where it does not apply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.instances import instances
from moeopt.certificate import Proof
from moeopt.checker import check_layer
from moeopt.cluster import Cluster
from moeopt.content_search import passes, unsearchable
from moeopt.exact import Exact
from moeopt.formulation import Proven
from moeopt.method import Incumbent
from moeopt.problem import Problem
from moeopt.rows import solve_rows
from moeopt.solvers.scaled import ScaledSession
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.covers import Covers

TINY = [
    problem
    for problem in instances(Covers(), count=80, first=5_000)
    if isinstance(problem, Problem) and not unsearchable(problem)
]
NEVER = Stop(seconds=None)


@pytest.fixture(scope="module")
def session() -> Iterator[ScaledSession]:
    with ScaledSession() as session:
        yield session


def searched(
    problem: Problem, session: ScaledSession, *, stop: Stop = NEVER
) -> tuple[Incumbent, list[Proven]]:
    clock = stop.start()
    best = Incumbent(problem, clock)
    return best, list(passes(Covers(), problem, best=best, clock=clock, session=session))


def proof_of(problem: Problem, found: Proven, *, more: int = 0) -> Proof:
    assert found.bound is not None
    return Proof(
        layer_id=problem.workload.layer_ids[0],
        digest=problem.workload.digest,
        kind=found.kind,
        bound=found.bound + more,
        numbers=found.numbers,
    )


def sample(experts: int = 10, *, replicas: int = 2, tolerance: str | None = None, gpus: int = 4) -> Problem:
    rng = np.random.default_rng(experts)
    popular = rng.dirichlet(np.full(experts, 0.7))
    rows = np.stack([rng.choice(experts, 3, replace=False, p=popular) for _ in range(400)])
    slots = -(-(experts + replicas) // gpus)
    trace = Trace(rows[:, None, :], experts)
    return Problem.from_trace(trace, Cluster(1, gpus, slots), replicas=replicas, load_tolerance=tolerance)


def test_the_least_cost_is_found_and_bounded(session: ScaledSession) -> None:
    optimal = capped = 0
    for problem in TINY:
        least, _ = brute_force(problem)
        best, found = searched(problem, session)
        assert best.cost == least
        if least is None:
            assert found[-1].impossible
            continue
        for one in found:
            assert one.bound is not None
            assert one.bound <= least
        most = max(found, key=lambda one: one.bound or 0)
        optimal += most.bound == least
        capped += problem.load_caps is not None
        assert most.bound == least or problem.load_caps is not None  # prices may leave a gap, covers do not
        assert check_layer(problem, proof_of(problem, most), placement=None) == ""
        if most.bound == least:
            assert check_layer(problem, proof_of(problem, most, more=1), placement=None)
    assert optimal > 0.8 * len(TINY)
    assert capped > 10


@pytest.mark.parametrize("tolerance", [None, "0.10"])
@pytest.mark.parametrize(("experts", "replicas"), [(10, 0), (10, 1), (9, 3), (7, 5)])
def test_every_pass_proves_its_bound(
    session: ScaledSession, experts: int, replicas: int, tolerance: str | None
) -> None:
    problem = sample(experts, replicas=replicas, tolerance=tolerance)
    best, found = searched(problem, session)
    if best.cost is None:
        assert found[-1].impossible
        return
    for one in found:
        assert check_layer(problem, proof_of(problem, one), placement=None) == ""
    assert found[-1].bound == best.cost


def test_prices_of_the_relaxation_change_the_way_and_not_the_end(
    session: ScaledSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tolerance in (None, "0.10"):
        problem = sample(replicas=2, tolerance=tolerance)
        without, found = searched(problem, session)
        monkeypatch.setattr("moeopt.content_search.PATIENCE", -1.0)
        clock = NEVER.start()
        best = Incumbent(problem, clock)
        assert without.placement is not None
        best.offer(
            problem.plan(Exact(Covers()).solve(problem, stop=NEVER, seed=0).placement or without.placement)
        )
        again = list(passes(Covers(), problem, best=best, clock=clock, session=session))
        monkeypatch.undo()
        assert best.cost == without.cost
        assert again[-1].bound == found[-1].bound


def test_the_formulation_ends_certified_by_its_own_search() -> None:
    problem = sample(tolerance="0.10")
    result = Exact(Covers()).solve(problem, stop=NEVER, seed=0)
    assert result.status == "certified-optimal"
    assert result.certificate is not None
    assert result.certificate.proofs[0].kind == "contents"


def test_an_expired_clock_leaves_the_incumbent_and_no_wrong_word() -> None:
    problem = sample(12, replicas=3, tolerance="0.10")
    clock = Stop(seconds=0.01).start()
    result = solve_rows(Exact(Covers()), Covers(), incumbent=Incumbent(problem, clock), clock=clock, seed=0)
    assert result.status in ("feasible", "certified-gap", "none-found")
    assert result.bound is None or result.cost is None or result.bound <= result.cost


def test_a_load_that_nothing_levels_is_called_infeasible() -> None:
    rows = np.array([[0, 1], [0, 2], [0, 3], [0, 1]])
    problem = Problem.from_trace(Trace(rows[:, None, :], 4), Cluster(1, 2, 2), load_tolerance=0)
    result = Exact(Covers()).solve(problem, stop=NEVER, seed=0)
    assert result.status == "infeasible-claimed"


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (sample(10, gpus=5), "2 to 4 GPUs, found 5"),
        (sample(19, replicas=1), "up to 18 experts, found 19"),
    ],
)
def test_what_the_search_does_not_take_is_said(problem: Problem, reason: str) -> None:
    assert reason in unsearchable(problem)


def test_a_huge_objective_is_left_to_other_ways() -> None:
    rows = np.array([[0, 1, 2], [1, 2, 3], [0, 2, 3]])
    trace = Trace(rows[:, None, :], 4, family=np.array([0, 1, 1]), families=("code", "math"))
    weights = {"code": 0.9, "math": 0.1}
    problem = Problem.from_trace(trace, Cluster(1, 2, 3), replicas=1, family_weights=weights)
    assert unsearchable(problem) == ""
    assert "64 bits" in unsearchable(replace(problem, cluster=Cluster(1, 2, 3, gpu_cost=300)))


def test_a_solver_that_fails_in_the_search_costs_no_incumbent(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("the solver gave no answer")

    monkeypatch.setattr("moeopt.content_search.PATIENCE", -1.0)
    monkeypatch.setattr("moeopt.content_search.ContentPrices.of", failing)
    result = Exact(Covers()).solve(sample(9, replicas=3), stop=NEVER, seed=0)
    assert (result.status, result.message) == ("disagreement", "the solver gave no answer")
    assert result.placement is not None
    assert result.certificate is not None
