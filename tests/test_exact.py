"""Exact methods keep what they have when the user interrupts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import moeopt as mo
from moeopt.exact import Exact
from moeopt.heuristics.swap import Swap
from moeopt_formulations.priced import Priced

TRACE = mo.Generator(
    layers=1, experts=12, top_k=3, tokens=300, requests=12, groups=3, group_size=4
).generate()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=3))


def test_an_interrupt_while_prices_get_their_placement_keeps_the_best_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched, found = Swap.search, list[int]()

    def interrupted(self: Swap, problem: mo.Problem, **settings: Any) -> Iterator[mo.Placement]:
        for placement in searched(self, problem, **settings):
            found.append(problem.cost(placement))
            yield placement
            raise KeyboardInterrupt

    monkeypatch.setattr(Swap, "search", interrupted)
    result = Exact(Priced()).solve(PROBLEM, stop=mo.Stop(seconds=None), seed=0)
    level = PROBLEM.partition(np.arange(12) % 4)
    assert result.status == "interrupted"
    assert result.cost == found[0] < PROBLEM.cost(level)
    assert result.placement is not None
    assert PROBLEM.violation(result.placement) == ""
