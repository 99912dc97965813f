"""Tasks on any executor: answers in order, errors and interrupts that let go of the rest."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from moeopt.parallel import Processes, available_cores, processes, run

GENEROUS = 60  # seconds; only a hang takes so long


def tasks(
    *given: tuple[Callable[..., Any], tuple[Any, ...]],
) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    return list(given)


class Immediate(Executor):
    """Runs what is submitted at once, as an executor of another package might."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments, **named))
        except ValueError as error:
            future.set_exception(error)
        return future


class Remembering(ThreadPoolExecutor):
    """One thread that keeps the futures it gave out."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given: list[Future[Any]] = []

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.given.append(super().submit(call, *arguments, **named))
        return self.given[-1]


def executors() -> Iterator[Executor | None]:
    yield None
    yield Immediate()
    with ThreadPoolExecutor(3) as threads:
        yield threads
    with Processes(2) as spawned:
        yield spawned


def fail(words: str) -> int:
    raise ValueError(words)


def test_answers_come_in_the_order_of_the_tasks() -> None:
    for executor in executors():
        heard: list[int] = []
        answers, interrupted = run(executor, [(pow, (2, n)) for n in range(20)], done=heard.append)
        assert answers == [2**n for n in range(20)]
        assert not interrupted
        assert sorted(heard) == answers
        assert run(executor, []) == ([], False)


def test_slow_first_tasks_do_not_change_the_order() -> None:
    gate = threading.Event()

    def first() -> str:
        assert gate.wait(GENEROUS)
        return "first"

    def second() -> str:
        gate.set()
        return "second"

    heard: list[str] = []
    with ThreadPoolExecutor(2) as threads:
        assert run(threads, [(first, ()), (second, ())], done=heard.append) == (["first", "second"], False)
    assert set(heard) == {"first", "second"}


def test_exceptions_reach_the_caller() -> None:
    for executor in (None, Immediate()):
        with pytest.raises(ValueError, match="broken rule"):
            run(executor, tasks((abs, (1,)), (fail, ("broken rule",)), (abs, (2,))))


def test_an_exception_withdraws_what_has_not_started() -> None:
    gate = threading.Event()
    ran: list[int] = []

    def wait() -> int:
        assert gate.wait(GENEROUS)
        return 1

    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(ValueError, match="first"):
            run(threads, tasks((fail, ("first",)), (wait, ()), (ran.append, (3,)), (ran.append, (4,))))
        gate.set()
    assert ran == []


def test_an_exception_in_a_process_stops_the_clocks_of_the_others() -> None:
    with Processes(1) as spawned:
        with pytest.raises(ZeroDivisionError):
            run(spawned, tasks((divmod, (1, 0)), (abs, (1,))))
        assert spawned._asked.is_set()


def test_without_an_executor_tasks_run_here_one_after_the_other() -> None:
    seen: list[int] = []
    here = threading.get_ident()
    answers, _ = run(None, [(threading.get_ident, ())] * 3, done=lambda _: seen.append(len(seen)))
    assert answers == [here] * 3
    assert seen == [0, 1, 2]


def test_a_task_that_gave_up_ends_the_run() -> None:
    heard: list[int] = []
    answers = run(
        None, [(abs, (n,)) for n in range(4)], done=heard.append, gave_up=lambda answer: answer == 1
    )
    assert answers == ([0, 1, None, None], True)
    assert heard == [0, 1]


def test_an_interrupt_keeps_what_was_answered() -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert run(None, tasks((abs, (7,)), (interrupt, ()), (abs, (8,)))) == ([7, None, None], True)


def test_ctrl_c_withdraws_what_has_not_started_and_awaits_the_rest() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Remembering() as threads:

        def work() -> str:
            deadline = time.monotonic() + GENEROUS
            while len(threads.given) < 3:  # all are submitted
                assert time.monotonic() < deadline
                time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)
            while not threads.given[-1].cancelled():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return "finished"

        assert run(threads, tasks((work, ()), (str, ()), (str, ()))) == (["finished", None, None], True)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_than_the_main_one_may_run_tasks() -> None:
    with ThreadPoolExecutor(1) as outer, ThreadPoolExecutor(2) as inner:
        assert outer.submit(run, inner, tasks((abs, (-1,)), (abs, (-2,)))).result() == ([1, 2], False)


def test_one_worker_is_no_executor_and_none_is_refused() -> None:
    with processes(1) as executor:
        assert executor is None
    with pytest.raises(ValueError, match="workers must be at least 1, found 0"), processes(0):
        pass
    assert available_cores() >= 1


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from moeopt.parallel import Processes\n"
        "if __name__ == '__main__':\n"
        "    executor = Processes(2)\n"
        "    started = [executor.submit(os.getpid) for _ in range(4)]\n"
        "    print(*{one.result() for one in started}, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    parent.stdout.close()
    limit = time.monotonic() + 20
    while time.monotonic() < limit and any(map(_runs, workers)):
        time.sleep(0.1)
    assert not any(map(_runs, workers))


def _runs(pid: int) -> bool:
    """Whether the process is there and more than a zombie that nobody awaits."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
