"""Tables fit a terminal of 80 columns."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

import moeopt as mo
from moeopt import tables
from moeopt.summary import summarise

FREELY = mo.Stop(seconds=None)
TRACE = mo.Generator(layers=2, experts=8, top_k=2, tokens=300, requests=24, groups=3, group_size=3).generate()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=2))


def drawn(*items: Any) -> str:
    out = StringIO()
    console = Console(file=out, width=80)
    for item in items:
        console.print(item)
    assert all(len(line) <= 80 for line in out.getvalue().splitlines())
    return out.getvalue()


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
def test_a_placement(objective: str) -> None:
    problem = replace(PROBLEM, objective=objective)
    text = drawn(tables.placed(summarise(problem, mo.solve(problem, "blocks", stop=FREELY), seconds=1)))
    assert text.count("certified-optimal") == 3
    assert "100.00%" in text
    assert ("cut" in text) == (objective == "cut")


def test_a_placement_that_is_not_there() -> None:
    result = mo.solve(PROBLEM, "linear", stop=FREELY)
    parts = [replace(part, placement=None, cost=None, status="none-found") for part in result.layers]
    assert "–" in drawn(tables.placed(summarise(PROBLEM, mo.Result.join(parts), seconds=1)))


def test_a_comparison_with_and_without_held_out_requests() -> None:
    rows = mo.compare(
        PROBLEM, ["round-robin", "linear"], seeds=(0, 1), stop=FREELY, trace=TRACE, held_out=0.3
    )
    text = drawn(tables.compared(rows))
    assert text.count("round-robin") == 2  # its line, and whose status is which
    assert "feasible: round-robin, linear" in text
    assert "held-out" in text
    bare = [replace(row, fan_out=None, held_out_fan_out=None, held_out_reduction=None) for row in rows]
    assert "held-out" not in drawn(tables.compared(bare))


def test_an_evaluation_and_a_profile() -> None:
    crowded = mo.Placement.partition([[0] * 8] * 2, mo.Cluster.of(gpus=4, slots=2), layer_ids=(0, 1))
    assert "broken rule" in drawn(tables.evaluated(mo.evaluate(crowded, TRACE)))


def test_cells() -> None:
    assert (tables.number(None), tables.number(0.5), tables.saving(0.25)) == ("–", "0.500", -0.25)
    assert str(tables.saving(0.0)) == "0.0"  # no minus zero
    assert (tables.mean([1, None, 3]), tables.mean([None])) == (2, None)
    assert (tables.per_token(None, 3), tables.per_token(6, 4)) == ("–", "1.500")
