"""A result in the units people compare."""

from __future__ import annotations

from dataclasses import replace

import pytest

import moeopt as mo
from moeopt.summary import per_token, summarise

FREELY = mo.Stop(seconds=None)
TRACE = mo.Generator(layers=2, experts=8, top_k=2, tokens=300, requests=24, groups=3, group_size=3).generate()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=2), family_weights={"code": 2, "math": 1})


def test_costs_over_the_unit_are_further_gpus_per_token() -> None:
    answer = summarise(PROBLEM, mo.solve(PROBLEM, "blocks", stop=FREELY), seconds=1.5)
    assert answer["fan_out"] == pytest.approx(answer["cost"] / (answer["cost_unit"] * 2))
    assert answer["bound"] == pytest.approx(answer["fan_out"])
    assert answer["seconds"] == 1.5
    for layer in answer["layers"]:
        assert layer["fan_out"] == pytest.approx(layer["cost"] / answer["cost_unit"])
    assert answer["fan_out"] == pytest.approx(sum(layer["fan_out"] for layer in answer["layers"]) / 2)


def test_bounds_of_other_units_are_not_given_per_token() -> None:
    assert per_token(PROBLEM, 0) == 0.0
    assert per_token(PROBLEM, None) is None
    assert per_token(replace(PROBLEM, objective="cut"), 5) is None
    assert per_token(replace(PROBLEM, cluster=mo.Cluster(2, 2, 2, node_cost=1)), 5) is None
    dear = replace(PROBLEM, cluster=mo.Cluster(1, 4, 2, gpu_cost=3))
    assert per_token(dear, 6 * dear.total_weight) == 1.0


def test_without_a_placement_there_is_no_fan_out() -> None:
    result = mo.solve(PROBLEM, "linear", stop=FREELY)
    parts = (replace(result.layers[0], placement=None, cost=None, status="none-found"), result.layers[1])
    answer = summarise(PROBLEM, mo.Result.join(parts), seconds=0)
    assert (answer["status"], answer["fan_out"], answer["certified_share"]) == ("none-found", None, None)
    assert [layer["fan_out"] is None for layer in answer["layers"]] == [True, False]
