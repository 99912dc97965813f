"""A run in a process of its own leaves rows whatever happens to it, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from moeopt.bench_rows import perform
from moeopt.bench_runs import Limits, isolated
from tests.bench_tasks import alive, broken, task

LIMITS = Limits(seconds=60.0, mebibytes=2048)
PATIENCE = 20.0


def _gone(numbers: Path) -> bool:
    """Whether the processes end that a task has written the numbers of."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if numbers.exists() and not any(map(alive, map(int, numbers.read_text().split()))):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("broken", "ValueError: top-k exceeds n_experts"),
        ("vast", "Unable to allocate 8.00 GiB"),
        ("crash", "ended by SIGSEGV: about to fail"),
        ("leave", "ended with exit code 3"),
        ("empty", "IndexError"),
        ("unwritable", "ValueError: Out of range float values are not JSON compliant"),
    ],
)
def test_a_run_that_goes_wrong_is_a_row_with_its_reason(call: str, reason: str) -> None:
    (row,) = isolated(task("a", call), LIMITS)
    assert row["outcome"] == "failed"
    assert reason in row["reason"]
    assert row["case"] == "a"


def test_what_is_printed_is_no_answer() -> None:
    first, last = isolated(task("a", "talkative"), LIMITS)
    assert first["found"] == {"cost": 1}
    assert last["wall_seconds"] > 0


def test_a_run_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    (row,) = isolated(task("a", "endless", str(numbers)), Limits(seconds=5.0))
    assert (row["outcome"], row["reason"]) == ("failed", "ran longer than its limit of 5 s")
    assert _gone(numbers)


def test_a_run_ends_with_the_process_that_waits_for_it(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    program = (
        "from moeopt.bench_runs import Limits, isolated\nfrom tests.bench_tasks import task\n"
        f"isolated(task('a', 'endless', {str(numbers)!r}), Limits())"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[1])
    ends = time.monotonic() + PATIENCE
    while not numbers.exists() or not numbers.read_text():
        assert time.monotonic() < ends
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert _gone(numbers)


@pytest.mark.parametrize(("name", "value"), [("seconds", 0.0), ("mebibytes", -1), ("seconds", float("nan"))])
def test_limits_are_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"limit of {name} must be positive, found {value}"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_limits_are_numbers_that_systems_count_in() -> None:
    with pytest.raises(ValueError, match="limit of mebibytes must be at most 1099511627776, found 10000"):
        Limits(mebibytes=10**16)


def test_a_run_that_is_ended_bears_the_name_asked_for() -> None:
    named = replace(task("a", "leave"), name="own.py:Grown")
    (row,) = isolated(named, LIMITS)
    assert (row["outcome"], row["found"]) == ("failed", {"method": "own.py:Grown"})
    (row,) = perform(replace(named, measure=broken, arguments=("a",)))
    assert row["found"] == {"method": "own.py:Grown"}
