"""A stop is a description; a clock spends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from moeopt.stop import Stop, interrupt_when, is_interrupt


@pytest.fixture(autouse=True)
def _nobody_interrupts() -> Iterator[None]:
    yield
    interrupt_when(bool)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seconds": 0}, "seconds must be positive, found 0"),
        ({"seconds": -1.0}, "seconds must be positive, found -1.0"),
        ({"seconds": float("nan")}, "seconds must be positive, found nan"),
        ({"candidates": 0}, "candidates must be at least 1, found 0"),
        ({"gap": -0.1}, r"gap must lie in \[0, 1\), found -0.1"),
        ({"gap": 1}, r"gap must lie in \[0, 1\), found 1"),
        ({"gap": float("nan")}, "found nan"),
    ],
)
def test_limits_that_make_no_sense_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Stop(**fields)


def test_a_clock_expires_at_its_last_candidate_and_not_before() -> None:
    clock = Stop(seconds=None, candidates=2).start()
    assert clock.left is None
    clock.candidates = 1
    assert not clock.expired
    clock.candidates = 2
    assert clock.expired
    assert not clock.interrupted


def test_every_run_has_a_clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    limit = Stop(seconds=5)
    first = limit.start()
    now = 104.0
    second = limit.start()
    assert (first.elapsed, first.left, second.left) == (4.0, 1.0, 5.0)
    now = 107.0
    assert (first.left, first.expired) == (0.0, True)
    assert (second.left, second.expired) == (2.0, False)


def test_an_interrupt_expires_every_clock() -> None:
    clock = Stop(seconds=None).start()
    assert not clock.expired
    interrupt_when(lambda: True)
    assert clock.expired
    assert clock.interrupted
    assert Stop().start().expired


def test_a_gap_is_relative_to_the_cost() -> None:
    clock = Stop(gap=0.1).start()
    assert clock.closes(100, 90)
    assert not clock.closes(100, 89)
    exact = Stop().start()
    assert exact.closes(0, 0)
    assert exact.closes(5, 5)
    assert not exact.closes(2**60, 2**60 - 1)


def test_ctrl_c_is_known_in_the_form_that_compiled_code_gives_it() -> None:
    boxed = SystemError("a function returned a result with an exception set")
    assert not is_interrupt(boxed)
    boxed.__cause__ = KeyboardInterrupt()
    assert is_interrupt(boxed)
    assert is_interrupt(KeyboardInterrupt())
