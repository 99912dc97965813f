"""Brute force, solvers and certified bounds agree; where they do not, it is said, kept and can be asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmarks.agreement import formulation_names, shares
from benchmarks.instances import instances
from moeopt.agreement import Agreement, agree, replay
from moeopt.cluster import Cluster
from moeopt.matrix import Matrix
from moeopt.problem import Problem
from moeopt.solvers.door import Session, WorkerDied, installed
from moeopt.solvers.scaled import ScaledSession
from moeopt.statements import named_formulation
from moeopt.trace import Trace
from moeopt_formulations.assignment import Assignment
from moeopt_formulations.blocks import Blocks
from moeopt_formulations.pairs import Pairs

INSTANCES = 2_000  # of all registered formulations together
CHUNKS = 4  # of each formulation, so that processes share the work
SOLVERS = tuple(solver for solver in ("highs", "cpsat") if not installed(solver))
PLAN = shares(INSTANCES, formulation_names())

Sessions = dict[str, Session]


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    with ExitStack() as stack:
        yield {solver: stack.enter_context(ScaledSession(solver)) for solver in SOLVERS}


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("name", PLAN)
def test_everybody_agrees_on_every_instance(
    name: str, chunk: int, sessions: Sessions, tmp_path: Path
) -> None:
    formulation = named_formulation(name)
    first, last = (PLAN[name] * part // CHUNKS for part in (chunk, chunk + 1))
    found = instances(formulation, count=last - first, first=first)
    for number, problem in enumerate(found, first):
        agreement = agree(formulation, problem, solvers=SOLVERS, sessions=sessions, folder=tmp_path)
        assert agreement.status == "agreed", (
            f"{name}, instance {number}: {agreement.reason}, {agreement.path}"
        )
        if agreement.bound is None:  # only costs that floats cannot hold leave a Pyomo statement without one
            assert agreement.least is None or agreement.least > 1 << 50
        assert [claim.solver for claim in agreement.claims] == list(SOLVERS)
        assert agreement.claims[0].status != "refused"
    assert list(tmp_path.iterdir()) == []


def test_two_solvers_take_part() -> None:
    if reason := installed("cpsat"):
        pytest.skip(reason)
    assert SOLVERS == ("highs", "cpsat")


def test_every_registered_formulation_has_its_share() -> None:
    assert sum(PLAN.values()) == INSTANCES
    assert max(PLAN.values()) - min(PLAN.values()) <= 1
    assert {"assignment", "pairs", "blocks"} <= PLAN.keys()


def problem_of(**fields: Any) -> Problem:
    chosen = [[0, 1], [0, 1], [2, 3], [1, 2], [0, 3], [0, 2]]
    trace = Trace(experts=np.array(chosen)[:, None], n_experts=4)
    return Problem.from_trace(trace, Cluster(1, 2, 2), **{"objective": "cut", **fields})


def infeasible() -> Problem:
    """Loads 3, 2, 1 of experts that no two GPUs can share as evenly as asked for."""
    chosen = [[0]] * 4 + [[1]] * 4 + [[2]] * 4
    trace = Trace(experts=np.array(chosen)[:, None], n_experts=3)
    return Problem.from_trace(trace, Cluster(1, 2, 2), objective="cut", load_tolerance="0.1")


class Puppet:
    """A session that says what it is told to."""

    linear = True

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def solve(self, matrix: Matrix, **_: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def told(answer: Any, honest: Session, *, problem: Problem | None = None) -> Agreement:
    sessions: Any = {"highs": honest, "puppet": Puppet(answer)}
    return agree(Assignment(), problem or problem_of(), solvers=("puppet",), sessions=sessions)


def test_an_agreement_names_the_cost_everybody_found(sessions: Sessions, tmp_path: Path) -> None:
    found = agree(Assignment(), problem_of(), solvers=SOLVERS, sessions=sessions, folder=tmp_path / "kept")
    assert (found.status, found.reason, found.least, found.path) == ("agreed", "", 3, None)
    assert [(claim.status, claim.cost) for claim in found.claims] == [("optimal", 3)] * len(SOLVERS)
    assert found.bound is not None
    assert found.bound <= 3
    assert not (tmp_path / "kept").exists()


def test_that_nothing_is_admissible_is_agreed_on(sessions: Sessions) -> None:
    found = agree(Assignment(), infeasible(), solvers=SOLVERS, sessions=sessions)
    assert (found.status, found.least) == ("agreed", None)
    assert {claim.status for claim in found.claims} <= {"infeasible", "infeasible-or-unbounded"}


def test_answers_that_a_large_constant_makes_alike_agree(sessions: Sessions) -> None:
    covers = named_formulation("covers")
    (problem,) = instances(covers, count=1, first=535)  # HiGHS stops 3 above a least cost of 2.8e15
    found = agree(covers, problem, solvers=SOLVERS, sessions=sessions)
    assert found.status == "agreed", found.reason
    for claim in found.claims:
        assert claim.cost is not None
        assert found.least is not None
        assert 0 <= claim.cost - found.least <= (16 if claim.solver == "highs" else 0)


def test_sessions_are_opened_where_none_are_given() -> None:
    assert agree(Assignment(), problem_of(), solvers=("highs",)).status == "agreed"


@pytest.mark.parametrize(
    ("liar", "problem", "reason"),
    [
        ("Worst", problem_of(), "finds an optimum"),
        ("NoOffset", problem_of(), "gave no answer"),
        ("Stray", problem_of(), "gave no answer"),
        ("WrongObjective", problem_of(), "gave no answer"),
        ("NeverOptimal", problem_of(), "ends with time-limit"),
        ("NeverInfeasible", infeasible(), "gave no answer"),
    ],
)
def test_a_lying_solver_is_reported_kept_and_asked_again(
    liar: str, problem: Problem, reason: str, sessions: Sessions, tmp_path: Path
) -> None:
    path = f"tests.solvers.broken:{liar}"
    with Session(path) as session:
        asked: Sessions = {**sessions, path: session}
        found = agree(
            Assignment(), problem, solvers=("highs", path), sessions=asked, folder=tmp_path / "new" / "kept"
        )
        assert found.status == "disagreement"
        assert reason in found.reason
        assert found.reason == found.claims[1].reason
        assert found.claims[0].reason == ""
        assert found.path is not None
        again = replay(found.path, solver=path, session=session)
        assert again.reason == found.claims[1].reason
    honest = replay(found.path, session=sessions["highs"])
    assert (honest.solver, honest.reason, honest.cost) == ("highs", "", None)
    document = json.loads(found.path.read_text())
    assert document["said"]["reason"] == found.reason
    assert [claim["solver"] for claim in document["said"]["claims"]] == ["highs", path]
    assert document["problem"]["digest"] == problem.digest
    assert document["least"] == found.least
    assert "highspy" in document["versions"]
    assert [entry.name for entry in found.path.parent.iterdir()] == [found.path.name]


def test_a_replay_opens_a_session_where_none_is_given(sessions: Sessions, tmp_path: Path) -> None:
    with Session("tests.solvers.broken:Worst") as session:
        asked: Sessions = {**sessions, "worst": session}
        found = agree(Assignment(), problem_of(), solvers=("worst",), sessions=asked, folder=tmp_path)
    assert found.path is not None
    for solver in SOLVERS:
        claim = replay(found.path, solver=solver)
        assert (claim.status, claim.value, claim.reason) == ("optimal", 3.0, "")


def test_the_answer_is_judged_and_not_its_value(sessions: Sessions) -> None:
    """The puppet claims the right cost; its point puts all experts on one GPU, or on none."""
    honest = sessions["highs"]
    right = honest.solve(Assignment().matrix(problem_of()))
    assert right.x is not None
    crowded, nowhere = right.x.copy(), right.x.copy()
    crowded[:8] = [1, 0] * 4
    nowhere[:8] = 0
    assert (
        "is not admissible: layer 0: GPU 0 holds 4 experts" in told(replace(right, x=crowded), honest).reason
    )
    assert "stands for no answer" in told(replace(right, x=nowhere), honest).reason
    apart = right.x.copy()
    apart[:8] = np.array([[1, 0], [0, 1], [1, 0], [0, 1]]).ravel()
    found = told(replace(right, x=apart), honest)
    assert found.reason == "the optimum of puppet costs 5, the least cost is 3"
    assert found.claims[0].cost == 5


def test_what_is_infeasible_or_not_is_held_against_the_solver(sessions: Sessions) -> None:
    honest = sessions["highs"]
    nothing = honest.solve(Assignment().matrix(infeasible()))
    something = honest.solve(Assignment().matrix(problem_of()))
    assert told(nothing, honest).reason == "puppet calls the statement infeasible, an answer costs 3"
    assert told(nothing, honest, problem=infeasible()).reason == ""
    x = np.zeros(Assignment().matrix(infeasible()).cost.size)
    found = told(replace(something, x=x), honest, problem=infeasible())
    assert found.reason == "puppet finds an optimum 3, nothing is admissible"


def test_a_dead_solver_is_a_disagreement_and_a_refusal_is_none(sessions: Sessions) -> None:
    honest = sessions["highs"]
    dead = told(WorkerDied("killed by signal 9"), honest)
    assert (dead.claims[0].status, dead.status) == ("failed", "disagreement")
    refusing: Any = {**sessions, "puppet": Puppet(ValueError("no numbers above 9"))}
    found = agree(Assignment(), problem_of(), solvers=("puppet", "highs"), sessions=refusing)
    assert (found.claims[0].status, found.claims[0].message, found.status) == (
        "refused",
        "no numbers above 9",
        "agreed",
    )
    alone = agree(Assignment(), problem_of(), solvers=("puppet",), sessions=refusing)
    assert (alone.status, alone.reason) == ("disagreement", "no solver states the model: no numbers above 9")


class Careless(Pairs):
    """Forgets the load tolerance."""

    def matrix(self, problem: Problem) -> Matrix:
        return super().matrix(replace(problem, load_tolerance=None))


class Forgetful(Assignment):
    """Forgets part of the objective."""

    def matrix(self, problem: Problem) -> Matrix:
        return replace(super().matrix(problem), offset=1.0)


@dataclass(frozen=True)
class Illegible(Assignment):
    """Reads nothing."""

    def placement(self, problem: Problem, x: Any) -> Any:
        raise ValueError("no placement is written like this")


class Unknown(Blocks):
    """Right, and registered nowhere."""

    name: ClassVar[str] = "unknown"


def test_a_wrong_statement_is_found_out(sessions: Sessions) -> None:
    chosen = [[0, 1]] * 8 + [[1, 2]] * 5 + [[2, 3]] * 4 + [[3, 0]] * 3
    trace = Trace(experts=np.array(chosen)[:, None], n_experts=4)
    capped = Problem.from_trace(trace, Cluster(1, 2, 2), objective="cut", load_tolerance="0.01")
    for formulation, problem, reason in (
        (Careless(), capped, "highs finds an optimum"),
        (Forgetful(), problem_of(), "highs finds an optimum"),
        (Illegible(), problem_of(), "cannot be read: no placement is written like this"),
    ):
        found = agree(formulation, problem, solvers=("highs",), sessions=sessions)
        assert found.status == "disagreement"
        assert reason in found.reason


def test_a_bound_that_the_checker_cannot_look_up_is_a_disagreement(sessions: Sessions) -> None:
    found = agree(Unknown(), problem_of(), solvers=("highs",), sessions=sessions)
    assert found.claims[0].reason == ""
    assert (found.status, found.bound) == ("disagreement", None)
    assert "no formulation is named 'unknown'" in found.reason


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs does not fit this problem"):
        agree(Pairs(), problem_of(objective="fan-out"))
    large = Trace(experts=np.array([[[0, 9]]]), n_experts=10)
    with pytest.raises(ValueError, match="brute force is for one layer of at most 8 experts"):
        agree(Pairs(), Problem.from_trace(large, Cluster(1, 2, 5), objective="cut"))
    with pytest.raises(ValueError, match="no solver is named 'abacus'"):
        agree(Pairs(), problem_of(), solvers=("abacus",))


def test_a_file_that_is_no_instance_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "instance.json"
    with pytest.raises(ValueError, match=r"instance\.json: cannot be read"):
        replay(path)
    path.write_text('{"format": "moeopt-instance", "version": 1}')
    with pytest.raises(ValueError, match=r"instance\.json: field 'formulation' is missing"):
        replay(path)
