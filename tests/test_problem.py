"""The judge: costs are those of a count token by token, broken rules come with their numbers."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from moeopt import storage
from moeopt.cluster import Cluster
from moeopt.dispatch import Dispatch, Plan
from moeopt.judged import Judged
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.problem_strategies import any_problems, clusters
from tests.strategies import traces


@st.composite
def judged(
    draw: st.DrawFn, *, objectives: tuple[str, ...] = ("fan-out", "cut"), copies: bool = False
) -> tuple[Trace, Problem, Placement]:
    """A trace of several layers and families, a problem over it, and a random placement of it."""
    trace = draw(traces(max_layers=2, max_tokens=15))
    nodes, per_node = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    gpus = nodes * per_node
    cluster = Cluster(
        nodes, per_node, trace.n_experts, draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 4]))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    primary = rng.integers(0, gpus, (trace.n_layers, trace.n_experts), dtype=np.int32)
    hosts = primary[..., None] == np.arange(gpus)
    if copies:
        hosts |= rng.random(hosts.shape) < 0.3
    objective = draw(st.sampled_from(objectives))
    present = [name for index, name in enumerate(trace.families) if (trace.family == index).any()]
    weights = {name: draw(st.sampled_from([1, 2.5])) for name in present} if draw(st.booleans()) else None
    problem = Problem.from_trace(
        trace,
        cluster,
        replicas=trace.n_experts * (gpus - 1) if copies else 0,
        objective=objective,
        family_weights=weights,
    )
    placement = Placement(hosts, primary, nodes, cluster.slots, problem.workload.layer_ids, trace.model)
    return trace, problem, placement


def further(problem: Problem, gpus: list[int]) -> int:
    """Cost of one token by definition: each GPU and each node beyond the first."""
    cluster = problem.cluster
    nodes = {gpu // cluster.gpus_per_node for gpu in gpus}
    return cluster.gpu_cost * (len(set(gpus)) - 1) + cluster.node_cost * (len(nodes) - 1)


@settings(max_examples=80, deadline=None)
@given(case=judged())
def test_the_cost_is_the_count_token_by_token(case: tuple[Trace, Problem, Placement]) -> None:
    trace, problem, placement = case
    total = 0
    for layer in range(trace.n_layers):
        gpu_of = placement.primary[layer].tolist()
        for token, family in zip(trace.experts[:, layer].tolist(), trace.family.tolist(), strict=True):
            weight = int(problem.multipliers[family])
            if problem.objective == "fan-out":
                total += weight * further(problem, [gpu_of[e] for e in token])
            else:
                pairs = [(e, f) for e in token for f in token if e < f]
                total += weight * sum(further(problem, [gpu_of[e], gpu_of[f]]) for e, f in pairs)
    assert problem.cost(placement) == total
    assert problem.cost(placement) == sum(
        problem.layer(index).cost(placement.layer(index)) for index in range(trace.n_layers)
    )
    assert problem.layer_costs(placement) == [
        problem.layer(index).cost(placement.layer(index)) for index in range(trace.n_layers)
    ]
    assert problem.violation(placement) == ""


@settings(max_examples=60, deadline=None)
@given(case=judged(objectives=("fan-out",), copies=True))
def test_a_plan_costs_what_its_rows_serve(case: tuple[Trace, Problem, Placement]) -> None:
    _, problem, placement = case
    plan = problem.plan(placement)
    total = 0
    for part in plan.dispatches:
        for gpus, tokens in zip(part.gpus.tolist(), part.tokens.tolist(), strict=True):
            weight = sum(int(q) * n for q, n in zip(problem.multipliers, tokens, strict=True))
            total += weight * further(problem, gpus)
    assert problem.cost(plan) == problem.cost(placement) == total
    assert problem.violation(placement) == ""
    single = problem.cost(
        Placement.partition(placement.primary, problem.cluster, layer_ids=placement.layer_ids)
    )
    assert total <= single  # copies are only ever used to advantage


@settings(max_examples=30, deadline=None)
@given(case=judged(objectives=("fan-out",), copies=True))
def test_no_dispatch_costs_less_than_the_plan_without_a_load_tolerance(
    case: tuple[Trace, Problem, Placement],
) -> None:
    _, problem, placement = case
    rng = np.random.default_rng(0)
    layers = []
    for sets, hosts in zip(problem.workload.layers, placement.hosts, strict=True):
        gpus = [[rng.choice(np.flatnonzero(hosts[e])) for e in row] for row in sets.members]
        layers.append(Dispatch(np.arange(len(sets), dtype=np.int32), np.array(gpus), sets.counts))
    assert problem.cost(Plan(placement, tuple(layers))) >= problem.cost(placement)


TRACE = Trace(np.array([[[0, 1]], [[0, 2]], [[0, 3]], [[1, 2]]]), 4, layer_ids=np.array([9]))


def problem_of(cluster: Cluster | None = None, **fields: Any) -> Problem:
    return Problem.from_trace(TRACE, cluster or Cluster(1, 2, 2), **fields)


@pytest.mark.parametrize(
    ("cluster", "fields", "words"),
    [
        (Cluster(1, 3, 1), {}, "too few slots: 3 GPUs offer 3 slots a layer for 4 experts"),
        (
            Cluster(1, 2, (9, 0)),
            {"replicas": 1},
            "replicas 1 cannot be placed: 4 experts leave 0 of 4 slots free",
        ),
        (None, {"replicas": 1}, "replicas 1 cannot be placed: 4 experts leave 0 of 4 slots free"),
        (None, {"replicas": -1}, "replicas must be a whole number, at least 0, found -1"),
        (None, {"replicas": 1.0}, r"found 1\.0"),
        (None, {"replicas": True}, "found True"),
        (None, {"objective": "hops"}, "objective must be one of fan-out, cut, load, found 'hops'"),
        (Cluster(1, 2, 3), {"objective": "cut", "replicas": 1}, "replicas must be 0, found 1"),
        (None, {"load_tolerance": -0.1}, "load tolerance must not be negative, found -0.1"),
        (None, {"load_tolerance": "ten"}, "load tolerance must be a number, found 'ten'"),
        (None, {"load_tolerance": "1/0"}, "load tolerance must be a number, found '1/0'"),
        (None, {"load_tolerance": float("nan")}, "load tolerance must be a number, found nan"),
        (None, {"load_tolerance": float("inf")}, "load tolerance must be a number, found inf"),
        (None, {"load_tolerance": True}, "load tolerance must be a number, found True"),
        (None, {"load_tolerance": "1e999999999"}, "load tolerance must be"),
        (None, {"load_tolerance": 10**7}, "load tolerance must be at most 1000000, found 10000000"),
        (
            Cluster(1, 4, 1),
            {"load_tolerance": 0.25},
            "load tolerance 0.25 cannot be met: layer 9, expert 0 alone serves 3 activations, "
            "a GPU may serve 2; at least 0.5 is needed",
        ),
        (
            Cluster(1, 3, 2),
            {"load_tolerance": "0.1"},
            "load tolerance 0.1 cannot be met: 3 GPUs may serve 2 activations each, there are 8; "
            "at least 0.125 is needed",
        ),
        (
            Cluster(1, 8, 1),
            {"load_tolerance": "0.4", "replicas": 1},
            "expert 0 alone serves 3 activations, a GPU may serve 1; at least 0.5 is needed",
        ),
        (
            None,
            {"family_weights": {"maths": 1}},
            "family 'maths' is not in the trace, whose families are all",
        ),
        (None, {"family_weights": {"all": 0}}, "family weights are all zero"),
        (None, {"family_weights": {"all": -1}}, "weight of family 'all' must not be negative, found -1"),
    ],
)
def test_what_arithmetic_rules_out_is_refused_with_rule_and_value(
    cluster: Cluster | None, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        problem_of(cluster, **fields)


@settings(max_examples=60, deadline=None)
@given(trace=traces(max_layers=1), gpus=st.integers(2, 5), tolerance=st.sampled_from(["0", "0.1", "0.4"]))
def test_the_tolerance_an_error_asks_for_is_enough_for_the_expert(
    trace: Trace, gpus: int, tolerance: str
) -> None:
    cluster = Cluster(1, gpus, trace.n_experts)
    for _ in range(5):
        try:
            Problem.from_trace(trace, cluster, load_tolerance=tolerance)
        except ValueError as error:
            wanted = str(error).rpartition("at least ")[2].removesuffix(" is needed")
            assert Fraction(wanted) > Fraction(tolerance)
            tolerance = wanted
        else:
            return
    pytest.fail(f"the tolerance {tolerance} was asked for and refused")


def test_objectives_beyond_64_bits_are_refused() -> None:
    ids = np.array([[list(range(16))]])
    with pytest.raises(ValueError, match="objective too large for exact 64-bit arithmetic: weight 11258999"):
        Problem.from_trace(Trace(ids, 16), Cluster(1, 2, 8, gpu_cost=1000), family_weights={"all": 1})


def test_every_rule_names_its_numbers() -> None:
    partition = problem_of(Cluster(1, 2, 3)).partition
    crowded = problem_of(Cluster(1, 2, 2)).violation(partition(np.array([0, 0, 0, 1])))
    assert crowded == "layer 9: GPU 0 holds 3 experts, slots are 2"
    loaded = problem_of(Cluster(1, 2, 3), load_tolerance="0.1").violation(partition(np.array([0, 0, 1, 1])))
    assert loaded == "layer 9: GPU 0 serves 5 activations, load tolerance 0.1 allows 4"
    hosts = np.ones((1, 4, 2), bool)
    copied = Placement(hosts, np.zeros((1, 4), np.int32), 1, 4, (9,))
    assert (
        problem_of(Cluster(1, 2, 4), replicas=3).violation(copied) == "layer 9: 4 replicas, the budget is 3"
    )
    assert problem_of(Cluster(1, 2, 4), replicas=4).violation(copied) == ""
    few = Plan(copied, (Dispatch(np.array([0]), np.array([[0, 0]]), np.array([[1]])),))
    broken = problem_of(Cluster(1, 2, 4), replicas=4).violation(few)
    assert broken == "layer 9: expert set 1 has 1 tokens of family 0, 0 served"
    with pytest.raises(ValueError, match="layer 9: expert set 1 has 1 tokens of family 0, 0 served"):
        problem_of(Cluster(1, 2, 4), replicas=4).cost(few)
    with pytest.raises(ValueError, match="cut is defined for partitions: the placement has copies"):
        problem_of(Cluster(1, 2, 4), objective="cut").cost(copied)


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (Placement.partition([[0, 1, 0, 1]], Cluster(1, 2, 2), layer_ids=(8,)), r"layers: \(8,\) and \(9,\)"),
        (Placement.partition([[0, 1, 0]], Cluster(1, 2, 2), layer_ids=(9,)), "experts: 3 and 4"),
        (Placement.partition([[0, 1, 0, 1]], Cluster(1, 3, 2), layer_ids=(9,)), "GPUs: 3 and 2"),
        (Placement.partition([[0, 1, 0, 1]], Cluster(2, 1, 2), layer_ids=(9,)), "nodes: 2 and 1"),
    ],
)
def test_a_placement_of_another_problem_is_a_mistake(placement: Placement, words: str) -> None:
    for judge in (problem_of().cost, problem_of().violation):
        with pytest.raises(ValueError, match=f"placement and problem differ in {words}"):
            judge(placement)


def test_the_load_cap_is_exact() -> None:
    trace = Trace(np.array([[[0]], [[1]], [[2]]] * 10), 3)  # mean 10 a GPU
    for tolerance, cap in (("0.1", 11), (0.1, 11), (Fraction(1, 10), 11), ("0.0999999", 10), (0, 10)):
        problem = Problem.from_trace(trace, Cluster(1, 3, 3), load_tolerance=tolerance)
        assert problem.load_cap == cap
    assert Problem.from_trace(trace, Cluster(1, 3, 3)).load_cap is None


def test_slots_beyond_the_number_of_experts_do_not_count() -> None:
    with pytest.raises(ValueError, match="too few slots: 2 GPUs offer 0 slots"):
        problem_of(Cluster(1, 2, (0, 0)))
    assert (
        problem_of(Cluster(1, 2, (1_000_000, 0))).violation(
            Placement.partition([[0, 0, 0, 0]], Cluster(1, 2, (1_000_000, 0)), layer_ids=(9,))
        )
        == ""
    )


@settings(max_examples=40, deadline=None)
@given(trace=traces(), data=st.data())
def test_a_problem_survives_its_document(trace: Trace, data: st.DataObject) -> None:
    cluster = data.draw(clusters(experts=trace.n_experts, gpus=data.draw(st.integers(1, 4))))
    weights = {trace.families[int(trace.family[0])]: 1.5} if data.draw(st.booleans()) else None
    objective = data.draw(st.sampled_from(["cut", "fan-out"]))
    tolerance = data.draw(st.sampled_from([None, "1/3", 3, 3.7]))
    try:
        problem = Problem.from_trace(
            trace, cluster, family_weights=weights, objective=objective, load_tolerance=tolerance
        )
    except ValueError:
        return
    again = Problem.from_dict(json.loads(json.dumps(problem.to_dict())))
    assert again.fields() == problem.fields()
    assert again.workload.digest == problem.workload.digest
    assert again.cluster == problem.cluster
    assert again.load_cap == problem.load_cap
    assert again.multipliers.tolist() == problem.multipliers.tolist()


@pytest.mark.parametrize("name", ["cluster", "replicas", "family_weights", "objective", "load_tolerance"])
def test_a_document_without_a_field_or_with_another_type_is_refused(name: str) -> None:
    document = problem_of(load_tolerance=1, family_weights={"all": 1}).to_dict()
    fields = document["fields"]
    with pytest.raises(ValueError, match=f"field '{name}' must be"):
        Problem.from_dict(document | {"fields": fields | {name: 0.5}})
    without = {key: value for key, value in fields.items() if key != name}
    with pytest.raises(ValueError, match=f"field '{name}' is missing"):
        Problem.from_dict(document | {"fields": without})
    with pytest.raises(ValueError, match="version of moeopt-problem must be 1, found 3"):
        Problem.from_dict(document | {"version": 3})


def test_settings_the_caller_changes_later_do_not_reach_the_problem() -> None:
    weights = {"all": 1.0}
    problem = problem_of(family_weights=weights)
    weights["all"] = 2.0
    assert problem.family_weights == {"all": 1.0}
    assert replace(problem, objective="cut").family_weights == {"all": 1.0}


def every_mixture(problem: Problem) -> list[tuple[int, ...]]:
    """All whole mixtures of the families, by definition."""
    risk = problem.risk
    assert risk is not None
    ranges = [range(min(mass, risk.total) + 1) for mass in risk.masses]
    assume(np.prod([len(each) for each in ranges]) <= 400)
    return [mixture for mixture in product(*ranges) if sum(mixture) == risk.total]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=any_problems(extras=("replicas", "tail", "speeds")), seed=st.integers(0, 2**32 - 1))
def test_with_a_tail_the_dearest_mixture_of_the_families_counts(problem: Problem, seed: int) -> None:
    assume(problem.risk is not None)
    free = replace(problem, load_tolerance=None, replicas=0)
    rng = np.random.default_rng(seed)
    placement = free.partition(rng.integers(0, free.cluster.gpus, free.workload.n_experts))
    mixtures = every_mixture(free)
    assert free.cost(placement) == max(free.mixed(mixture).cost(placement) for mixture in mixtures)
    assert free.total_weight == max(free.mixed(mixture).total_weight for mixture in mixtures)
    for mixture in mixtures:
        mixed = free.mixed(mixture)
        assert mixed.multipliers.tolist() == (np.array(mixture) * free.family_units).tolist()
        assert mixed.risk is None
        assert mixed.violation(placement) == free.violation(placement)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=any_problems(extras=("tail",)), seed=st.integers(0, 2**32 - 1))
def test_the_worst_family_is_the_dearest_per_token_and_the_mean_stays_as_it_was(
    problem: Problem, seed: int
) -> None:
    """By the cost of one family at a time: all weight on it, everything else left out."""
    wide = replace(problem, load_tolerance=None, tail=None)
    rng = np.random.default_rng(seed)
    placement = wide.partition(rng.integers(0, wide.cluster.gpus, wide.workload.n_experts))
    worst, mean = replace(wide, tail=0), replace(wide, tail=1)
    assert worst.risk is not None
    units = worst.risk.units
    alone = []
    for family, unit in enumerate(units):
        chosen = tuple(int(other == family) for other in range(len(units)))
        if unit:
            alone.append(worst.mixed(chosen).cost(placement))
    assert worst.cost(placement) == max(alone)
    assert mean.tail is None
    assert mean.risk is None
    assert mean.cost(placement) == wide.cost(placement)
    assert mean.digest == wide.digest != worst.digest


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=any_problems(extras=("tail",), most_experts=5))
def test_no_mixture_has_a_dearer_optimum_than_the_tail(problem: Problem) -> None:
    assume(problem.risk is not None)
    least = brute_force(problem)[0]
    for mixture in every_mixture(problem):
        bound = brute_force(problem.mixed(mixture))[0]
        assert (bound is None) == (least is None)
        assert bound is None or least is None or bound <= least


def test_with_a_tail_layers_are_summed_and_plans_are_judged_too() -> None:
    ids = np.array([[[0, 1], [0, 1]], [[0, 1], [2, 3]], [[2, 3], [0, 2]], [[0, 2], [1, 3]]])
    trace = Trace(ids, 4, families=("code", "math"), family=np.array([0, 0, 1, 1], np.uint8))
    problem = Problem.from_trace(trace, Cluster(1, 2, 3), tail=0, replicas=1)
    placement = Placement.partition([[0, 1, 1, 1], [0, 0, 1, 1]], Cluster(1, 2, 3), layer_ids=(0, 1))
    assert problem.risk is not None
    code, math = problem.risk.units
    assert problem.layer_costs(placement) == [max(2 * code, 1 * math), max(0 * code, 2 * math)]
    assert problem.cost(placement) == sum(problem.layer_costs(placement))
    assert problem.cost(problem.plan(placement)) == problem.cost(placement)
    assert problem.cost(problem.partition(np.array([[0, 0, 1, 1]] * 2))) < problem.cost(placement)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=any_problems())
def test_a_problem_with_everything_survives_its_document(problem: Problem) -> None:
    back = Problem.from_dict(json.loads(json.dumps(problem.to_dict(), default=storage.plain)))
    for field in fields(Problem):
        if field.name != "workload":
            assert getattr(back, field.name) == getattr(problem, field.name), field.name
    assert back.workload.digest == problem.workload.digest
    assert back.digest == problem.digest
    assert back.fields() == problem.fields()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=any_problems(extras=("replicas", "tail")), data=st.data())
def test_everything_that_costs_or_rules_depend_on_is_in_the_digest(
    problem: Problem, data: st.DataObject
) -> None:
    plain = problem.partition(np.zeros(problem.workload.n_experts, int))
    other = problem.partition(np.ones(problem.workload.n_experts, int))
    wide = replace(problem, cluster=replace(problem.cluster, slots=problem.workload.n_experts))
    wide = replace(wide, incumbent=plain, max_moves=2, load_tolerance=None)
    change: dict[str, Any] = data.draw(
        st.sampled_from(
            [
                {"incumbent": other},
                {"max_moves": 3},
                {"max_moves": None},
                {"tail": "0.25"},
                {"tail": "0.75"},
                {"load_tolerance": 3},
                {"family_weights": {"code": 7}},
                {"cluster": replace(wide.cluster, gpu_cost=9)},
                {"cluster": replace(wide.cluster, speeds=(2,) + (1,) * (wide.cluster.gpus - 1))},
                {"workload": Workload.from_trace(TRACE.layers([9]))},
            ]
        )
    )
    if "workload" in change or wide.replicas:
        change = {**change, "replicas": 0}
    if "workload" in change:
        change = {
            **change,
            "incumbent": None,
            "max_moves": None,
            "family_weights": None,
            "cluster": Cluster(1, 2, 4),
        }
    changed = replace(wide, **change)
    assert changed.digest != wide.digest
    assert replace(wide).digest == wide.digest


def test_moves_are_copies_where_the_incumbent_has_none() -> None:
    problem = problem_of(Cluster(1, 2, 4), replicas=2)
    before = np.array([[[1, 0], [1, 0], [0, 1], [0, 1]]], bool)
    after = np.array([[[1, 1], [0, 1], [0, 1], [1, 1]]], bool)
    old, new = (Placement(h, h.argmax(axis=2), 1, 4, (9,)) for h in (before, after))
    assert replace(problem, incumbent=old).moves(new) == [3]
    assert replace(problem, incumbent=new).moves(old) == [1]  # leaving out a copy is no move
    assert replace(problem, incumbent=old).moves(old) == [0]
    with pytest.raises(ValueError, match="moves are counted from an incumbent: the problem has none"):
        problem.moves(old)


def test_a_layer_takes_its_part_of_the_incumbent_along() -> None:
    trace = Trace(np.array([[[0, 1], [2, 3]]]), 4)
    incumbent = Placement.partition([[0, 0, 1, 1], [1, 1, 0, 0]], Cluster(1, 2, 2), layer_ids=(0, 1))
    problem = Problem.from_trace(trace, Cluster(1, 2, 2), incumbent=incumbent, max_moves=2)
    for index in (0, 1):
        layer = problem.layer(index)
        assert layer.incumbent == incumbent.layer(index)
        assert layer.max_moves == 2
        assert layer.moves(incumbent.layer(index)) == [0]


def test_what_needs_a_tail_says_so() -> None:
    with pytest.raises(ValueError, match="families are compared with a tail only: the problem has none"):
        _ = problem_of().family_units
    with pytest.raises(ValueError, match="families are compared with a tail only: the problem has none"):
        problem_of().mixed((1,))


def test_gpus_of_unequal_speed_have_caps_of_their_own() -> None:
    problem = problem_of(Cluster(1, 2, 4, speeds=(3, 1)), load_tolerance="0.25")
    assert problem.load_caps is not None
    assert problem.load_caps.tolist() == [7, 2]
    with pytest.raises(ValueError, match=r"GPUs of unequal speed have no common cap: speeds are \(3, 1\)"):
        _ = problem.load_cap
    assert problem_of(load_tolerance="0.25").load_cap == 5
    assert problem_of().load_caps is None
    assert problem_of().load_cap is None


def test_a_problem_judges_its_answers() -> None:
    assert isinstance(problem_of(), Judged)
