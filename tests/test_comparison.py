"""Methods are judged alike, on what they saw and on what they did not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt.comparison import mean_fan_out
from moeopt.heuristics.linear import Linear
from moeopt.reference import reference_cost
from moeopt.result import certified_share
from moeopt.stop import Clock
from tests.strategies import traces

FREELY = mo.Stop(seconds=None)
TRACE = mo.Generator(layers=2, experts=8, top_k=2, tokens=300, requests=24, groups=3, group_size=3).generate()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=2))


@dataclass(frozen=True)
class Spy(mo.Heuristic):
    """Must not run."""

    name = "spy"
    summary = "refuses to run"

    def search(
        self, problem: mo.Problem, *, clock: Clock, rng: np.random.Generator, start: mo.Placement | None
    ) -> Iterator[mo.Placement]:
        raise AssertionError("it ran")


@settings(max_examples=40, deadline=None)
@given(trace=traces(max_experts=5), seed=st.integers(0, 999))
def test_evaluate_is_what_counting_token_by_token_gives(trace: mo.Trace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hosts = rng.random((trace.n_layers, trace.n_experts, 4)) < 0.3
    primary = rng.integers(0, 4, (trace.n_layers, trace.n_experts), dtype=np.int32)
    np.put_along_axis(hosts, primary[..., None], True, axis=2)
    ids = tuple(trace.layer_ids.tolist())
    found = mo.evaluate(mo.Placement(hosts, primary, 1, trace.n_experts, ids), trace)
    touched = [
        min(len(set(chosen)) for chosen in product(*(np.flatnonzero(hosts[layer, e]).tolist() for e in row)))
        for token in trace.experts
        for layer, row in enumerate(token)
    ]
    assert found.fan_out == pytest.approx(np.mean(touched) - 1)
    assert found.fan_out == pytest.approx(np.mean([layer["fan_out"] for layer in found.layers]))
    assert found.broken == ""
    assert found.node_fan_out == pytest.approx(0)


def test_a_guard_serves_no_gpu_beyond_the_tolerance_where_copies_allow_it() -> None:
    problem = replace(PROBLEM, cluster=mo.Cluster.of(gpus=4, slots=4), replicas=8)
    placement = mo.solve(problem, "replicate", stop=FREELY).placement
    assert placement is not None
    free, guarded = mo.evaluate(placement, TRACE), mo.evaluate(placement, TRACE, load_tolerance="0.1")
    assert guarded.worst_layer <= max(0.1, free.worst_layer) + 1e-9
    assert guarded.fan_out >= free.fan_out
    bound = replace(problem, load_tolerance="0.1")
    if not bound.violation(placement):
        assert guarded.worst_layer <= 0.1 + 1e-9


def test_broken_slots_are_told_and_other_models_refused() -> None:
    crowded = mo.Placement.partition(np.zeros((2, 8), int), mo.Cluster.of(gpus=4, slots=2), layer_ids=(0, 1))
    found = mo.evaluate(crowded, TRACE)
    assert found.broken == "layer 0: GPU 0 holds 8 experts, slots are 2"
    assert (found.fan_out, found.reduction) == (0.0, 1.0)
    with pytest.raises(ValueError, match="8 experts a layer, the trace 2"):
        mo.evaluate(crowded, mo.Trace(np.array([[[0]]]), 2))


def test_shares_use_the_best_bound_of_all_methods() -> None:
    linear, blocks = mo.compare(PROBLEM, ["linear", "blocks"], stop=FREELY)
    assert linear.cost is not None
    assert linear.bound == blocks.bound == blocks.cost
    assert blocks.certified_share == 1.0
    share = certified_share(reference=reference_cost(PROBLEM), cost=linear.cost, bound=blocks.cost)
    assert linear.certified_share == share
    assert linear.reduction == pytest.approx(0)
    (alone,) = mo.compare(PROBLEM, ["linear"], stop=FREELY)
    assert (alone.bound, alone.certified_share, alone.held_out_fan_out) == (None, None, None)


def test_held_out_rows_are_judged_on_the_requests_set_aside() -> None:
    rows = mo.compare(PROBLEM, [Linear(), "blocks"], seeds=(0, 1), stop=FREELY, trace=TRACE, held_out=0.25)
    assert [(row.method, row.seed) for row in rows] == [
        ("linear", 0),
        ("blocks", 0),
        ("linear", 1),
        ("blocks", 1),
    ]
    for row in rows:
        seen, rest = TRACE.split(0.25, seed=row.seed)
        own = replace(PROBLEM, workload=mo.Workload.from_trace(seen))
        placement = mo.solve(own, row.method, stop=FREELY, seed=row.seed).placement
        assert placement is not None
        assert row.cost == own.cost(placement)
        judged = mo.evaluate(placement, rest)
        assert (row.held_out_fan_out, row.held_out_reduction) == (judged.fan_out, judged.reduction)


def test_what_cannot_run_is_refused_before_anything_runs() -> None:
    copies = replace(PROBLEM, cluster=mo.Cluster.of(gpus=4, slots=3), replicas=1)
    with pytest.raises(ValueError, match="method blocks does not treat this problem"):
        mo.compare(copies, [Spy(), "blocks"])
    with pytest.raises(ValueError, match="no method is named 'magic'"):
        mo.compare(PROBLEM, [Spy(), "magic"])
    with pytest.raises(ValueError, match="holding requests out needs the trace"):
        mo.compare(PROBLEM, [Spy()], held_out=0.2)


def test_with_a_tail_the_fan_out_is_that_of_the_worst_family() -> None:
    chosen = np.array([[0, 1]] * 4 + [[0, 2]] * 2)
    trace = mo.Trace(
        chosen[:, None], 4, families=("near", "far"), family=np.array([0] * 4 + [1] * 2, np.uint8)
    )
    problem = mo.Problem.from_trace(trace, mo.Cluster(1, 2, 2), tail=0)
    placement = problem.partition(np.array([[0, 0, 1, 1]]))
    assert mean_fan_out(problem, placement) == 1.0
    assert mean_fan_out(replace(problem, tail=None), placement) == pytest.approx(1 / 3)
    assert problem.cost(placement) == problem.total_weight
