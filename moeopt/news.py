"""What runs tell while they last: better placements and bounds, of any layer, from worker processes as well."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class News:
    """A better placement or bound of a layer.

    | field | holds |
    |---|---|
    | layer_id | absolute layer index |
    | seconds | since the layer's run began |
    | cost, bound | the best known now; None: none yet |
    """

    layer_id: int
    seconds: float
    cost: int | None
    bound: int | None


Listener = Callable[[News], object]
_listeners: list[Listener] = []
_thread = threading.local()


def tell(news: News) -> None:
    """Pass it to everybody who listens in this process, unless this thread works in silence."""
    if not getattr(_thread, "silent", False):
        for listener in tuple(_listeners):
            listener(news)


@contextmanager
def silence() -> Iterator[None]:
    """What this thread does inside is nobody's news."""
    before = getattr(_thread, "silent", False)
    _thread.silent = True
    try:
        yield
    finally:
        _thread.silent = before


def listen(listener: Listener) -> None:
    """Hear everything that this process tells from now on; worker processes pass it on this way."""
    _listeners.append(listener)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Hear what this process tells, and what its workers do while `moeopt.parallel.run` waits for them."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
