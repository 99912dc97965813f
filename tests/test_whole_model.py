"""What multipliers prove is exact, whatever the size of the numbers, and holds for every point."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import ceil
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from moeopt.cluster import Cluster
from moeopt.matrix import Matrix
from moeopt.problem import Problem
from moeopt.trace import Trace
from moeopt.whole_model import WholeModel
from moeopt_formulations.assignment import Assignment
from tests.problem_strategies import problems

INF = np.inf
NUMBERS = {"small": 9, "medium": 2**31, "large": 2**53}


@st.composite
def models(draw: st.DrawFn, *, size: str | None = None) -> tuple[WholeModel, list[list[int]]]:
    """A random model and its rows as Python integers; numbers up to 2^53."""
    most = NUMBERS[size or draw(st.sampled_from(sorted(NUMBERS)))]
    width, height = draw(st.integers(1, 4)), draw(st.integers(0, 4))
    number = st.integers(-most, most)
    rows = [[draw(st.one_of(st.just(0), number)) for _ in range(width)] for _ in range(height)]
    ends = [sorted(draw(st.tuples(number, number))) for _ in range(width)]
    sides = []
    for _ in range(height):
        low, high = sorted(draw(st.tuples(number, number)))
        sides.append(draw(st.sampled_from([(low, high), (low, INF), (-INF, high), (low, low), (-INF, INF)])))
    model = WholeModel(
        costs=np.array([draw(number) for _ in range(width)], np.int64),
        offset=draw(number),
        divisor=1,
        lower=np.array([low for low, _ in ends], np.int64),
        upper=np.array([high for _, high in ends], np.int64),
        integer=np.ones(width, bool),
        rows=csr_array(np.array(rows, np.int64).reshape(height, width)),
        row_lower=np.array([low for low, _ in sides], float),
        row_upper=np.array([high for _, high in sides], float),
    )
    return model, rows


def multipliers_of(draw: Any, model: WholeModel) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Some rows, each once, with numbers that press on a side they have."""
    places, numbers = [], []
    for row, (low, high) in enumerate(zip(model.row_lower, model.row_upper, strict=True)):
        least = -(1 << draw(st.sampled_from([3, 40, 100]))) if np.isfinite(high) else 1
        most = 1 << draw(st.sampled_from([3, 40, 100])) if np.isfinite(low) else -1
        if least > most or draw(st.booleans()):
            continue
        number = draw(st.integers(least, most).filter(bool))
        if (number > 0 and np.isfinite(low)) or (number < 0 and np.isfinite(high)):
            places.append(row)
            numbers.append(number)
    order = draw(st.permutations(range(len(places))))
    return np.array([places[at] for at in order], np.int64), [numbers[at] for at in order]


@settings(max_examples=300, deadline=None)
@given(case=models(), scale=st.sampled_from([1, 7, 1 << 24, 1 << 64]), data=st.data())
def test_the_dual_is_that_of_python_integers(
    case: tuple[WholeModel, list[list[int]]], scale: int, data: st.DataObject
) -> None:
    model, rows = case
    places, numbers = multipliers_of(data.draw, model)
    reduced = [scale * cost for cost in model.costs.tolist()]
    wanted = scale * model.offset
    for row, number in zip(places.tolist(), numbers, strict=True):
        wanted += number * int(model.row_lower[row] if number > 0 else model.row_upper[row])
        reduced = [r - number * entry for r, entry in zip(reduced, rows[row], strict=True)]
    for r, low, high in zip(reduced, model.lower.tolist(), model.upper.tolist(), strict=True):
        wanted += min(r * low, r * high)
    found = model.dual((places, numbers), scale=scale, lower=model.lower, upper=model.upper)
    assert found == wanted
    assert isinstance(found, int)


@settings(max_examples=200, deadline=None)
@given(case=models(size="small"), scale=st.sampled_from([1, 5, 1 << 24]), data=st.data())
def test_no_point_costs_less_than_the_multipliers_prove(
    case: tuple[WholeModel, list[list[int]]], scale: int, data: st.DataObject
) -> None:
    model, rows = case
    low = model.lower
    model = replace(model, upper=np.minimum(model.upper, low + 3))
    proved = model.dual(multipliers_of(data.draw, model), scale=scale, lower=low, upper=model.upper)
    ends = zip(low.tolist(), model.upper.tolist(), strict=True)
    for point in product(*(range(first, last + 1) for first, last in ends)):
        body = [sum(a * x for a, x in zip(row, point, strict=True)) for row in rows]
        if all(model.row_lower[at] <= value <= model.row_upper[at] for at, value in enumerate(body)):
            cost = model.offset + sum(c * x for c, x in zip(model.costs.tolist(), point, strict=True))
            assert cost >= Fraction(proved, scale)
            assert cost >= model.bound(proved, scale)


@given(dual=st.integers(-(10**30), 10**30), scale=st.integers(1, 1 << 64), divisor=st.integers(1, 1000))
def test_a_bound_is_the_dual_rounded_up_to_a_multiple(dual: int, scale: int, divisor: int) -> None:
    model = replace(WholeModel.of(Stated(matrix_of()), None), divisor=divisor)  # type: ignore[arg-type]
    assert model.bound(dual, scale) == divisor * ceil(Fraction(dual, scale * divisor))


class Stated:
    """A tabulated formulation of one matrix."""

    name: ClassVar[str] = "stated"
    summary: ClassVar[str] = "for tests"

    def __init__(self, matrix: Matrix, costs: list[int] | None = None, offset: int = 0) -> None:
        self._matrix, self._offset = matrix, offset
        self._costs = np.array(matrix.cost if costs is None else costs, np.int64)

    def supports(self, problem: Any) -> str:
        return ""

    def build(self, problem: Any) -> Any: ...

    def read(self, model: Any) -> Any: ...

    def matrix(self, problem: Any) -> Matrix:
        return self._matrix

    def costs(self, problem: Any) -> tuple[Any, int]:
        return self._costs, self._offset

    def values(self, problem: Any, answer: Any) -> Any: ...

    def placement(self, problem: Any, x: Any) -> Any: ...


def matrix_of(**fields: Any) -> Matrix:
    given = {
        "cost": [4.0, 6.0],
        "lower": [0.0, 0.0],
        "upper": [1.0, 5.0],
        "integer": np.array([True, True]),
        "rows": csr_array(np.array([[1.0, 2.0], [0.0, 3.0]])),
        "row_lower": [1.0, -INF],
        "row_upper": [INF, 9.0],
    }
    return Matrix(**{**given, **fields})


def whole(matrix: Matrix, costs: list[int] | None = None, offset: int = 0) -> WholeModel:
    stated: Any = Stated(matrix, costs, offset)
    problem: Any = None
    return WholeModel.of(stated, problem)


def test_costs_are_those_of_the_formulation_where_floats_have_lost_digits() -> None:
    exact = [(1 << 60) + 1, (1 << 60) - 1]
    model = whole(matrix_of(cost=[2.0**60, 2.0**60]), exact, 3)
    assert model.costs.tolist() == exact
    proved = model.dual((np.zeros(0, np.int64), []), scale=1 << 24, lower=model.upper, upper=model.upper)
    assert proved == (1 << 24) * (3 + exact[0] + 5 * exact[1])


@pytest.mark.parametrize(
    ("costs", "offset", "integer", "divisor"),
    [
        ([4, 6], 0, [True, True], 2),
        ([4, 6], 3, [True, True], 1),
        ([4, 0], 8, [True, False], 4),
        ([4, 6], 8, [True, False], 1),
        ([0, 0], 0, [True, True], 1),
        ([0, 0], 0, [False, False], 1),
        ([-6, 9], 0, [True, True], 3),
    ],
)
def test_a_divisor_needs_whole_columns_wherever_there_is_a_cost(
    costs: list[int], offset: int, integer: list[bool], divisor: int
) -> None:
    assert whole(matrix_of(integer=np.array(integer)), costs, offset).divisor == divisor


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rows": csr_array(np.array([[0.5, 2.0], [0.0, 3.0]]))}, "rows must be whole numbers up to 2\\^53"),
        ({"lower": [0.25, 0.0]}, r"lower bounds must be .*, found \[0\.25\]"),
        ({"upper": [1.0, 5.5]}, r"upper bounds must be .*, found \[5\.5\]"),
        ({"upper": [1.0, INF]}, r"upper bounds must be .*, found \[inf\]"),
        ({"lower": [-INF, 0.0]}, r"lower bounds must be .*, found \[-inf\]"),
        ({"row_lower": [0.1, -INF]}, r"row_lower must be .*, found \[0\.1\]"),
        ({"row_upper": [INF, 8.9]}, r"row_upper must be .*, found \[8\.9\]"),
        ({"upper": [1.0, 2.0**54]}, r"upper bounds must be .*, found \[1\.8.*e\+16\]"),
        (
            {"rows": csr_array(np.array([[2.0**60, 2.0], [0.0, 3.0]]))},
            r"rows must be .*, found \[1\.15.*e\+18\]",
        ),
    ],
)
def test_what_is_not_whole_is_refused_and_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        whole(matrix_of(**fields), [4, 6])


@pytest.mark.parametrize(
    ("places", "numbers", "words"),
    [
        ([0], [-1], "presses on a side that row 0 does not have"),
        ([0, 1], [1, 1], "presses on a side that row 1 does not have"),
        ([2], [1], "1 multipliers for 1 rows of 2"),
        ([-1], [1], "1 multipliers for 1 rows of 2"),
        ([0], [1, 2], "2 multipliers for 1 rows of 2"),
    ],
)
def test_a_multiplier_needs_a_row_with_its_side(places: list[int], numbers: list[int], words: str) -> None:
    model = whole(matrix_of())
    with pytest.raises(ValueError, match=words):
        model.dual((np.array(places), numbers), scale=1, lower=model.lower, upper=model.upper)


class Compiled:
    """The same statement by Pyomo alone."""

    name: ClassVar[str] = "compiled"
    summary: ClassVar[str] = "for tests"
    supports, build, read = Assignment().supports, Assignment().build, Assignment().read


@settings(max_examples=15, deadline=None)
@given(problem=problems(objectives=("cut",), most_experts=4, most_gpus=3))
def test_both_ways_to_state_a_formulation_prove_the_same(problem: Problem) -> None:
    """The matrix and the compiled Pyomo statement, without multipliers: the least over the box."""
    compiled: Any = Compiled()
    nothing: Any = (np.zeros(0, np.int64), [])
    model = WholeModel.of(Assignment(), problem)
    wanted = model.dual(nothing, scale=1, lower=model.lower, upper=model.upper)
    if np.abs(model.costs).max(initial=abs(model.offset)) >= 1 << 53:
        with pytest.raises(ValueError, match=r"costs beyond 2\^53 need `costs` of the formulation"):
            WholeModel.of(compiled, problem)
        return
    other = WholeModel.of(compiled, problem)
    assert other.dual(nothing, scale=1, lower=other.lower, upper=other.upper) == wanted


def test_pyomo_costs_beyond_floats_are_refused() -> None:
    compiled: Any = Compiled()
    trace = Trace(np.array([[[0, 1]], [[1, 2]], [[0, 2]]]), 3, families=("code",))
    heavy = Problem.from_trace(
        trace, Cluster(1, 3, 1, gpu_cost=900), objective="cut", family_weights={"code": 1.0}
    )
    with pytest.raises(ValueError, match=r"costs beyond 2\^53 need `costs` of the formulation"):
        WholeModel.of(compiled, heavy)


@pytest.mark.parametrize("scale", [1, 1 << 64])
@pytest.mark.parametrize("number", [1, 1 << 160])
def test_large_multipliers_of_nothing_are_no_overflow(scale: int, number: int) -> None:
    """No costs and an empty row: the numbers themselves are what is large."""
    model = whole(matrix_of(cost=[0.0, 0.0], rows=csr_array((2, 2)), row_lower=[-3.0, -1.0]))
    proved = model.dual(
        (np.array([1, 0]), [number, number]), scale=scale, lower=model.lower, upper=model.upper
    )
    assert proved == -4 * number


@settings(max_examples=200, deadline=None)
@given(
    case=models(size="small"),
    scale=st.sampled_from([1, 5, 1 << 24]),
    slack=st.integers(-3, 9),
    data=st.data(),
)
def test_no_cheaper_point_is_lost_where_columns_are_left_out(
    case: tuple[WholeModel, list[list[int]]], scale: int, slack: int, data: st.DataObject
) -> None:
    """Every point below the ceiling has the columns that are left out at their bounds, and costs and rows as before."""
    model, rows = case
    model = replace(model, upper=np.minimum(model.upper, model.lower + 3))
    multipliers = multipliers_of(data.draw, model)
    ends = list(zip(model.lower.tolist(), model.upper.tolist(), strict=True))
    listed = []
    for point in product(*(range(low, high + 1) for low, high in ends)):
        body = [sum(a * x for a, x in zip(row, point, strict=True)) for row in rows]
        if all(model.row_lower[at] <= value <= model.row_upper[at] for at, value in enumerate(body)):
            listed.append(
                (model.offset + sum(c * x for c, x in zip(model.costs.tolist(), point, strict=True)), point)
            )
    ceiling = min(listed)[0] + slack if listed else model.offset + slack
    smaller, kept, rest = model.narrowed(multipliers, scale=scale, ceiling=ceiling)
    assert smaller.costs.size == int(kept.sum())
    for cost, point in listed:
        if cost >= ceiling:
            continue
        x = np.array(point)
        assert (x[~kept] == rest[~kept]).all()
        assert smaller.offset + int(smaller.costs @ x[kept]) == cost
        inside = smaller.rows @ x[kept]
        assert (smaller.row_lower <= inside).all()
        assert (inside <= smaller.row_upper).all()
