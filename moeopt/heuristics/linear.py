"""Consecutive experts share a GPU: what engines do when nobody says otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import linear_placement
from moeopt.stop import Clock


@dataclass(frozen=True)
class Linear(Heuristic):
    """vLLM's `--expert-placement-strategy linear` and the trivial map of SGLang: blocks of consecutive ids."""

    name = "linear"
    summary = "consecutive experts on each GPU, the engines' default"
    objectives = ("fan-out", "cut", "load")

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one linear placement."""
        yield linear_placement(problem)
