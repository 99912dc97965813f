"""Trees prove tiny models by themselves, never claim too much, and stop where they are told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from moeopt.branching import Tree, scale_of, sparse
from moeopt.matrix import Matrix
from moeopt.rows_tree_checker import _least
from moeopt.solvers.door import Session
from moeopt.statement import Statement
from moeopt.stop import Stop
from moeopt.whole_model import WholeModel

NOTHING = sparse([])
MANY = 1 << 30


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    """Whole columns of a few values and rows that often leave no point."""
    width, height = draw(st.integers(1, 5)), draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lower = rng.integers(-2, 1, width)
    rows = rng.integers(-4, 5, (height, width)) * (rng.random((height, width)) < 0.7)
    middle = rows @ rng.integers(lower, lower + 3)
    kind = rng.integers(0, 4, height)
    return Matrix(
        cost=rng.integers(-20, 21, width).astype(float),
        offset=float(rng.integers(-5, 6)),
        lower=lower.astype(float),
        upper=(lower + rng.integers(0, 3, width)).astype(float),
        integer=np.ones(width, bool),
        rows=csr_array(rows.astype(float)),
        row_lower=np.where(kind == 1, -np.inf, middle - (kind == 3)).astype(float),
        row_upper=np.where(kind == 2, np.inf, middle + (kind == 3)).astype(float),
    )


def least_of(matrix: Matrix) -> int | None:
    """By enumeration."""
    ends = zip(matrix.lower.astype(int).tolist(), matrix.upper.astype(int).tolist(), strict=True)
    points = (np.array(point, float) for point in product(*(range(low, high + 1) for low, high in ends)))
    return min((int(matrix.value(x)) for x in points if matrix.violation(x) == 0.0), default=None)


class Grown:
    """A tree, its root, and the cheapest whole point that it came across."""

    def __init__(self, matrix: Matrix, session: Any, *, known: int | None = None, **limits: Any) -> None:
        self.matrix, self.best = matrix, known
        self.offered = 0
        model = WholeModel._of(matrix, matrix.cost.astype(np.int64), int(matrix.offset))
        stop = limits.pop("stop", Stop(seconds=None))
        nothing: Any = None
        statement = Statement(nothing, nothing, matrix, 1, 1, read=lambda x: None)
        self.tree = Tree(model, statement, session, stop.start(), seed=0)
        self.top = self.tree.grow(
            limits.pop("root", NOTHING),
            cost=lambda: self.best,
            offer=self.offer,
            most_nodes=limits.pop("most_nodes", MANY),
            most_numbers=limits.pop("most_numbers", MANY),
        )
        self.model, self.bound = model, self.tree.bound(self.top)

    def offer(self, x: Any) -> None:
        self.offered += 1
        point = np.round(x)
        assert self.matrix.violation(point) == 0.0
        cost = int(self.matrix.value(point))
        self.best = cost if self.best is None else min(self.best, cost)


SMALL = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@SMALL
@given(matrix=matrices())
def test_a_tree_proves_a_tiny_model_by_itself(session: Session, matrix: Matrix) -> None:
    least, grown = least_of(matrix), Grown(matrix, session)
    assert grown.best == least
    if least is None:
        assert grown.bound > int(matrix.offset) + int(np.abs(matrix.cost).sum()) * 3
    else:
        assert grown.bound == least


@SMALL
@given(matrix=matrices(), most=st.integers(0, 4), numbers=st.integers(0, 5))
def test_a_tree_that_stops_early_claims_no_more_than_is_so(
    session: Session, matrix: Matrix, most: int, numbers: int
) -> None:
    least = least_of(matrix)
    for grown in (
        Grown(matrix, session, most_nodes=most),
        Grown(matrix, session, most_numbers=numbers),
    ):
        assert least is None or grown.bound <= least
    assert Grown(matrix, session, most_nodes=most).tree.nodes <= most
    box = Grown(matrix, session, most_nodes=0)
    assert box.tree.nodes == 0
    assert box.tree.listed(box.top)["tree"] == [{"rows": [], "numbers": []}]


@SMALL
@given(matrix=matrices(), most=st.sampled_from([0, 1, 3, MANY]))
def test_the_checker_reads_the_listed_tree_as_the_same_bound(
    session: Session, matrix: Matrix, most: int
) -> None:
    grown = Grown(matrix, session, most_nodes=most)
    listed = grown.tree.listed(grown.top)
    assert _least(grown.model, listed["tree"], listed["scale"]) == (grown.bound, listed["duals"])
    leaves = [case for case in listed["tree"] if "rows" in case]
    assert len(listed["tree"]) == 2 * len(leaves) - 1


@SMALL
@given(matrix=matrices(), gap=st.integers(0, 10))
def test_nothing_is_proved_beyond_a_known_cost(session: Session, matrix: Matrix, gap: int) -> None:
    """A better known cost closes cases earlier: never more linear models than without it."""
    least = least_of(matrix)
    if least is not None:
        known = Grown(matrix, session, known=least)
        assert known.bound >= least
        assert known.tree.nodes <= Grown(matrix, session, known=least + gap).tree.nodes


def knapsack() -> Matrix:
    """Maximise 2 (x + y + z) where at most half of 3 fits: the relaxation is 3, the optimum 2."""
    return Matrix(
        cost=np.full(3, -2.0),
        lower=np.zeros(3),
        upper=np.ones(3),
        integer=np.ones(3, bool),
        rows=csr_array([[2.0, 2.0, 2.0]]),
        row_lower=np.array([-np.inf]),
        row_upper=np.array([3.0]),
    )


def odd() -> Matrix:
    """2 x + 2 y + 2 z = 3: fractions satisfy it, whole numbers do not."""
    return replace(knapsack(), row_lower=np.array([3.0]))


def test_a_case_without_points_is_refuted(session: Session) -> None:
    grown = Grown(odd(), session)
    assert grown.best is None
    assert grown.bound > 10**6
    known = Grown(odd(), session, known=7)
    assert known.bound >= 7


def test_root_multipliers_are_kept_where_the_solver_is_not_asked(session: Session) -> None:
    grown = Grown(knapsack(), session, root=(np.array([0]), [-(1 << 24)]), most_nodes=0)
    assert grown.bound == -2  # -3 by the relaxation, rounded up to a multiple of 2
    assert grown.tree.listed(grown.top)["tree"] == [{"rows": [0], "numbers": [-(1 << 24)]}]


def test_a_continuous_column_is_never_branched_on(session: Session) -> None:
    loose = replace(knapsack(), integer=np.array([False, True, False]))
    grown = Grown(loose, session)
    assert all(case.get("column", 1) == 1 for case in grown.tree.listed(grown.top)["tree"])
    assert grown.bound == -3


def test_a_clock_that_has_run_out_leaves_the_root(session: Session) -> None:
    clock_of = Stop(seconds=None, candidates=1)

    class Over(Stop):
        def start(self) -> Any:
            clock = clock_of.start()
            clock.candidates = 1
            return clock

    grown = Grown(knapsack(), session, stop=Over())
    assert grown.tree.nodes == 0
    assert grown.bound == -6


def asked(session: Session, change: Callable[[Any], Any]) -> Any:
    """A session whose linear answers are changed on the way."""

    class Changed:
        load, set_bounds, solve = session.load, session.set_bounds, session.solve

        def resolve(self, **limits: Any) -> Any:
            outcome = session.resolve(**limits)
            return outcome if outcome.row_duals is None else change(outcome)

    return Changed()


@pytest.mark.parametrize(
    "change",
    [
        lambda outcome: replace(outcome, row_duals=-outcome.row_duals),
        lambda outcome: replace(outcome, row_duals=outcome.row_duals * 0.0),
        lambda outcome: replace(outcome, row_duals=np.full_like(outcome.row_duals, 1e6)),
        lambda outcome: replace(outcome, x=np.zeros_like(outcome.x)),
        lambda outcome: replace(outcome, row_duals=None),
    ],
)
def test_no_lie_of_the_linear_solver_is_believed(session: Session, change: Callable[[Any], Any]) -> None:
    """A wrong dual is a weak one, a wrong point ends a case early: the bound stays below the optimum."""
    grown = Grown(knapsack(), asked(session, change), most_nodes=50)
    assert grown.bound <= -2


@given(bits=st.integers(0, 40))
def test_costs_keep_their_bits_in_every_unit(bits: int) -> None:
    assert scale_of(1 << bits) == max(1, 2 ** (24 - bits))


def test_sparse_multipliers_keep_what_is_not_zero() -> None:
    places, numbers = sparse([0, 5, 0, -(1 << 90)])
    assert places.tolist() == [1, 3]
    assert numbers == [5, -(1 << 90)]
    assert sparse([])[0].dtype == np.int64
