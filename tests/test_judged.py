"""Every type of problem judges its own answers, in exact integers, the same way every time."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from benchmarks.instances import GENERATORS
from moeopt.judged import Judged
from moeopt.testing import brute_force

SEEDS = range(15)


def drawn(name: str, seed: int) -> Any:
    return GENERATORS[name](np.random.default_rng(seed))


@pytest.mark.parametrize("name", GENERATORS)
def test_answers_are_costed_in_whole_numbers_and_those_listed_break_no_rule(name: str) -> None:
    for seed in SEEDS:
        problem = drawn(name, seed)
        assert isinstance(problem, Judged)
        for answer in islice(problem.candidates(), 40):
            cost = problem.cost(answer)
            assert type(cost) is int
            assert cost >= 0
            assert problem.violation(answer) == ""
            assert problem.cost(answer) == cost


@pytest.mark.parametrize("name", GENERATORS)
def test_equal_problems_have_equal_digests_and_others_do_not(name: str) -> None:
    digests = []
    for seed in SEEDS:
        problem, again = drawn(name, seed), drawn(name, seed)
        assert problem is not again
        assert problem.digest == again.digest == replace(problem).digest
        assert len(problem.digest) == 64
        assert set(problem.digest) <= set("0123456789abcdef")
        digests.append(problem.digest)
    assert len(set(digests)) > len(digests) // 2


@pytest.mark.parametrize("name", GENERATORS)
def test_brute_force_is_the_cheapest_of_the_answers_listed(name: str) -> None:
    for seed in SEEDS:
        problem = drawn(name, seed)
        least, best = brute_force(problem)
        costs = [problem.cost(answer) for answer in problem.candidates() if not problem.violation(answer)]
        assert least == min(costs, default=None)
        assert (best is None) == (least is None)
        if best is not None:
            assert problem.cost(best) == least


def test_what_does_not_judge_is_no_problem() -> None:
    assert not isinstance(object(), Judged)
    assert not isinstance(np.zeros(3), Judged)
