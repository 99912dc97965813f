"""Instances that solvers got wrong: the door asks so that they come out right, or catches the claim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from benchmarks.instances import instances
from moeopt.agreement import replay
from moeopt.cluster import Cluster
from moeopt.formulation import Tabulated
from moeopt.loads import LoadProblem
from moeopt.matrix import Matrix, from_pyomo
from moeopt.solvers.door import Session, Status
from moeopt.statements import named_formulation
from moeopt.testing import brute_force

# Recorded loads of one layer, 4 experts a GPU. With a feasibility tolerance of 1e-9, HiGHS 1.15.1 calls 92,739
# optimal within a second.
LOADS = """
    47218 1868 8288 14221 14434 2017 14776 8976 27219 5004 74666 4653 973 16291 3395 3577
    18095 45208 65068 10026 2299 17081 28288 12277 17304 35268 11584 16240 12198 6487 6227 73722
"""
LEAST, OPTIMUM = 79_524, 81_284  # a bound that arithmetic gives, and the optimum by enumeration


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


@pytest.fixture(scope="module")
def even_loads() -> Matrix:
    load = np.array([int(word) for word in LOADS.split()])
    matrix, _ = from_pyomo(named_formulation("balance").build(LoadProblem(load, Cluster(1, 8, 4))))
    lower = matrix.lower.copy()
    (most,) = (at for at, name in enumerate(matrix.column_names) if not name.startswith("x"))
    lower[most] = LEAST
    return replace(matrix, lower=lower)


def test_even_loads_come_out_right_as_the_door_asks(session: Session, even_loads: Matrix) -> None:
    outcome = session.solve(even_loads)
    assert outcome.status == Status.OPTIMAL
    assert outcome.objective == pytest.approx(OPTIMUM)


def test_a_wrong_optimum_is_caught_by_a_start_that_is_better(session: Session, even_loads: Matrix) -> None:
    right = session.solve(even_loads).x
    said = ""
    try:
        again = session.solve(even_loads, start=right, options={"mip_feasibility_tolerance": 1e-9})
    except RuntimeError as error:
        said = str(error)
    else:  # a version that gets it right
        assert again.objective == pytest.approx(OPTIMUM)
    assert not said or "optimal; its start is worth" in said


@pytest.mark.parametrize(("name", "number"), [("labelled", 46), ("migration", 61)])
def test_an_optimum_with_a_stale_bound_is_asked_for_again(session: Session, name: str, number: int) -> None:
    """After a restart HiGHS 1.15.1 calls these optimal with a bound far below."""
    formulation = named_formulation(name)
    (problem,) = instances(formulation, count=1, first=number)
    assert isinstance(formulation, Tabulated)
    outcome = session.solve(formulation.matrix(problem))
    assert outcome.status == Status.OPTIMAL
    assert outcome.objective == pytest.approx(brute_force(problem)[0])
    assert outcome.bound == pytest.approx(outcome.objective)


# Blocks of 7 experts that two GPUs cannot share without overlap: HiGHS 1.15.1 ends with kSolveError, presolve on.
UNCOVERED = (
    "012 013 014 024 034 015 025 035 045 145 016 026 126 036 136 236 046 146 246 346 056 156 256 356 456 "
    "0126 0136 0146 0246 0346 0156 0256 0356 0456 1456"
)


def test_an_error_with_presolve_is_asked_again_without(session: Session) -> None:
    blocks = [*UNCOVERED.split(), ""]
    rows = np.array([[str(e) in block for block in blocks] for e in range(7)] + [[True] * len(blocks)], float)
    sides = np.array([1.0] * 7 + [2.0])
    matrix = Matrix(
        cost=np.zeros(len(blocks)),
        lower=np.zeros(len(blocks)),
        upper=np.array([1.0] * (len(blocks) - 1) + [2.0]),
        integer=np.ones(len(blocks), bool),
        rows=csr_array(rows),
        row_lower=sides,
        row_upper=sides,
    )
    assert session.solve(matrix).status == Status.INFEASIBLE


def test_a_point_that_presolve_does_not_see_is_found(session: Session) -> None:
    # `replicated`, 61 rows of zeros and ones and 36 columns: HiGHS 1.15.1 with presolve calls it infeasible.
    kept = Path(__file__).parent / "false_infeasible.json"
    claim = replay(kept, session=session)
    assert (claim.status, claim.reason) == ("optimal", "")
