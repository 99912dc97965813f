"""A result says how much is known, joins to the weakest, and survives its document."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.result import WEAKEST_FIRST, Event, Result, certified_share
from moeopt.trace import Trace

PLACEMENT = Placement.partition([[0, 1]], Cluster(1, 2, 1), layer_ids=(0,), model="m")
FOUND = Result(
    status="certified-gap",
    placement=PLACEMENT,
    cost=10,
    bound=8,
    certificate=None,
    seconds=1.5,
    method="Swap()",
    seed=3,
    claimed_bound=9,
    history=(Event(0.1, 12, None), Event(0.2, 10, 8)),
    layer_id=0,
    message="words",
    tolerance_reached=None,
)


def layer(index: int, **changes: Any) -> Result:
    placement = replace(PLACEMENT, layer_ids=(index,))
    return replace(FOUND, placement=placement, layer_id=index, **changes)


@given(statuses=st.lists(st.sampled_from(WEAKEST_FIRST), min_size=1, max_size=5))
def test_joined_results_have_the_status_of_the_weakest_layer(statuses: list[Any]) -> None:
    joined = Result.join([layer(index, status=status) for index, status in enumerate(statuses)])
    order = list(WEAKEST_FIRST)
    assert joined.status == order[min(order.index(status) for status in statuses)]


def test_no_word_for_a_status_is_a_bare_optimal() -> None:
    assert set(WEAKEST_FIRST) == {
        "certified-optimal",
        "certified-gap",
        "solver-claimed",
        "feasible",
        "none-found",
        "interrupted",
        "infeasible-claimed",
        "disagreement",
    }
    assert WEAKEST_FIRST[-2:] == ("certified-gap", "certified-optimal")
    assert WEAKEST_FIRST[0] == "disagreement"


def test_joined_results_add_up_where_every_layer_knows() -> None:
    joined = Result.join([layer(0), layer(4, cost=5, bound=5, message="", tolerance_reached=None)])
    assert (joined.cost, joined.bound, joined.claimed_bound, joined.seconds) == (15, 13, 18, 3.0)
    assert joined.placement is not None
    assert joined.placement.layer_ids == (0, 4)
    assert (joined.message, joined.layer_id, len(joined.layers)) == ("words", None, 2)
    lost = Result.join(
        [
            layer(0, tolerance_reached=0.2),
            replace(FOUND, placement=None, cost=None, bound=None, tolerance_reached=0.7),
        ]
    )
    assert (lost.placement, lost.cost, lost.bound, lost.tolerance_reached) == (None, None, None, 0.7)


def test_a_result_survives_its_document() -> None:
    for result in (
        FOUND,
        Result.join([layer(0), layer(4)]),
        replace(FOUND, placement=None, cost=None, bound=None, tolerance_reached=0.25),
    ):
        assert Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "optimal"}, "status must be one of disagreement, .*, found 'optimal'"),
        ({"cost": 1.5}, "field 'cost' must be int or NoneType"),
        ({"bound": True}, "field 'bound' must be int or NoneType"),
        ({"seconds": "1"}, "field 'seconds' must be int or float"),
        ({"layers": [{}]}, "format must be 'moeopt-result', found None"),
        ({"history": [[0.1, 12]]}, "an event must be"),
        ({"history": [7]}, "an event must be"),
        ({"format": "x"}, "format must be 'moeopt-result'"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Result.from_dict(FOUND.to_dict() | changes)


def test_the_certified_share_is_the_part_of_the_attainable_saving_that_is_certain() -> None:
    assert certified_share(reference=Fraction(100), cost=70, bound=60) == 0.75
    assert certified_share(reference=Fraction(100), cost=60, bound=60) == 1.0
    assert certified_share(reference=Fraction(100), cost=120, bound=60) == -0.5
    assert certified_share(reference=Fraction(100), cost=100, bound=60) == 0.0
    assert certified_share(reference=Fraction(100), cost=70, bound=None) is None
    assert certified_share(reference=Fraction(60), cost=60, bound=60) == 1.0
    assert certified_share(reference=Fraction(50), cost=70, bound=60) is None


@given(
    reference=st.fractions(1, 1000),
    cost=st.integers(0, 1000),
    better=st.integers(0, 100),
    bound=st.integers(0, 1000),
)
def test_a_better_placement_never_has_a_smaller_share(
    reference: Fraction, cost: int, better: int, bound: int
) -> None:
    if bound > cost - better or bound >= reference:
        return
    worse = certified_share(reference=reference, cost=cost, bound=bound)
    best = certified_share(reference=reference, cost=cost - better, bound=bound)
    assert worse is not None
    assert best is not None
    assert worse <= best <= 1.0


def test_the_share_of_a_random_placement_is_about_nothing() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([[rng.permutation(8)[:3]] for _ in range(50)])
    problem = Problem.from_trace(Trace(ids, 8), Cluster(1, 4, 2))
    costs = [problem.cost(problem.partition(rng.permutation(np.repeat(np.arange(4), 2)))) for _ in range(400)]
    shares = [certified_share(reference=reference_cost(problem), cost=cost, bound=0) or 0.0 for cost in costs]
    assert abs(float(np.mean(shares))) < 0.01


def test_what_layers_say_is_told_once_or_with_the_layers_that_say_it() -> None:
    alike = Result.join([layer(index) for index in range(3)])
    assert alike.message == "words"
    mixed = Result.join(
        [layer(0, message="a"), layer(1, message="b"), layer(2, message="a"), layer(3, message="")]
    )
    assert mixed.message == "a (layers 0, 2); b (layer 1)"


@given(count=st.integers(4, 30))
def test_of_many_messages_a_few_are_told(count: int) -> None:
    joined = Result.join([layer(index, message=f"message {index}") for index in range(count)])
    assert joined.message.count("message ") == 3
    assert joined.message.endswith(f"; {count - 3} more messages, in the layers of --json")
