"""CRAFT: the knapsack is exact, budgets and slots are kept, GPUs hold equal totals."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

import moeopt as mo
from moeopt.heuristics.craft import UNIT, Craft, gains_of
from moeopt.heuristics.eplb import Eplb
from tests.model_strategies import Case, model_problems

FREELY = mo.Stop(seconds=None)
METHODS = [Craft(), Craft(counts="all"), Craft(even_totals=False)]
TRACE = mo.Generator(
    layers=4, experts=12, top_k=2, tokens=300, requests=12, groups=3, group_size=3, seed=2
).generate()
WIDE = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=5), replicas=8)


def placed(problem: mo.Problem, trace: mo.Trace, method: Craft) -> mo.Placement:
    result = mo.solve(problem, method, stop=FREELY, trace=trace)
    assert result.placement is not None
    return result.placement


@pytest.mark.parametrize("method", METHODS, ids=repr)
@settings(max_examples=40, deadline=None)
@given(case=model_problems(replicas=True))
def test_budgets_and_slots_are_kept_and_no_expert_is_missing(method: Craft, case: Case) -> None:
    problem, trace = case
    placement = placed(problem, trace, method)
    assert problem.violation(placement) == ""
    assert placement.hosts.any(axis=2).all()
    copies = placement.hosts.sum(axis=(1, 2)) - trace.n_experts
    assert (copies <= method.replicas_of(problem)).all()
    assert placed(problem, trace, method) == placement


@pytest.mark.parametrize("counts", ["powers", "all"])
@settings(max_examples=40, deadline=None)
@given(case=model_problems(replicas=True))
def test_no_other_choice_within_the_budget_gains_more(counts: str, case: Case) -> None:
    """Every choice of the numbers offered, tried one by one."""
    problem, _ = case
    layers, gpus = len(problem.workload.layers), problem.cluster.gpus
    budget = problem.replicas * layers if problem.total_replicas is None else problem.total_replicas
    powers = [0, 1, 2, 4, 8]
    offered = [r for r in range(gpus + 1) if counts == "all" or r in powers]
    offered = [r for r in offered if r <= problem.replicas]
    gains = gains_of(problem, offered)
    chosen = Craft(counts=counts).replicas_of(problem)
    assert set(chosen) <= set(offered)
    assert sum(chosen) <= budget
    values = {
        pick: sum(int(gains[layer, offered.index(r)]) for layer, r in enumerate(pick))
        for pick in product(offered, repeat=layers)
        if sum(pick) <= budget
    }
    best = max(values.values())
    assert values[chosen] == best
    assert sum(chosen) == min(sum(pick) for pick, value in values.items() if value == best)


def test_gains_are_differences_of_mean_over_maximum() -> None:
    experts = np.repeat(np.arange(4), [6, 2, 2, 2])[:, None, None]  # the loads of both layers
    trace = mo.Trace(np.concatenate([experts, experts], axis=1), 4)
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=2, slots=3), replicas=2)
    # GPU loads are 8 and 4; with a copy of expert 0, 7 and 5; a third copy of it finds no GPU without one.
    gain = round(UNIT * 6 / 7) - round(UNIT * 6 / 8)
    assert gains_of(problem, [0, 1, 2]).tolist() == [[0, gain, gain]] * 2
    assert Craft().replicas_of(problem) == (1, 1)
    assert Craft().replicas_of(replace(problem, total_replicas=1)) in {(0, 1), (1, 0)}


@pytest.mark.parametrize("total", [0, 1, 3, 7, 12, 20])
def test_gpus_hold_equally_many_copies_over_all_layers(total: int) -> None:
    problem = replace(WIDE, total_replicas=total)
    placement = placed(problem, TRACE, Craft())
    held = placement.hosts.sum(axis=(0, 1))
    assert held.max() - held.min() <= 1
    assert np.ptp(placement.hosts.sum(axis=1), axis=1).max() <= 1  # and in each layer
    copies = tuple((placement.hosts.sum(axis=(1, 2)) - TRACE.n_experts).tolist())
    assert copies == Craft().replicas_of(problem)


def test_without_the_setting_the_first_gpus_hold_more() -> None:
    uneven = mo.Problem.from_trace(TRACE.layers([0, 1, 2]), mo.Cluster.of(gpus=5, slots=3))
    trace = TRACE.layers([0, 1, 2])
    held = placed(uneven, trace, Craft(even_totals=False)).hosts.sum(axis=(0, 1))
    assert held.tolist() == [9, 9, 6, 6, 6]
    assert np.ptp(placed(uneven, trace, Craft()).hosts.sum(axis=(0, 1))) == 1


def test_more_budget_never_gains_less() -> None:
    def gain(total: int) -> int:
        chosen = Craft(counts="all").replicas_of(replace(WIDE, total_replicas=total))
        table = gains_of(WIDE, range(9))
        return sum(int(table[layer, copies]) for layer, copies in enumerate(chosen))

    gains = [gain(total) for total in range(0, 20, 3)]
    assert gains == sorted(gains)
    assert gains[-1] > 0


def test_without_a_total_every_layer_takes_its_best_up_to_replicas() -> None:
    table = gains_of(WIDE, [0, 1, 2, 4])
    best = tuple([0, 1, 2, 4][int(row.argmax())] for row in table)
    assert Craft().replicas_of(WIDE) == best
    assert Craft().replicas_of(replace(WIDE, total_replicas=8 * 4)) == best


def test_where_all_copies_are_taken_it_is_the_global_packing_of_eplb() -> None:
    single = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=3))
    placement = placed(single, TRACE, Craft())
    assert placement == mo.solve(single, Eplb(groups=1), stop=FREELY).placement


def test_bad_settings_and_what_nobody_could_judge_are_refused() -> None:
    with pytest.raises(ValueError, match="counts must be one of powers, all, found 'some'"):
        Craft(counts="some")
    trace = mo.Trace(np.tile(np.arange(17), (1, 2, 1)), 18)
    problem = mo.Problem.from_trace(trace, mo.Cluster(1, 2, 10), replicas=1)
    assert Craft().supports(problem) == "top-k must be at most 16 with replicas, found 17"
    assert Craft().supports(replace(problem, replicas=0)) == ""
    assert Craft().supports(replace(problem, replicas=0).layer(0)).endswith("the problem has one")
    assert Craft().supports(replace(problem, total_replicas=1)).startswith("top-k must be")
    with pytest.raises(ValueError, match="token by token, found none"):
        mo.solve(WIDE, Craft())
