"""What must not change the answer does not, and what may only help only helps."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.exact import Exact
from moeopt.expert_sets import ExpertSets
from moeopt.heuristics.linear import Linear
from moeopt.heuristics.lpt import Lpt
from moeopt.heuristics.random import Random
from moeopt.heuristics.round_robin import RoundRobin
from moeopt.heuristics.swap import Swap, SwapCut
from moeopt.method import Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt.workload import Workload
from moeopt_formulations.assignment import Assignment
from moeopt_formulations.blocks import Blocks
from moeopt_formulations.pairs import Pairs
from tests.problem_strategies import problems
from tests.strategies import traces

FREELY = Stop(seconds=None)
BLOCKS = Exact(Blocks())
HEURISTICS: list[Method] = [
    Linear(),
    RoundRobin(),
    Random(),
    Lpt(),
    Swap(restarts=1, kicks=10),
    SwapCut(restarts=1, kicks=10),
]
EXACT: list[Method] = [BLOCKS, Exact(Pairs()), Exact(Assignment())]
SMALL = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ALIKE = problems(unequal=False, nodes=False)


def permuted(problem: Problem, order: Any) -> Problem:
    """The same traffic when expert e is called order[e]."""
    (sets,) = problem.workload.layers
    renamed = ExpertSets.of(order[sets.members], sets.counts, n_experts=sets.n_experts)
    return replace(problem, workload=replace(problem.workload, layers=(renamed,)))


def optimum(problem: Problem) -> int | None:
    result = BLOCKS.solve(problem, stop=FREELY, seed=0)
    assert result.status in ("certified-optimal", "infeasible-claimed"), result.message
    return result.cost


def at_most(first: int | None, second: int | None) -> bool:
    """Whether the first optimum is no worse; an infeasible problem is the worst."""
    return second is None or (first is not None and first <= second)


@SMALL
@given(problem=problems(), seed=st.integers(0, 99))
def test_names_of_gpus_on_a_node_do_not_matter(problem: Problem, seed: int) -> None:
    _, best = brute_force(problem)
    if best is None or not problem.cluster.equal:
        return
    cluster = problem.cluster
    rng = np.random.default_rng(seed)
    nodes = rng.permutation(cluster.nodes)
    new = np.concatenate(
        [
            nodes[node] * cluster.gpus_per_node + rng.permutation(cluster.gpus_per_node)
            for node in range(cluster.nodes)
        ]
    )
    relabelled = problem.partition(new[best.primary[0]])
    assert problem.violation(relabelled) == ""
    assert problem.cost(relabelled) == problem.cost(best)


@SMALL
@given(problem=problems(most_experts=6, most_gpus=3), seed=st.integers(0, 99))
def test_names_of_experts_do_not_matter_to_the_judge(problem: Problem, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(problem.workload.n_experts)
    other = permuted(problem, order)
    least, best = brute_force(problem)
    assert brute_force(other)[0] == least
    assert reference_cost(other) == reference_cost(problem)
    if best is not None:
        moved = other.partition(best.primary[0][np.argsort(order)])
        assert other.cost(moved) == problem.cost(best)


@SMALL
@given(problem=ALIKE, seed=st.integers(0, 99))
def test_names_of_experts_do_not_matter_to_the_proof(problem: Problem, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(problem.workload.n_experts)
    assert optimum(permuted(problem, order)) == optimum(problem)


@SMALL
@given(
    trace=traces(max_layers=1, max_experts=6),
    gpus=st.integers(2, 3),
    objective=st.sampled_from(["fan-out", "cut"]),
)
def test_twice_the_traffic_costs_twice_as_much(trace: Trace, gpus: int, objective: str) -> None:
    cluster = Cluster(1, gpus, -(-trace.n_experts // gpus) + 1)
    once = Problem.from_trace(trace, cluster, objective=objective)
    doubled = trace.take(np.tile(np.arange(trace.n_tokens), 2))
    twice = Problem.from_trace(doubled, cluster, objective=objective)
    least = optimum(once)
    assert least is not None
    assert optimum(twice) == 2 * least
    assert reference_cost(twice) == 2 * reference_cost(once)


@SMALL
@given(problem=ALIKE)
def test_more_slots_never_cost_more(problem: Problem) -> None:
    slots = int(problem.cluster.slots_of[0])
    wider = replace(problem, cluster=replace(problem.cluster, slots=slots + 1))
    assert at_most(optimum(wider), optimum(problem))


@SMALL
@given(problem=ALIKE)
def test_one_more_gpu_never_costs_more_without_a_load_cap(problem: Problem) -> None:
    free = replace(problem, load_tolerance=None)
    larger = replace(free, cluster=replace(free.cluster, gpus_per_node=free.cluster.gpus + 1, nodes=1))
    assert at_most(
        optimum(larger),
        optimum(replace(free, cluster=replace(free.cluster, gpus_per_node=free.cluster.gpus))),
    )


@SMALL
@given(problem=ALIKE)
def test_a_looser_load_tolerance_never_costs_more(problem: Problem) -> None:
    found: list[int | None] = []
    for tolerance in ("0.1", "0.2", "0.5", "1", None):
        try:
            found.append(optimum(replace(problem, load_tolerance=tolerance)))
        except ValueError:
            found.append(None)
    assert all(at_most(later, earlier) for earlier, later in pairwise(found))


@SMALL
@given(problem=problems(most_experts=6, most_gpus=3))
def test_dearer_gpus_and_nodes_cost_in_proportion(problem: Problem) -> None:
    _, best = brute_force(problem)
    if best is None:
        return
    cluster = problem.cluster
    tripled = replace(cluster, gpu_cost=3 * cluster.gpu_cost, node_cost=3 * cluster.node_cost)
    assert replace(problem, cluster=tripled).cost(best) == 3 * problem.cost(best)
    gpus = replace(problem, cluster=replace(cluster, gpu_cost=1, node_cost=0)).cost(best)
    nodes = replace(problem, cluster=replace(cluster, gpu_cost=0, node_cost=1)).cost(best)
    assert problem.cost(best) == cluster.gpu_cost * gpus + cluster.node_cost * nodes


@SMALL
@given(problem=problems(objectives=("fan-out",), most_experts=6, most_gpus=3))
def test_the_cut_is_never_below_the_fan_out(problem: Problem) -> None:
    _, best = brute_force(problem)
    if best is not None:
        cut = replace(problem, objective="cut")
        assert cut.cost(best) >= problem.cost(best)
        if problem.workload.top_k <= 2:
            assert cut.cost(best) == problem.cost(best)


@SMALL
@given(first=traces(max_families=2, max_layers=2, max_experts=5), seed=st.integers(0, 99))
def test_the_workload_of_merged_traces_is_the_merged_workload(first: Trace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    second = first.take(rng.integers(0, first.n_tokens, 7))
    merged = first.take(np.concatenate([np.arange(first.n_tokens), np.arange(first.n_tokens)]))
    assert (
        Workload.from_trace(merged).digest == (Workload.from_trace(first) + Workload.from_trace(first)).digest
    )
    cluster = Cluster(1, 2, first.n_experts)
    both = Workload.from_trace(first) + Workload.from_trace(second)
    labels = rng.integers(0, 2, (first.n_layers, first.n_experts))
    costs = [
        Problem(workload, cluster).cost(
            Placement.partition(labels, cluster, layer_ids=workload.layer_ids, model=workload.model)
        )
        for workload in (Workload.from_trace(first), Workload.from_trace(second), both)
    ]
    assert costs[0] + costs[1] == costs[2]


@SMALL
@given(problem=problems(objectives=("fan-out",), most_experts=6, most_gpus=3))
def test_a_family_without_weight_changes_nothing_but_the_load(problem: Problem) -> None:
    (sets,) = problem.workload.layers
    workload = problem.workload
    counts = np.concatenate([sets.counts, np.full((len(sets), 1), 5)], axis=1)
    wider = Workload(
        (ExpertSets.of(sets.members, counts, n_experts=sets.n_experts),),
        workload.layer_ids,
        (*workload.families, "noise"),
        np.append(workload.tokens, 5 * len(sets)),
    )
    code = replace(problem, family_weights={"code": 1}, load_tolerance=None)
    noisy = replace(code, workload=wider)
    _, best = brute_force(code)
    assert best is not None
    share = code.cost(best) / code.total_weight
    assert noisy.cost(best) / noisy.total_weight == pytest.approx(share, rel=1e-9)


@SMALL
@given(problem=problems(objectives=("fan-out",), most_experts=6, most_gpus=3))
def test_weights_in_proportion_to_traffic_change_nothing_but_the_scale(problem: Problem) -> None:
    plain = replace(problem, family_weights=None)
    weights = {
        name: int(tokens)
        for name, tokens in zip(problem.workload.families, problem.workload.tokens, strict=True)
        if tokens
    }
    weighted = replace(problem, family_weights=weights)
    _, best = brute_force(plain)
    if best is not None:
        assert weighted.cost(best) * plain.total_weight == pytest.approx(
            plain.cost(best) * weighted.total_weight
        )


@cache
def proofs(name: str) -> list[tuple[Problem, int]]:
    """Problems that the exact method of this name treats, and the bound it proves."""
    (exact,) = (method for method in EXACT if method.name == name)
    rng = np.random.default_rng(1)
    found = []
    for objective in ("fan-out", "cut"):
        for cluster, tolerance in (
            (Cluster(1, 3, 2), None),
            (Cluster(1, 2, 4), "0.3"),
            (Cluster(2, 2, 2), None),
        ):
            trace = Trace(np.array([[rng.permutation(6)[:3]] for _ in range(40)]), 6)
            problem = Problem.from_trace(trace, cluster, objective=objective, load_tolerance=tolerance)
            if exact.supports(problem):
                continue
            result = exact.solve(problem, stop=FREELY, seed=0)
            assert result.status in ("certified-optimal", "certified-gap", "solver-claimed"), result.message
            assert result.bound is not None
            assert result.cost is not None
            assert result.bound <= result.cost
            found.append((problem, result.bound))
    return found


@pytest.mark.parametrize("exact", [method.name for method in EXACT])
@pytest.mark.parametrize("heuristic", HEURISTICS, ids=lambda method: str(method.name))
def test_no_heuristic_beats_a_proved_bound(heuristic: Method, exact: str) -> None:
    costs = [(heuristic.solve(problem, stop=FREELY, seed=0).cost, bound) for problem, bound in proofs(exact)]
    assert all(bound <= cost for cost, bound in costs if cost is not None)
    assert any(cost is not None for cost, _ in costs)


def test_exact_methods_agree_on_the_cut() -> None:
    rng = np.random.default_rng(2)
    for _ in range(3):
        trace = Trace(np.array([[rng.permutation(6)[:3]] for _ in range(40)]), 6)
        problem = Problem.from_trace(trace, Cluster(1, 3, 2), objective="cut")
        assert {method.solve(problem, stop=FREELY, seed=0).cost for method in EXACT} == {
            brute_force(problem)[0]
        }
