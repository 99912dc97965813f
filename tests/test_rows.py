"""What the row solver returns is admissible, judged exactly, and certified only where the checker agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.checker import check_layer
from moeopt.cluster import Cluster
from moeopt.formulation import Formulation, Tabulated
from moeopt.matrix import Matrix
from moeopt.method import Incumbent, Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.rows import solve_rows
from moeopt.solvers.door import Outcome, Session, Status, WorkerDied
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.assignment import Assignment
from moeopt_formulations.pairs import Pairs
from tests.problem_strategies import problems

EXACT = Stop(seconds=None)
FOUR_PAIRS = Cluster(1, 4, 2)
SMALL = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass(frozen=True)
class Rows(Method):
    """Provenance for the tests."""

    name: str = "rows"
    summary: str = "for tests"

    def solve(self, problem: Problem, *, stop: Stop, seed: int, start: Placement | None = None) -> Result:
        raise NotImplementedError


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def run(
    formulation: Formulation,
    problem: Problem,
    *,
    session: Any,
    stop: Stop = EXACT,
    start: Placement | None = None,
) -> Result:
    clock = stop.start()
    return solve_rows(
        Rows(), formulation, Incumbent(problem, clock), clock=clock, seed=0, start=start, session=session
    )


def problem_of(experts: int = 8, cluster: Cluster = FOUR_PAIRS, **fields: Any) -> Problem:
    rng = np.random.default_rng(3)
    chosen = np.array([rng.permutation(experts)[:3] for _ in range(200)])
    return Problem.from_trace(
        Trace(experts=chosen[:, None], n_experts=experts), cluster, objective="cut", **fields
    )


def hold(problem: Problem, result: Result) -> None:
    """What every result keeps, whatever its status."""
    least, _ = brute_force(problem)
    if least is None:
        assert result.status == "infeasible-claimed"
        assert result.placement is None
        assert result.tolerance_reached is not None
        assert problem.load_tolerance is not None
        assert result.tolerance_reached > float(problem.load_tolerance)
        return
    assert result.status in ("certified-optimal", "solver-claimed"), result.message
    assert result.cost == least
    assert result.placement is not None
    assert problem.violation(result.placement) == ""
    assert result.bound is not None
    assert result.bound <= least
    assert (result.status == "certified-optimal") == (result.bound == least)
    assert result.claimed_bound is None or result.claimed_bound == least
    assert result.certificate is not None
    (proof,) = result.certificate.proofs
    assert check_layer(problem, proof, result.placement) == ""


@SMALL
@given(problem=problems(objectives=("cut",), unequal=False, nodes=False))
def test_pairs_finds_the_optimum_and_never_proves_more(session: Session, problem: Problem) -> None:
    hold(problem, run(Pairs(), problem, session=session))


@SMALL
@given(problem=problems(objectives=("cut",), most_experts=5, most_gpus=3))
def test_assignment_finds_the_optimum_and_never_proves_more(session: Session, problem: Problem) -> None:
    hold(problem, run(Assignment(), problem, session=session))


def test_both_formulations_agree_where_brute_force_cannot_reach(session: Session) -> None:
    problem = problem_of(9, Cluster(1, 3, 3), load_tolerance="0.2")
    pairs = run(Pairs(), problem, session=session)
    assignment = run(Assignment(), problem, session=session)
    assert pairs.cost == assignment.cost
    assert pairs.bound is not None
    assert assignment.bound is not None
    assert pairs.bound >= assignment.bound


def test_family_weights_do_not_blur_the_bound(session: Session) -> None:
    problem = problem_of(family_weights={"all": 0.7})  # every cost a multiple of one huge number
    assert problem.multipliers[0] > 1 << 40
    hold(problem, run(Pairs(), problem, session=session))


def test_a_formulation_without_a_matrix_is_compiled(session: Session) -> None:
    class Stated:
        """Pairs as a user's first draft: a Pyomo model and a reader."""

        name: ClassVar[str] = "stated"
        summary: ClassVar[str] = "for tests"
        supports = Pairs.supports
        build = Pairs.build
        read = Pairs.read
        placement = Pairs.placement

    formulation = cast(Formulation, Stated())
    assert not isinstance(formulation, Tabulated)
    problem = problem_of(6, Cluster(1, 2, 3))
    result = run(formulation, problem, session=session)
    assert (result.status, result.cost) == ("solver-claimed", brute_force(problem)[0])
    assert (result.bound, result.certificate) == (None, None)


def test_an_unreachable_load_tolerance_is_claimed_with_what_can_be_reached(session: Session) -> None:
    trace = Trace(experts=np.array([[[0]]] * 3 + [[[1]]] * 3 + [[[2]]] * 2), n_experts=3)
    problem = Problem.from_trace(trace, Cluster(1, 2, 2), objective="cut", load_tolerance="0.2")
    for formulation in (Pairs(), Assignment()):
        result = run(formulation, problem, session=session)
        assert result.status == "infeasible-claimed"
        assert result.tolerance_reached == 0.25


def test_the_optimum_as_a_start_needs_no_search_where_the_relaxation_is_tight(session: Session) -> None:
    problem = problem_of(6, Cluster(1, 6, 1))
    _, best = brute_force(problem)
    result = run(Pairs(), problem, session=session, start=best)
    assert (result.status, result.claimed_bound) == ("certified-optimal", None)


def test_a_gap_asked_for_ends_the_search(session: Session) -> None:
    problem = problem_of()
    best = brute_force(problem)[1]
    result = run(Pairs(), problem, session=session, start=best, stop=Stop(seconds=None, gap=0.5))
    assert result.status in ("certified-gap", "certified-optimal")
    assert result.claimed_bound is None


def test_a_candidate_limit_leaves_a_certified_gap(session: Session) -> None:
    problem = problem_of(12, Cluster(1, 4, 3))
    result = run(Assignment(), problem, session=session, stop=Stop(seconds=None, candidates=1))
    assert result.status == "certified-gap"
    assert result.placement is not None
    assert result.bound == 0


def test_a_time_limit_of_nothing_keeps_the_start(session: Session) -> None:
    problem = problem_of()
    _, best = brute_force(problem)
    result = run(Pairs(), problem, session=session, start=best, stop=Stop(seconds=1e-9))
    assert result.status == "feasible"
    assert result.placement == best
    assert run(Pairs(), problem, session=session, stop=Stop(seconds=1e-9)).status == "none-found"


def test_a_problem_the_formulation_does_not_state_is_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="pairs does not fit this problem: needs GPUs with equal slots"):
        run(Pairs(), problem_of(8, Cluster(1, 2, (5, 3))), session=session)


class Puppet:
    """A session that answers honestly until told what to say to `solve`."""

    def __init__(self, honest: Session, say: Callable[..., Outcome]) -> None:
        self.load, self.add_rows, self.resolve = honest.load, honest.add_rows, honest.resolve
        self.solve = say


@pytest.fixture(scope="module")
def open_gap(session: Session) -> Problem:
    """A problem whose certified bound is below its optimum, so that the search is asked."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        chosen = np.array([rng.permutation(7)[:3] for _ in range(60)])
        trace = Trace(experts=chosen[:, None], n_experts=7)
        problem = Problem.from_trace(trace, Cluster(1, 3, 3), objective="cut")
        if run(Pairs(), problem, session=session).status == "solver-claimed":
            return problem
    raise AssertionError("every relaxation was tight")


def test_a_claim_above_a_known_cost_is_a_disagreement(session: Session, open_gap: Problem) -> None:
    least, best = brute_force(open_gap)
    assert least is not None
    puppet = Puppet(session, lambda *_, **__: Outcome(status=Status.TIME_LIMIT, bound=2.0 * least))
    result = run(Pairs(), open_gap, session=puppet, start=best)
    assert result.status == "disagreement"
    assert result.placement == best
    assert result.bound is not None
    assert result.bound < least


def test_infeasible_with_a_placement_in_hand_is_a_disagreement(session: Session, open_gap: Problem) -> None:
    puppet = Puppet(session, lambda *_, **__: Outcome(status=Status.INFEASIBLE))
    assert run(Pairs(), open_gap, session=puppet, start=brute_force(open_gap)[1]).status == "disagreement"
    # Without one, the balanced placement contradicts the claim.
    assert run(Pairs(), open_gap, session=puppet).status == "disagreement"


def test_a_solver_that_contradicts_itself_is_a_disagreement(session: Session, open_gap: Problem) -> None:
    def fail(*_: object, **__: object) -> Outcome:
        raise RuntimeError("objective 1, bound 2")

    result = run(Pairs(), open_gap, session=Puppet(session, fail))
    assert (result.status, result.message) == ("disagreement", "objective 1, bound 2")


def test_a_worker_that_dies_while_rows_are_added_keeps_the_start(session: Session, open_gap: Problem) -> None:
    def fail(**_: object) -> None:
        raise WorkerDied("killed")

    puppet, best = Puppet(session, session.solve), brute_force(open_gap)[1]
    puppet.add_rows = fail  # type: ignore[assignment]
    result = run(Pairs(), open_gap, session=puppet, start=best)
    assert (result.status, result.placement) == ("feasible", best)
    assert result.message == "the solver died: killed"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), WorkerDied("killed")])
def test_an_interruption_or_a_dead_worker_keeps_what_was_found(
    session: Session, open_gap: Problem, error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> Outcome:
        raise error

    best = brute_force(open_gap)[1]
    result = run(Pairs(), open_gap, session=Puppet(session, fail), start=best)
    assert result.status == ("interrupted" if isinstance(error, KeyboardInterrupt) else "certified-gap")
    assert result.placement == best
    assert result.bound is not None


def test_a_ctrl_c_inside_the_solver_is_an_interruption(session: Session, open_gap: Problem) -> None:
    puppet = Puppet(session, lambda *_, **__: Outcome(status=Status.INTERRUPTED))
    assert run(Pairs(), open_gap, session=puppet).status == "interrupted"


def test_a_point_that_breaks_new_rows_is_searched_again(session: Session, open_gap: Problem) -> None:
    """The solver answers with a broken point once, honestly after that."""
    calls: list[int] = []

    def answer(matrix: Any, **options: Any) -> Outcome:
        calls.append(matrix.rows.shape[0])
        if len(calls) > 1:
            return session.solve(matrix, **options)
        x = np.ones(matrix.cost.size)
        x[0] = 0.0  # all experts together, but the first two apart: five triangles are broken
        return Outcome(status=Status.OPTIMAL, x=x, objective=0.0, bound=0.0)

    result = run(Pairs(), open_gap, session=Puppet(session, answer))
    assert calls[1] > calls[0]
    hold(open_gap, result)


def test_a_point_that_breaks_known_rows_ends_the_search(session: Session, open_gap: Problem) -> None:
    def answer(matrix: Any, **_: object) -> Outcome:
        x = np.ones(matrix.cost.size)
        x[0] = 0.0
        return Outcome(status=Status.OPTIMAL, x=x, objective=0.0, bound=0.0)

    result = run(Pairs(), open_gap, session=Puppet(session, answer))
    assert result.status == "disagreement"
    assert "breaks the rows it was given" in result.message


def test_a_wrong_formulation_is_found_out(session: Session) -> None:
    trace = Trace(experts=np.array([[[0]]] * 8 + [[[1]]] * 5 + [[[2]]] * 4 + [[[3]]] * 3), n_experts=4)
    trace = replace(trace, experts=np.concatenate([trace.experts, (trace.experts + 1) % 4], axis=2))
    capped = Problem.from_trace(trace, Cluster(1, 2, 2), objective="cut", load_tolerance="0.01")

    class Careless(Pairs):
        """Forgets the load tolerance."""

        def matrix(self, problem: Problem) -> Matrix:
            return super().matrix(replace(problem, load_tolerance=None))

    result = run(Careless(), capped, session=session)
    assert result.status == "disagreement"
    assert "not admissible" in result.message

    class Forgetful(Pairs):
        """Forgets part of the objective."""

        def matrix(self, problem: Problem) -> Matrix:
            return replace(super().matrix(problem), offset=1.0)

    result = run(Forgetful(), problem_of(7, Cluster(1, 3, 3)), session=session)
    assert result.status == "disagreement"
    assert "the solver" in result.message
