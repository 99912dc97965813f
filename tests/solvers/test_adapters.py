"""What each adapter refuses, how it scales, what it needs installed; and that none is imported but in a worker."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.conformance.bench import INF, mixed, packing, whole
from moeopt.matrix import Matrix
from moeopt.problem import Problem
from moeopt.solvers import offered
from moeopt.solvers.door import Session, Status, installed
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.assignment import Assignment

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def session_of(solver: str) -> Iterator[Session]:
    if reason := installed(solver):
        pytest.skip(reason)
    with Session(solver) as session:
        yield session


@pytest.fixture(scope="module")
def cpsat() -> Iterator[Session]:
    yield from session_of("cpsat")


@pytest.fixture(scope="module")
def scip() -> Iterator[Session]:
    yield from session_of("scip")


@pytest.fixture(scope="module")
def gurobi() -> Iterator[Session]:
    yield from session_of("gurobi")


def in_a_process_of_its_own(script: str) -> None:
    """Solvers stay out of the tests' process: not all of them can share one."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=environment)


# What is offered.


def test_the_solvers_known_without_an_installation_are_those_installed() -> None:
    entries = PROJECT["entry-points"]["moeopt.solvers"]
    assert entries == {name: offer.path for name, offer in offered.BUILT_IN.items()}
    extras = PROJECT["optional-dependencies"]
    for name, offer in offered.BUILT_IN.items():
        wanted = PROJECT["dependencies"] if name == "highs" else extras[name]
        assert any(line.startswith(offer.package) for line in wanted)
        assert offer.extra == ("moeopt" if name == "highs" else f"moeopt[{name}]")


def test_each_solver_has_one_importer() -> None:
    packages = {offer.package: offer.path for offer in offered.BUILT_IN.values()}
    found = set()
    for path in sorted((ROOT / "moeopt").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found |= {
                (name.partition(".")[0], module) for name in names if name.partition(".")[0] in packages
            }
    assert found == {(package, path.partition(":")[0]) for package, path in packages.items()}


def test_a_solver_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offered, "find_spec", lambda package: None)
    assert installed("cpsat") == "ortools is not installed: pip install 'moeopt[cpsat]'"
    assert installed("highs") == "highspy is not installed: pip install 'moeopt'"
    with pytest.raises(ValueError, match=r"pyscipopt is not installed: pip install 'moeopt\[scip\]'"):
        Session("scip")
    with pytest.raises(ValueError, match="gurobipy is not installed"):
        Session("moeopt.solvers.gurobi:Gurobi")


def test_whether_a_solver_is_installed_is_told_without_importing_it() -> None:
    assert "no solver is named 'hihgs'; offered: cpsat, gurobi, highs, scip" in installed("hihgs")
    assert installed("somewhere.else:Adapter") == ""
    names = [offer.package for offer in offered.BUILT_IN.values()]
    in_a_process_of_its_own(f"""
        import sys
        from moeopt.solvers.door import installed
        for name in ("cpsat", "gurobi", "highs", "scip"):
            installed(name)
        loaded = set({names!r}) & set(sys.modules)
        assert not loaded, loaded
    """)
    assert (installed("gurobi") == "") == (importlib.util.find_spec("gurobipy") is not None)


# CP-SAT.


def test_cpsat_says_which_column_it_cannot_have(cpsat: Session) -> None:
    assert not cpsat.linear
    columns: dict[str, Any] = {"integer": [True, True, False], "upper": np.ones(3)}
    with pytest.raises(ValueError, match="needs whole-number columns; column 2 is continuous"):
        cpsat.solve(mixed([1.0, 1.0, 1.0], **columns))
    with pytest.raises(ValueError, match=r"column 1 lies between -?0\.0 and inf"):
        cpsat.solve(whole([1.0, 1.0], upper=[1.0, INF]))


def test_cpsat_refuses_linear_models(cpsat: Session) -> None:
    easy = packing(12, 3)
    with pytest.raises(ValueError, match="no linear relaxations"):
        cpsat.solve(easy, relax=True)
    with pytest.raises(ValueError, match="no linear relaxations"):
        cpsat.load(easy)
    with pytest.raises(RuntimeError, match="no model is held"):
        cpsat.resolve()
    assert cpsat.solve(easy).status == "optimal"


@pytest.mark.parametrize(
    ("entries", "side", "least"),
    [
        ([0.1, 0.2], 0.3, -2.0),  # 0.1 + 0.2 <= 0.3 in decimals, not in floats
        ([0.1, 0.2], 0.29, -1.0),
        ([0.5, 0.25], 0.75, -2.0),
        ([2.0**-20, 2.0**-20], 2.0**-20, -1.0),
        ([1.5, 2.25], 3.749, -1.0),
        ([1e9, 1e9 + 1.0], 2e9, -1.0),
        ([3.0, 3.0], 5.9999999999, -2.0),  # within the tolerance that float solvers have
        ([3.0, 3.0], 5.99, -1.0),
    ],
)
def test_cpsat_scales_rows_without_loss(
    cpsat: Session, entries: list[float], side: float, least: float
) -> None:
    assert cpsat.solve(whole([-1.0, -1.0], [entries], at_most=[side])).objective == least
    turned = whole([1.0, 1.0], [[-entry for entry in entries]], at_least=[-side], lower=[-9.0, -9.0])
    low = replace(turned, lower=np.zeros(2), cost=-turned.cost)
    assert cpsat.solve(low).objective == least


def test_cpsat_scales_costs_without_loss(cpsat: Session) -> None:
    for cost in ([-0.1, -0.2], [-(2.0**40) - 2.0**-10, -1.0], [-(2.0**60), -3.0 * 2.0**58], [-1e-9, -3e-9]):
        outcome = cpsat.solve(whole(cost, [[1.0, 1.0]], at_most=[2.0], offset=0.25))
        assert outcome.objective == cost[0] + cost[1] + 0.25
        assert outcome.bound == pytest.approx(outcome.objective, rel=1e-15)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (whole([1.0, 1.0], [[1.0, 1 / 3]], at_least=[1.0]), "row 0 has none after scaling"),
        (whole([1 / 3, 1.0]), "the costs has none after scaling"),
        (whole([1.0, 1.0], [[2.0**40, 1.0]], at_least=[1.0], upper=[2.0**30, 1.0]), r"row 0 may reach"),
        (whole([2.0**40, 1.0], upper=[2.0**30, 1.0]), r"the costs may reach"),
    ],
)
def test_cpsat_refuses_numbers_it_cannot_hold(cpsat: Session, matrix: Matrix, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cpsat.solve(matrix)


def test_cpsat_sees_that_no_whole_number_lies_between_bounds(cpsat: Session) -> None:
    assert cpsat.solve(whole([1.0], lower=[0.25], upper=[0.75])).status == "infeasible"
    assert cpsat.solve(whole([1.0], [[2.0]], at_least=[0.5], at_most=[1.5])).status == "infeasible"


def test_cpsat_does_not_hide_a_limit_that_the_door_does_not_set(cpsat: Session) -> None:
    with pytest.raises(RuntimeError, match="a limit this door does not set"):
        cpsat.solve(packing(), options={"max_deterministic_time": 0.01})
    with pytest.raises(ValueError, match="no option 'num_conflicts'"):
        cpsat.solve(packing(), options={"num_conflicts": 1})


# SCIP.


def test_scip_has_the_optima_of_brute_force_on_tiny_placements(scip: Session) -> None:
    """Of 1,400 such models PySCIPOpt 6.3.0 with symmetry handling got 2 wrong."""
    formulation = Assignment()
    for number in range(60):
        rng = np.random.default_rng([7, number])
        experts, gpus = int(rng.integers(4, 6)), int(rng.integers(2, 4))
        slots, tokens = -(-experts // gpus) + int(rng.integers(0, 2)), int(rng.integers(3, 30))
        chosen = np.array([rng.permutation(experts)[:3] for _ in range(tokens)])
        trace = Trace(experts=chosen[:, None], n_experts=experts)
        problem = Problem.from_trace(trace, Cluster(1, gpus, slots), objective="cut")
        outcome = scip.solve(formulation.matrix(problem))
        assert outcome.status == "optimal"
        assert outcome.objective == pytest.approx(brute_force(problem)[0], abs=1e-6), number


def test_scip_does_not_hide_a_limit_that_the_door_does_not_set(scip: Session) -> None:
    with pytest.raises(RuntimeError, match=r"does not set: .*nodelimit"):
        scip.solve(packing(40, 10), options={"limits/totalnodes": 1})


# Gurobi.


def test_gurobi_says_how_large_a_model_is_that_its_licence_forbids(gurobi: Session) -> None:
    if "GRB_LICENSE_FILE" in os.environ:
        pytest.skip("a licence without the limit may be installed")
    size = 2100
    large = whole(-np.ones(size), np.ones((3, size)), at_most=np.array([9.0, 8.0, 7.0]))
    with pytest.raises(ValueError, match=r"3 rows and 2100 columns; .* limited in size") as raised:
        gurobi.solve(large)
    assert "another solver, such as highs" in str(raised.value)
    assert gurobi.solve(packing(12, 3)).status == "optimal"


@pytest.mark.parametrize("name", ["TimeLimit", "timelimit", "time_limit", "TimeLim*", "MIPGap", "Tim?Limit"])
def test_gurobi_options_have_one_name_whatever_their_spelling(gurobi: Session, name: str) -> None:
    with pytest.raises(ValueError, match=r"are set by the session|has no option"):
        gurobi.solve(packing(12, 3), options={name: 1.0})


def test_gurobi_does_not_hide_a_limit_that_the_door_does_not_set(gurobi: Session) -> None:
    with pytest.raises(RuntimeError, match="does not set: SOLUTION_LIMIT"):
        gurobi.solve(packing(), options={"SolutionLimit": 1})


def test_gurobi_translates_its_errors() -> None:
    if reason := installed("gurobi"):
        pytest.skip(reason)
    in_a_process_of_its_own("""
        from types import SimpleNamespace
        from moeopt.solvers.gurobi import _translated
        class Error(Exception):
            errno = 0
        for errno, words in ((10009, "no valid licence"), (10001, "failed with error 10001")):
            error = Error("expired")
            error.errno = errno
            found = _translated(error, None)
            assert isinstance(found, RuntimeError) and words in str(found), found
    """)


# Statuses and threads.


@pytest.mark.parametrize("solver", ["cpsat", "gurobi", "scip"])
def test_a_status_that_nobody_knows_is_no_answer(solver: str) -> None:
    if reason := installed(solver):
        pytest.skip(reason)
    asked = {
        "cpsat": "from moeopt.solvers.cpsat import _outcome\nask = lambda: _outcome(None, 77, None, None, None)",
        "gurobi": "from moeopt.solvers.gurobi import _status\nask = lambda: _status(77)",
        "scip": (
            "from moeopt.solvers.scip import _status\n"
            "from types import SimpleNamespace\n"
            "watch = SimpleNamespace(stopped=lambda: False)\n"
            "ask = lambda: _status('novel', closed=False, watch=watch)"
        ),
    }
    in_a_process_of_its_own(
        asked[solver]
        + "\ntry:\n    ask()\nexcept RuntimeError as error:\n    assert '77' in str(error) or 'novel' in str(error)"
        + "\nelse:\n    raise SystemExit('an unknown status passed')\n"
    )


def test_highs_with_other_threads_in_one_process_is_no_answer() -> None:
    """Which is why threads belong to the session: its worker is never asked for another number."""
    in_a_process_of_its_own("""
        from types import SimpleNamespace
        from moeopt.conformance.bench import packing
        from moeopt.solvers.highs import Highs
        from moeopt.solvers.protocol import Limits
        from moeopt.solvers.request import as_model
        watch = SimpleNamespace(stopped=bool, incumbent=lambda *_: None, bound=lambda _: None)
        arguments = {"model": as_model(packing(12, 3), relax=False), "start": None}
        arguments |= {"limits": Limits(), "watch": watch}
        assert Highs(threads=1).solve(**arguments).status == "optimal"
        try:
            Highs(threads=2).solve(**arguments)
        except RuntimeError as error:
            assert "kNotset" in str(error)
        else:
            raise SystemExit("no answer was called one")
    """)


@pytest.mark.parametrize("solver", ["cpsat", "gurobi", "scip"])
def test_an_option_may_be_set_in_the_words_of_the_solver(solver: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "cpsat": {"cp_model_presolve": False},
        "gurobi": {"Presolve": 0},
        "scip": {"presolving/maxrounds": 0},
    }
    for session in session_of(solver):
        outcome = session.solve(packing(12, 3), options=options[solver])
        assert outcome.status == Status.OPTIMAL
