"""Layers in parallel: any `concurrent.futures.Executor`; processes that stop together when the user interrupts."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from moeopt import news
from moeopt.stop import interrupt_when, is_interrupt

Answer = TypeVar("Answer")


class Processes(ProcessPoolExecutor):
    """Spawned worker processes; after `interrupt()` every clock in them is expired, and they hand in what they have."""

    def __init__(self, workers: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._asked, self._told = context.Event(), context.Queue()
        super().__init__(
            workers or available_cores(),
            mp_context=context,
            initializer=_prepare,
            initargs=(self._asked, self._told),
        )

    def interrupt(self) -> None:
        """Ask all clocks to stop."""
        self._asked.set()

    def pass_on(self) -> None:
        """Tell here what the workers have told since."""
        while True:
            try:
                told = self._told.get_nowait()
            except queue.Empty:
                return
            news.tell(told)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes(workers: int) -> Iterator[Executor | None]:
    """An executor of so many processes, or None where one would only cost its start."""
    if workers < 1:
        raise ValueError(f"workers must be at least 1, found {workers}")
    if workers == 1:
        yield None
        return
    with Processes(workers) as executor:
        yield executor


def run(
    executor: Executor | None,
    tasks: Iterable[tuple[Callable[..., Answer], tuple[Any, ...]]],
    *,
    done: Callable[[Answer], object] = lambda answer: None,
    gave_up: Callable[[Answer], bool] = lambda answer: False,
) -> tuple[list[Answer | None], bool]:
    """Answers in the order of the tasks, and whether the user interrupted: then missing answers are None.

    Without an executor the tasks run here, one after the other; `gave_up` tells from an answer that its task met the
    interrupt and kept what it had.
    """
    todo = list(tasks)
    answers: list[Answer | None] = [None] * len(todo)
    if executor is None:
        for index, (call, arguments) in enumerate(todo):
            try:
                answer = call(*arguments)
            except (KeyboardInterrupt, SystemError) as error:
                if not is_interrupt(error):
                    raise
                return answers, True
            answers[index] = answer
            done(answer)
            if gave_up(answer):
                return answers, True
        return answers, False
    with _interrupts() as interrupts:
        futures: dict[Future[Answer], int] = {
            executor.submit(call, *arguments): index for index, (call, arguments) in enumerate(todo)
        }
        pending, asked = set(futures), False
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when="FIRST_COMPLETED")
                if isinstance(executor, Processes):
                    executor.pass_on()
                for future in finished:
                    answers[futures[future]] = future.result()
                    done(future.result())
                if interrupts and not asked:
                    asked = True
                    pending = _withdraw(executor, pending)
        except BaseException:
            _withdraw(executor, pending)  # nobody waits for the others any more
            raise
    return answers, asked


def _withdraw(executor: Executor, pending: set[Future[Answer]]) -> set[Future[Answer]]:
    """Cancel what has not started, stop the clocks of what has; the futures that will still answer."""
    if isinstance(executor, Processes):
        executor.interrupt()
    return {future for future in pending if not future.cancel()}


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that grows with the first Ctrl-C, instead of an exception in the middle of a queue; the second raises.

    Only the main thread can listen; elsewhere the list stays empty.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


def _prepare(asked: Any, told: Any) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the parent decides; Ctrl-C reaches the whole terminal group
    interrupt_when(asked.is_set)
    told.cancel_join_thread()  # what nobody listens to any more must not keep a worker alive
    news.listen(told.put)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and its queues stay open while they hold them: they watch it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
