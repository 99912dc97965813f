"""What a solver claims about rows is held against what is known: a contradiction is never a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.matrix import Matrix
from moeopt.problem import Problem
from moeopt.solvers.door import Outcome, Session, Status, WorkerDied
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.pairs import Pairs
from tests.test_rows import hold, run


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


class Puppet:
    """A session that answers honestly until told what to say to `solve`."""

    def __init__(self, honest: Session, say: Callable[..., Outcome]) -> None:
        self.load, self.add_rows, self.resolve = honest.load, honest.add_rows, honest.resolve
        self.set_bounds = honest.set_bounds
        self.solve = say


@pytest.fixture(scope="module")
def open_gap(session: Session) -> Problem:
    """A problem whose certified bound is below its optimum, so that the search is asked."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        chosen = np.array([rng.permutation(7)[:3] for _ in range(60)])
        trace = Trace(experts=chosen[:, None], n_experts=7)
        problem = Problem.from_trace(trace, Cluster(1, 3, 3), objective="cut")
        certificate = run(Pairs(), problem, session=session).certificate
        if (
            certificate is not None and certificate.proofs[0].kind == "rows"
        ):  # a tree: the root was not enough
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
    assert result.bound <= least


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
    puppet.add_rows = fail
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


def test_a_wrong_formulation_is_found_out(session: Session, open_gap: Problem) -> None:
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

    result = run(Forgetful(), open_gap, session=session)
    assert result.status == "disagreement"
    assert "the solver values its optimum at" in result.message
