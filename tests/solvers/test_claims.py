"""A solver's word is a claim: what the door finds out at once, and what never becomes a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.conformance.bench import mixed, packing, whole
from moeopt.matrix import Matrix
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.solvers.door import Outcome, Session, Status
from moeopt.solvers.talk import true_to
from moeopt.statement import Statement
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.pairs import Pairs
from tests.test_rows import run
from tests.test_rows_claims import Puppet

COVER = whole([1.0, 1.0, 1.0], [[1.0, 1.0, 1.0]], at_least=[2.0], offset=0.5)
LIARS = (
    "FlippedDuals",
    "ForbidsFirst",
    "ForgetsLastRow",
    "Halved",
    "HighBound",
    "NoOffset",
    "RoundedCosts",
    "Stray",
    "TrustsStart",
    "WideGap",
    "Worst",
    "WrongObjective",
    "Zero",
    "ZeroDuals",
)


@pytest.fixture(scope="module")
def liar() -> Iterator[Callable[[str], Session]]:
    with ExitStack() as stack:
        yield lambda fault: stack.enter_context(Session(f"tests.solvers.broken:{fault}"))


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


@pytest.mark.parametrize(
    ("x", "objective", "words"),
    [
        ([0.0, 0.0, 0.0], 0.5, "breaks the sides of row 0: 0.0 is not between 2.0 and inf"),
        ([1.0, 2.0, 0.0], 3.5, "breaks the bounds of column 1: 2.0 is not between 0.0 and 1.0"),
        ([1.0, 0.5, 0.5], 2.5, "a fraction in a whole-number column"),
        ([1.0, 1.0, 0.0], 1.5, "values its point at 1.5; it is worth 2.5"),
        ([1.0, np.nan, 0.0], 2.5, r"no finite float\[3\]"),
        ([1.0, 1.0], 2.5, r"no finite float\[3\]"),
    ],
)
@pytest.mark.parametrize("status", [Status.OPTIMAL, Status.TIME_LIMIT, Status.INTERRUPTED])
def test_a_point_that_is_none_raises(x: list[float], objective: float, words: str, status: Status) -> None:
    with pytest.raises(RuntimeError, match=words):
        true_to(COVER, Outcome(status=status, x=np.array(x), objective=objective), relax=False)


def test_a_point_within_rounding_passes() -> None:
    def hold(matrix: Matrix, x: list[float], *, relax: bool = False) -> None:
        outcome = Outcome(status=Status.OPTIMAL, x=np.array(x), objective=matrix.value(np.array(x)))
        assert true_to(matrix, outcome, relax=relax) is outcome

    hold(COVER, [1.0, 1.0 - 1e-9, 1e-9])
    hold(COVER, [1.0, 0.5, 0.5], relax=True)
    hold(whole([1.0, 1.0], [[2.0**20, -(2.0**20)]], at_least=[0.0], at_most=[0.0]), [1.0, 1.0 - 1e-9])
    hold(mixed([1.0], [[1.0]], at_least=[1e9]), [1e9 - 100.0])
    nothing = Outcome(status=Status.TIME_LIMIT)
    assert true_to(COVER, nothing, relax=False) is nothing


def test_an_all_zero_incumbent_at_a_time_limit_is_found_out(liar: Callable[[str], Session]) -> None:
    """As cvxpy reports one for HiGHS: value 0, zeros, and rows broken."""
    with pytest.raises(RuntimeError, match="breaks the sides of row 0"):
        liar("Zero").solve(COVER, seconds=5.0)


def test_the_wrong_optimum_of_highs_1_14_is_right_here(session: Session) -> None:
    """x + z >= 4.5, z whole: HiGHS 1.14.0 called (0, 5), worth 15, optimal; (4.5, 0) is worth 9."""
    known = mixed([2.0, 3.0], [[1.0, 1.0]], at_least=[4.5], upper=[10.0, 10.0], integer=[False, True])
    assert session.solve(known).objective == pytest.approx(9.0)
    with Session("tests.solvers.broken:AllWhole") as wrong:
        assert wrong.solve(known).objective == 10.0  # feasible, and called optimal: nothing contradicts it
        with pytest.raises(RuntimeError, match="its start is worth 9"):
            wrong.solve(known, start=np.array([4.5, 0.0]))


def problem_of_seed(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    chosen = np.array([rng.permutation(7)[:3] for _ in range(60)])
    return Problem.from_trace(Trace(experts=chosen[:, None], n_experts=7), Cluster(1, 3, 3), objective="cut")


@pytest.fixture(scope="module")
def problem(session: Session) -> Problem:
    """Its certified bound is below its optimum, so that the search is asked."""
    for seed in range(20):
        found = problem_of_seed(seed)
        certificate = run(Pairs(), found, session=session).certificate
        if (
            certificate is not None and certificate.proofs[0].kind == "rows"
        ):  # a tree: the root was not enough
            return found
    raise AssertionError("every relaxation was tight")


def require_true(result: Result, problem: Problem) -> None:
    """Whatever a result calls certified, or bounds, or offers, is so."""
    least, _ = brute_force(problem)
    assert least is not None
    if result.placement is not None:
        assert problem.violation(result.placement) == ""
        assert result.cost == problem.cost(result.placement)
    if result.bound is not None:
        assert result.bound <= least
    if result.status == "certified-optimal":
        assert result.cost == least == result.bound
    if result.status == "infeasible-claimed":
        raise AssertionError(f"a placement costs {least}")


@pytest.mark.parametrize("fault", LIARS)
def test_nothing_false_is_certified_on_the_word_of_a_liar(
    liar: Callable[[str], Session], problem: Problem, fault: str
) -> None:
    session = liar(fault)
    require_true(run(Pairs(), problem, session=session), problem)
    require_true(run(Pairs(), problem, session=session, start=brute_force(problem)[1]), problem)


@pytest.mark.parametrize("status", [Status.TIME_LIMIT, Status.OPTIMAL])
def test_a_bound_a_hair_above_the_optimum_is_not_rounded_up(
    session: Session, problem: Problem, status: Status
) -> None:
    """HiGHS has claimed bounds up to 1.4e-6 above a whole optimum: the next whole number is no bound."""
    least, best = brute_force(problem)
    assert least is not None
    assert best is not None

    whole = Pairs().matrix(problem)
    point = dict(zip(whole.column_names, Pairs().values(problem, best).tolist(), strict=True))
    value = float(least) / Statement.of(Pairs(), problem).unit

    def claim(matrix: Matrix, **_: object) -> Outcome:
        x = np.array([point[name] for name in matrix.column_names])
        return Outcome(status=status, x=x, objective=value, bound=value + 1.4e-6)

    result = run(Pairs(), problem, session=Puppet(session, claim), start=best)
    assert result.claimed_bound == least
    assert result.cost == least
    assert result.status in ("certified-gap", "solver-claimed", "certified-optimal")
    assert result.bound is not None
    assert result.bound <= least


def test_the_bound_of_a_session_is_a_hair_off_at_most(session: Session) -> None:
    for seed in range(3):
        matrix = packing(30, 6)
        outcome = session.solve(matrix, seed=seed)
        assert outcome.bound is not None
        assert outcome.objective is not None
        assert outcome.bound <= outcome.objective + 1e-6 * abs(outcome.objective)
