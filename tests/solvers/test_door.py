"""The door keeps its word: limits, cancellation, streams, crashes, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from moeopt.matrix import Matrix
from moeopt.solvers.door import Outcome, Session, Status, WorkerDied
from moeopt.solvers.protocol import Status as ProtocolStatus
from moeopt.solvers.talk import consistent, with_start

ENOUGH = 30.0  # seconds after which a test that waits has failed


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def knapsack(size: int = 300, count: int = 50) -> Matrix:
    """By default far beyond what a search can finish; the zero point is feasible."""
    generator = np.random.default_rng(0)
    rows = generator.integers(1, 100, (count, size)).astype(float)
    return Matrix(
        cost=-generator.integers(1, 100, size).astype(float),
        lower=np.zeros(size),
        upper=np.ones(size),
        integer=np.ones(size, dtype=bool),
        rows=rows,
        row_lower=np.full(count, -np.inf),
        row_upper=rows.sum(1) // 3,
        offset=7.0,
        column_names=tuple(f"x{at}" for at in range(size)),
    )


HARD = knapsack()
EASY = knapsack(12, 3)


class Incumbents:
    """Remembers what streams in, and asks to stop once it has seen `enough` points."""

    def __init__(self, enough: int = 1) -> None:
        self.points: list[tuple[np.ndarray[Any, Any], float]] = []
        self.enough = enough

    def __call__(self, x: np.ndarray[Any, Any], objective: float) -> None:
        self.points.append((x, objective))

    def stop(self) -> bool:
        return len(self.points) >= self.enough


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + ENOUGH
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_importing_the_door_loads_no_solver_and_no_modeller() -> None:
    script = """
        import sys
        import moeopt.solvers.door
        import moeopt.matrix
        loaded = {"highspy", "pyomo", "scipy", "pandas"} & set(sys.modules)
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_points_and_bounds_stream_while_a_solve_runs(session: Session) -> None:
    incumbents, bounds = Incumbents(3), list[float]()
    outcome = session.solve(
        HARD,
        on_incumbent=incumbents,
        on_bound=bounds.append,
        should_stop=lambda: incumbents.stop() and bool(bounds),
    )
    assert outcome.status == "interrupted"
    assert bounds == sorted(bounds)
    for x, objective in incumbents.points:
        assert HARD.violation(x, 1e-6) == 0.0
        assert HARD.value(x) == pytest.approx(objective)
    assert outcome.objective is not None
    assert outcome.bound is not None
    assert outcome.objective <= incumbents.points[-1][1] + 1e-6
    assert bounds[-1] <= outcome.objective + 1e-6


def test_a_stop_that_is_already_due_ends_the_solve(session: Session) -> None:
    assert session.solve(HARD, should_stop=lambda: True).status == "interrupted"
    assert session.solve(EASY).status == "optimal"


def test_a_time_limit_holds_for_one_solve_only(session: Session) -> None:
    timed = session.solve(HARD, seconds=0.0)
    assert timed.status == "time-limit"
    assert (timed.x, timed.objective, timed.bound) == (None, None, None)
    assert session.solve(EASY).status == "optimal"
    session.load(HARD)
    assert session.resolve(seconds=0.0).status == "time-limit"
    assert session.resolve().status == "optimal"


def test_every_timed_resolve_gets_its_time_anew(session: Session) -> None:
    # HiGHS counts the time of linear solves over the life of an instance.
    session.load(HARD)
    for _ in range(3):
        assert session.resolve(seconds=ENOUGH).status == "optimal"


def test_the_same_seed_gives_the_same_answer(session: Session) -> None:
    middling = knapsack(40, 10)
    first = session.solve(middling, seed=3)
    session.solve(EASY, seed=1)
    second = session.solve(middling, seed=3)
    with Session() as fresh:
        third = fresh.solve(middling, seed=3)
    assert first.x is not None
    assert second.x is not None
    assert third.x is not None
    assert first.x.tobytes() == second.x.tobytes() == third.x.tobytes()
    assert first.nodes == second.nodes == third.nodes


def test_a_gap_may_end_the_search_early(session: Session) -> None:
    outcome = session.solve(HARD, gap=0.5)
    assert outcome.status == "optimal"
    assert outcome.objective is not None
    assert outcome.bound is not None
    assert outcome.bound < outcome.objective <= 0.5 * outcome.bound


def good_start() -> np.ndarray[Any, Any]:
    """Greedy: columns by worth, while they fit."""
    x = np.zeros(HARD.cost.size)
    for column in np.argsort(HARD.cost / HARD.rows.sum(axis=0)):
        x[column] = 1.0
        if HARD.violation(x) > 0.0:
            x[column] = 0.0
    return x


@pytest.mark.parametrize("seconds", [0.0, None])
def test_an_incumbent_is_no_worse_than_a_complete_start(session: Session, seconds: float | None) -> None:
    start = good_start()
    incumbents = Incumbents()
    outcome = session.solve(
        HARD, start=start, seconds=seconds, on_incumbent=incumbents, should_stop=incumbents.stop
    )
    assert outcome.status in ("time-limit", "interrupted")
    assert outcome.x is not None
    assert HARD.value(outcome.x) <= HARD.value(start)
    if incumbents.points:  # the solver took the start before it looked for points of its own
        assert incumbents.points[0][1] <= HARD.value(start) + 1e-6


@pytest.mark.parametrize("keys", [lambda at: at, lambda at: f"x{at}"])
def test_a_partial_start_is_completed(session: Session, keys: Callable[[int], Any]) -> None:
    start = {keys(at): float(value) for at, value in enumerate(good_start()) if at % 3}
    incumbents = Incumbents()
    session.solve(HARD, start=start, on_incumbent=incumbents, should_stop=incumbents.stop, seconds=ENOUGH)
    assert incumbents.points[0][1] <= HARD.value(good_start()) * 0.5


def test_a_wrong_start_does_no_harm(session: Session) -> None:
    best = session.solve(EASY).objective
    assert session.solve(EASY, start=np.ones(12)).objective == best
    assert session.solve(EASY, start=np.full(12, np.nan)).objective == best


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seconds": -1.0}, "seconds must be None"),
        ({"seconds": float("nan")}, "seconds must be None"),
        ({"gap": -0.1}, "gap must be finite"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"start": np.zeros(5)}, r"a start must be float\[12\]"),
        ({"start": {"y": 1.0}}, "found 'y'"),
        ({"start": {12: 1.0}}, "found 12"),
        ({"start": {0: np.inf}}, "never infinite"),
    ],
)
def test_wrong_requests_are_refused(session: Session, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        session.solve(EASY, **arguments)


def test_unknown_solvers_and_thread_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no solver is named 'hihgs'; offered: .*highs"):
        Session("hihgs")
    with pytest.raises(ValueError, match="threads must be at least 1; found 0"):
        Session(threads=0)


def test_two_threads_give_the_same_optimum(session: Session) -> None:
    with Session(threads=2) as pair:
        assert pair.solve(knapsack(40, 10)).objective == session.solve(knapsack(40, 10)).objective


def test_an_adapter_that_cannot_be_loaded_is_a_dead_worker_with_a_reason() -> None:
    with (
        Session("moeopt.solvers.nowhere:Nothing") as broken,
        pytest.raises(
            WorkerDied, match=r"exit code 1\): .*No module named 'moeopt\.solvers\.nowhere'$"
        ) as died,
    ):
        broken.solve(EASY)
    assert "Traceback" not in str(died.value), "frames name files of this machine, and no cause"


def test_a_killed_worker_raises_and_the_next_solve_has_a_new_one() -> None:
    with Session() as session:
        session.load(EASY)
        pid = session.pid
        assert pid is not None

        def assassinate(x: object, objective: float) -> None:
            os.kill(pid, signal.SIGKILL)

        with pytest.raises(WorkerDied, match="killed by SIGKILL"):
            session.solve(HARD, on_incumbent=assassinate)
        assert session.pid is None
        with pytest.raises(RuntimeError, match="no model is held"):
            session.resolve()
        assert session.solve(EASY).status == "optimal"
        assert session.pid not in (None, pid)


def test_a_worker_that_ignores_a_cancellation_is_killed_and_its_incumbent_kept() -> None:
    with Session(patience=0.2) as session:
        pid, incumbents = session.pid, Incumbents()
        assert pid is not None

        def stop() -> bool:
            if incumbents.stop():
                os.kill(pid, signal.SIGSTOP)
            return incumbents.stop()

        outcome = session.solve(HARD, on_incumbent=incumbents, should_stop=stop)
        assert outcome.status == "interrupted"
        assert outcome.x is not None
        assert HARD.value(outcome.x) == pytest.approx(outcome.objective)
        assert gone(pid)
        assert session.solve(EASY).status == "optimal"


def test_an_error_in_a_callback_reaches_the_caller_and_leaves_a_usable_session() -> None:
    def fail(x: object, objective: float) -> None:
        raise LookupError("mine")

    with Session() as session:
        with pytest.raises(LookupError, match="mine"):
            session.solve(HARD, on_incumbent=fail)
        assert session.solve(EASY).status == "optimal"


def test_closing_ends_the_worker_and_may_be_repeated() -> None:
    session = Session()
    pid = session.pid
    assert pid is not None
    session.solve(EASY)
    session.close()
    session.close()
    assert gone(pid)
    assert session.pid is None


CLIENT = """
    import os, signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run, it may be ignored
    sys.path.insert(0, {tests!r})
    import test_door
    from moeopt.solvers.door import Session

    def report(x, objective):
        print("incumbent", session.pid, flush=True)

    with Session() as session:
        outcome = session.solve(test_door.HARD, on_incumbent=report)
        print("outcome", outcome.status, test_door.HARD.violation(outcome.x, 1e-6), flush=True)
        print("again", session.solve(test_door.EASY).status, flush=True)
"""


@pytest.fixture
def client() -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a hard solve; its second line is yet to be read."""
    script = textwrap.dedent(CLIENT).format(tests=os.path.dirname(__file__))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def first_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_ctrl_c_returns_the_incumbent(client: subprocess.Popen[str]) -> None:
    assert first_line(client)[0] == "incumbent"
    client.send_signal(signal.SIGINT)
    output, _ = client.communicate(timeout=ENOUGH)
    lines = [line for line in output.splitlines() if not line.startswith("incumbent")]
    assert lines == ["outcome interrupted 0.0", "again optimal"]
    assert client.returncode == 0


def test_no_worker_outlives_a_parent_killed_outright(client: subprocess.Popen[str]) -> None:
    worker = int(first_line(client)[1])
    assert not gone(worker)
    client.kill()
    client.wait()
    wait_for(lambda: gone(worker))


def test_a_worker_ends_with_its_parent_even_when_a_fork_holds_the_pipe() -> None:
    script = """
        import os, time
        from moeopt.solvers.door import Session
        session = Session()
        if os.fork() == 0:
            print(os.getpid(), session.pid, flush=True)
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as process:
        fork, worker = map(int, first_line(process))
        assert not gone(worker)
        process.kill()
        try:
            wait_for(lambda: gone(worker))
        finally:
            os.kill(fork, signal.SIGKILL)


def test_a_fork_that_ends_leaves_the_worker_of_its_parent_alone() -> None:
    script = """
        import os, sys
        sys.path.insert(0, {tests!r})
        import test_door
        from moeopt.solvers.door import Session
        session = Session()
        session.load(test_door.EASY)
        child = os.fork()
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
        assert session.resolve().status == "optimal"  # a worker started anew would hold no model
    """
    script = script.format(tests=os.path.dirname(__file__))
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_a_second_ctrl_c_raises() -> None:
    with Session(patience=ENOUGH) as session:
        pid, incumbents = session.pid, Incumbents()
        assert pid is not None

        def interrupt() -> bool:
            if incumbents.stop():
                os.kill(pid, signal.SIGSTOP)  # so that the first Ctrl-C gets no answer
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                raise KeyboardInterrupt
            return False

        def again(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, again)
        try:
            with pytest.raises(KeyboardInterrupt):
                session.solve(HARD, on_incumbent=incumbents, should_stop=interrupt)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        assert gone(pid)
        assert session.solve(EASY).status == "optimal"


def test_claims_that_contradict_each_other_raise() -> None:
    x = np.zeros(1)
    with pytest.raises(RuntimeError, match="without a point"):
        consistent(Outcome(status=Status.OPTIMAL), gap=0.0)
    with pytest.raises(RuntimeError, match="above its own objective"):
        consistent(Outcome(status=Status.TIME_LIMIT, x=x, objective=1.0, bound=2.0), gap=0.0)
    with pytest.raises(RuntimeError, match="claims an optimum"):
        consistent(Outcome(status=Status.OPTIMAL, x=x, objective=10.0, bound=8.0), gap=0.1)
    with pytest.raises(RuntimeError, match="infeasible that its start satisfies"):
        with_start(Outcome(status=Status.INFEASIBLE), x, value=4.0, gap=0.0)
    with pytest.raises(RuntimeError, match="its start is worth"):
        with_start(Outcome(status=Status.OPTIMAL, x=x, objective=5.0, bound=5.0), x, value=4.0, gap=0.0)
    late = with_start(Outcome(status=Status.TIME_LIMIT, x=x, objective=5.0), x + 1.0, value=4.0, gap=0.0)
    assert late.objective == 4.0
    assert late.x is not None
    assert late.x.tolist() == [1.0]


def test_the_statuses_are_these_six() -> None:
    assert ProtocolStatus is Status
    assert {status.value for status in Status} == {
        "optimal",
        "time-limit",
        "interrupted",
        "infeasible",
        "unbounded",
        "infeasible-or-unbounded",
    }
