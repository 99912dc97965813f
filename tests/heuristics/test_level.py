"""The load of the fullest GPU as the objective: judged exactly, bounded, lowered, and certified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt import registry
from moeopt.certificate import Certificate
from moeopt.checker import check_layer
from moeopt.cluster import Cluster
from moeopt.heuristics.level import Level
from moeopt.load_counts import load_workload
from moeopt.method import refusal
from moeopt.objectives import least_fullest
from moeopt.problem import Problem
from moeopt.relaxations.counting import counting_proof
from moeopt.splitting import SplitProblem
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload

FREELY = Stop(seconds=None)
LEVELLERS = ("auto", "eplb", "frequency", "level", "linear", "lpt", "random", "round-robin")


@st.composite
def even_problems(draw: st.DrawFn) -> Problem:
    """Loads of two families on few GPUs, with room for copies now and then."""
    experts, gpus = draw(st.integers(2, 6)), draw(st.integers(2, 3))
    replicas = draw(st.integers(0, 2))
    slots = -(-(experts + replicas) // gpus) + draw(st.integers(0, 1))
    loads = np.array(draw(st.lists(st.tuples(*[st.integers(0, 9)] * 2), min_size=experts, max_size=experts)))
    workload = load_workload(loads[None] + [1, 1], layer_ids=[3], families=("code", "math"), top_k=2)
    weights = draw(st.sampled_from([None, {"code": 2.0, "math": 1.0}]))
    room = min(replicas, gpus * min(slots, experts) - experts)
    return Problem(
        workload, Cluster.of(gpus=gpus, slots=slots), room, objective="load", family_weights=weights
    )


@settings(max_examples=60, deadline=None)
@given(problem=even_problems())
def test_no_placement_is_more_even_than_the_bound_nor_level_than_the_best(problem: Problem) -> None:
    best = min(problem.cost(placement) for placement in problem.candidates())
    result = Level().solve(problem, stop=FREELY, seed=0)
    assert result.cost is not None
    assert least_fullest(problem) <= best <= result.cost


@settings(max_examples=60, deadline=None)
@given(problem=even_problems())
def test_what_auto_says_is_certified_and_a_higher_bound_is_refused(problem: Problem) -> None:
    result = mo.solve(problem, "auto", stop=Stop(seconds=None), seed=1)
    assert result.certificate is not None
    assert mo.verify(result.certificate, problem.workload).accepted
    assert result.bound == least_fullest(problem)
    assert (result.status == "certified-optimal") == (result.cost == result.bound)
    (proof,) = result.certificate.proofs
    forged = replace(proof, bound=proof.bound + 1, cost=None, optimal=False)
    assert "shares prove a load of" in check_layer(problem, forged, placement=None)
    other = replace(proof, kind="blocks", cost=None, optimal=False)
    assert "says nothing of the load" in check_layer(problem, other, placement=None)


@settings(max_examples=60, deadline=None)
@given(problem=even_problems(), seed=st.integers(0, 99))
def test_the_cost_is_the_fullest_gpu_of_the_best_split(problem: Problem, seed: int) -> None:
    placement = registry.named_method("eplb").solve(problem, stop=FREELY, seed=seed).placement
    assert placement is not None
    (sets,) = problem.workload.layers
    split, _ = SplitProblem(sets.counts @ problem.multipliers, placement.hosts[0]).solve()
    assert problem.cost(placement) == split.gpu_loads.max()


@settings(max_examples=30, deadline=None)
@given(problem=even_problems(), seed=st.integers(0, 3))
def test_the_same_seed_gives_the_same_placement_and_a_start_is_kept(problem: Problem, seed: int) -> None:
    first, again = (Level().solve(problem, stop=FREELY, seed=seed) for _ in range(2))
    assert (first.placement, first.cost) == (again.placement, again.cost)
    start = registry.named_method("linear").solve(problem, stop=FREELY, seed=0)
    assert start.cost is not None
    found = Level(kicks=0).solve(problem, stop=FREELY, seed=seed, start=start.placement)
    assert found.cost is not None
    assert found.cost <= start.cost


def test_loads_alone_cost_what_the_trace_costs() -> None:
    rng = np.random.default_rng(0)
    ids = np.argsort(rng.random((200, 1, 8)) ** np.linspace(1, 4, 8), axis=2)[:, :, :2]
    whole = Workload.from_trace(Trace(ids, 8))
    loads = load_workload(whole.layers[0].load[None], layer_ids=[0], top_k=2)
    cluster = Cluster.of(gpus=4, slots=3)
    for name in ("eplb", "level", "linear"):
        costs = {
            mo.solve(Problem(traffic, cluster, 3, objective="load"), name, stop=FREELY, seed=0).cost
            for traffic in (whole, loads)
        }
        assert len(costs) == 1


def test_level_is_never_less_even_than_eplb_and_copies_reach_an_equal_share() -> None:
    loads = np.floor(np.random.default_rng(1).lognormal(0, 1.2, (1, 64)) * 1000)
    problem = Problem(
        load_workload(loads, layer_ids=[0]), Cluster.of(gpus=8, slots=9), replicas=8, objective="load"
    )
    eplb, level = (mo.solve(problem, name, stop=FREELY, seed=0).cost for name in ("eplb", "level"))
    assert eplb is not None
    assert level is not None
    assert level < eplb
    assert level == least_fullest(problem) == -(-int(loads.sum()) // 8)


def test_methods_of_other_objectives_refuse_the_load_with_the_reason() -> None:
    problem = Problem(
        load_workload([[4, 3, 2, 1]], layer_ids=[0]), Cluster.of(gpus=2, slots=2), objective="load"
    )
    for method in registry.all_methods():
        reason = refusal(method, problem)
        assert (reason == "") == (method.name in LEVELLERS), method.name
        if reason:
            assert reason.endswith("the objective is load")
            with pytest.raises(ValueError, match=r"does not treat this problem: lowers .*objective is load"):
                mo.solve(problem, method, stop=FREELY, seed=0)
        else:
            assert mo.solve(problem, method, stop=FREELY, seed=0).cost is not None


@pytest.mark.parametrize(
    ("fields", "cluster", "message"),
    [
        ({"load_tolerance": "0.1"}, Cluster.of(gpus=2, slots=2), "load_tolerance must be None, found 0.1"),
        ({"tail": 0}, Cluster.of(gpus=2, slots=2), "tail must be None, found 0"),
        ({}, Cluster.of(gpus=2, slots=2, speeds=(2, 1)), "GPUs of equal speed, found 1 to 2"),
    ],
)
def test_what_the_load_cannot_be_asked_with_is_named(
    fields: dict[str, object], cluster: Cluster, message: str
) -> None:
    workload = load_workload([[4, 3, 2, 1]], layer_ids=[0])
    with pytest.raises(ValueError, match=message):
        Problem(workload, cluster, objective="load", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
def test_loads_alone_do_not_tell_who_goes_together(objective: str) -> None:
    with pytest.raises(ValueError, match=r"in layer 7 only the loads of the experts are recorded"):
        Problem(load_workload([[4, 3]], layer_ids=[7]), Cluster.of(gpus=2, slots=1), objective=objective)


def test_kicks_are_counted_from_nought() -> None:
    with pytest.raises(ValueError, match="kicks must be at least 0, found -1"):
        Level(kicks=-1)


def test_a_proof_of_the_load_comes_back_from_its_document() -> None:
    workload = load_workload([[4, 3, 2, 1]], layer_ids=[0])
    problem = Problem(workload, Cluster.of(gpus=2, slots=2), objective="load")
    proof = counting_proof(problem, cost=None)
    document = Certificate.of_layer(problem, proof, placement=None).to_dict()
    assert mo.verify(document, workload).accepted
    assert proof.bound == 5


def test_more_tokens_than_whole_weights_can_tell_apart_are_refused() -> None:
    loads = np.full((1, 8, 2), 2**44)
    workload = load_workload(loads, layer_ids=[0], families=("a", "b"))
    with pytest.raises(ValueError, match="too many tokens for whole family weights"):
        Problem(workload, Cluster.of(gpus=4, slots=2), objective="load", family_weights={"a": 3.0, "b": 7.0})
    assert Problem(workload, Cluster.of(gpus=4, slots=2), objective="load").multipliers.tolist() == [1, 1]


def test_weights_of_families_need_layers_that_count_the_same_traffic() -> None:
    loads = np.array([[[40, 1], [1, 40]], [[1, 400], [400, 1]]])
    uneven = load_workload(loads, layer_ids=[2, 5], families=("a", "b"))
    weights = {"a": 1.0, "b": 1.0}
    with pytest.raises(
        ValueError, match=r"layer 5 counts \[401, 401\] activations by family, layer 2 \[41, 41\]"
    ):
        Problem(uneven, Cluster.of(gpus=2, slots=1), objective="load", family_weights=weights)
    assert Problem(uneven, Cluster.of(gpus=2, slots=1), objective="load").load_caps is None
