"""What the row solver returns is admissible, judged exactly, and certified only where the checker agrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.checker import check_layer
from moeopt.cluster import Cluster
from moeopt.formulation import Formulation, Tabulated
from moeopt.loads import LoadProblem
from moeopt.method import Incumbent, Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.rows import solve_model, solve_rows
from moeopt.rows_tree_checker import check_rows
from moeopt.rowsearch import RowSearch
from moeopt.solvers.door import Session, installed
from moeopt.statements import named_formulation
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.assignment import Assignment
from moeopt_formulations.balance import Balance
from moeopt_formulations.pairs import Pairs
from tests.loads_strategies import load_problems
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
        Rows(),
        formulation,
        incumbent=Incumbent(problem, clock),
        clock=clock,
        seed=0,
        start=start,
        session=session,
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
    assert check_layer(problem, proof, placement=result.placement) == ""


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
    # Without a start the opening still offers one placement, so that there is something to keep.
    bare = run(Pairs(), problem, session=session, stop=Stop(seconds=1e-9))
    assert bare.status == "feasible"
    assert bare.placement is not None
    assert not problem.violation(bare.placement)


def test_a_problem_the_formulation_does_not_state_is_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="pairs does not fit this problem: needs GPUs with equal slots"):
        run(Pairs(), problem_of(8, Cluster(1, 2, (5, 3))), session=session)


@settings(SMALL, max_examples=12)
@given(problem=load_problems())
def test_any_problem_that_judges_its_answers_is_solved_and_proved(
    session: Session, problem: LoadProblem
) -> None:
    least, _ = brute_force(problem)
    answer = solve_model(Balance(), problem, stop=EXACT, session=session)
    if least is None:
        assert (answer.answer, answer.cost) == (None, None)
        return
    assert (answer.status, answer.cost, answer.bound) == ("certified-optimal", least, least)
    assert problem.violation(answer.answer) == ""
    assert problem.cost(answer.answer) == least
    assert answer.proof is not None
    assert (answer.proof.kind, answer.proof.cost, answer.proof.optimal) == ("rows", least, True)
    assert answer.proof.digest == problem.digest
    assert check_rows(problem, answer.proof) == ""
    assert [event.cost for event in answer.history if event.cost is not None][-1] == least


def uneven() -> LoadProblem:
    """Loads whose mean no GPU can have."""
    return LoadProblem(np.array([7, 7, 6, 5, 5]), Cluster(1, 2, 4))


def test_a_start_is_the_first_answer_and_is_improved(session: Session) -> None:
    problem = uneven()
    start = problem.partition([0, 0, 0, 1, 1])
    answer = solve_model(Balance(), problem, stop=EXACT, session=session, start=start)
    assert (answer.status, answer.cost) == ("certified-optimal", brute_force(problem)[0])
    assert answer.history[0].cost == problem.cost(start) == 20
    crowded = LoadProblem(problem.load, Cluster(1, 2, 3)).partition([0, 0, 0, 0, 1])
    refused = solve_model(
        Balance(), LoadProblem(problem.load, Cluster(1, 2, 3)), stop=EXACT, session=session, start=crowded
    )
    assert refused.status == "certified-optimal"


def test_without_time_a_model_keeps_its_start_and_claims_nothing(session: Session) -> None:
    problem = uneven()
    start = problem.partition([0, 0, 0, 1, 1])
    answer = solve_model(Balance(), problem, stop=Stop(seconds=1e-9), session=session, start=start)
    assert (answer.status, answer.answer, answer.cost) == ("feasible", start, 20)
    assert (answer.bound, answer.proof, answer.claimed_bound) == (None, None, None)
    nothing = solve_model(Balance(), problem, stop=Stop(seconds=1e-9), session=session)
    assert (nothing.status, nothing.answer, nothing.cost) == ("none-found", None, None)


def test_multipliers_of_a_relaxation_stopped_early_prove_no_less_than_none_at_all(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cost is never negative, which takes no multipliers to prove."""
    rng = np.random.default_rng(0)
    trace = Trace(np.array([[rng.permutation(5)[:2]] for _ in range(40)]), 5)
    problem = Problem.from_trace(trace, Cluster(1, 3, 3), replicas=2)
    relax = RowSearch.relax

    def hasty(search: RowSearch) -> None:
        relax(search)
        assert search.duals is not None
        search.duals = rng.normal(size=search.duals.size) * 50

    monkeypatch.setattr(RowSearch, "relax", hasty)
    monkeypatch.setattr(RowSearch, "search", lambda _: None)
    monkeypatch.setattr(RowSearch, "close", lambda _: None)
    answer = solve_model(named_formulation("replicated"), problem, stop=EXACT, session=session)
    assert answer.bound == 0
    assert answer.proof is not None
    assert check_rows(problem, answer.proof) == ""


def test_a_model_is_solved_by_a_solver_of_whole_columns_alone() -> None:
    if reason := installed("cpsat"):
        pytest.skip(reason)
    problem = uneven()
    answer = solve_model(Balance(), problem, stop=EXACT, solver="cpsat")
    assert (answer.status, answer.cost, answer.solver) == (
        "certified-optimal",
        brute_force(problem)[0],
        "cpsat",
    )


def test_a_model_of_another_problem_is_refused(session: Session) -> None:
    with pytest.raises(
        ValueError, match="balance does not fit this problem: states a LoadProblem, found Problem"
    ):
        solve_model(Balance(), problem_of(), stop=EXACT, session=session)


@dataclass(frozen=True)
class Unbalanced(Balance):
    """Wrong: its costs are twice what an answer costs."""

    def build(self, problem: LoadProblem) -> Any:
        model = super().build(problem)
        model.cost.set_value(2 * model.cost.expr)
        return model


def test_a_wrong_model_is_a_disagreement_and_proves_nothing(session: Session) -> None:
    answer = solve_model(Unbalanced(), uneven(), stop=EXACT, session=session)
    assert answer.status == "disagreement"
    assert answer.bound is None or answer.bound <= (brute_force(uneven())[0] or 0)
