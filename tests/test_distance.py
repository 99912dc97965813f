"""A placement in use against the best: no bound above a cost, and a certificate that verifies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt.method import Heuristic
from moeopt.problem import Problem
from moeopt.stop import Clock
from moeopt.testing import brute_force
from tests.problem_strategies import any_problems, copies_of, placement_of, problems

FEW = mo.Stop(seconds=None, candidates=20)
FREELY = mo.Stop(seconds=None)
TRACE = mo.Generator(
    layers=2, experts=8, top_k=2, tokens=300, requests=12, groups=3, group_size=3, seed=1
).generate()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=2))


def linear() -> mo.Placement:
    return PROBLEM.partition(np.tile(np.arange(8) // 2, (2, 1)))


def best() -> mo.Placement:
    placement = mo.solve(PROBLEM, "blocks", stop=FREELY).placement
    assert placement is not None
    return placement


def mixed() -> mo.Placement:
    """The best placement in the first layer, the linear one in the second."""
    return mo.Placement.join([best().layer(0), linear().layer(1)])


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    problem=st.one_of(problems(most_experts=6), any_problems(extras=("replicas", "speeds"), most_experts=5)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_bound_is_at_most_the_least_cost_and_an_admissible_placement_is_at_least_that_far(
    problem: Problem, seed: int
) -> None:
    if problem.replicas:
        problem = replace(problem, load_tolerance=None)  # their brute force lists every dispatch
    rng = np.random.default_rng(seed)
    hosts = copies_of(
        rng, problem.cluster.slots_of, experts=problem.workload.n_experts, replicas=problem.replicas
    )
    running = placement_of(problem, hosts)
    found = mo.certify(
        running,
        problem.workload,
        objective=problem.objective,
        family_weights=problem.family_weights,
        load_tolerance=problem.load_tolerance,
        gpu_cost=problem.cluster.gpu_cost,
        node_cost=problem.cluster.node_cost,
        speeds=problem.cluster.speeds,
        replicas=problem.replicas,
        stop=FEW,
    )
    assert found.problem.digest == problem.digest
    assert found.cost == problem.cost(running)
    assert found.broken == problem.violation(running)
    (layer,) = found.layers
    least, _ = brute_force(problem)
    if found.bound is not None and least is not None:
        assert found.bound <= least
    if found.broken:
        assert (found.distance, found.share) == (None, None)
        assert found.status in ("inadmissible", "infeasible-claimed", "none-found")
        try:
            looser = replace(problem, load_tolerance=layer.tolerance)
        except ValueError:
            return
        assert problem.replicas or not looser.violation(running)
        return
    assert least is not None
    assert layer.best_cost is not None
    assert least <= layer.best_cost <= found.cost
    if found.bound is not None:
        assert found.distance == found.cost - found.bound >= 0
        assert (found.status == "certified-optimal") == (found.distance == 0)
    if found.certificate is not None:
        verdict = mo.verify(found.certificate, problem.workload)
        assert verdict.accepted, verdict.reason
        assert found.certificate.placement == found.result.placement
    if found.better is not None:
        assert problem.cost(found.better) < found.cost or problem.replicas


def test_the_best_placement_is_certified_as_it_stands() -> None:
    found = mo.certify(best(), TRACE, stop=FREELY)
    assert (found.status, found.distance, found.share, found.better) == ("certified-optimal", 0, 1.0, None)
    assert found.certificate is not None
    assert found.certificate.placement == best()
    assert found.problem.digest == PROBLEM.digest
    assert found.message.startswith("4 GPUs of 2 slots as in the placement; swap search, then proof by ")


def test_where_a_layer_can_be_better_the_certificate_has_the_better_one() -> None:
    found = mo.certify(mixed(), TRACE, stop=FREELY)
    first, second = found.layers
    assert (first.status, first.distance) == ("certified-optimal", 0)
    assert (second.status, second.result.status) == ("certified-gap", "certified-optimal")
    assert found.status == "certified-gap"
    assert found.cost == PROBLEM.cost(mixed())
    assert second.best_cost == second.bound == second.cost - (second.distance or 0)
    assert found.distance == second.distance
    assert found.share is not None
    assert second.share is not None
    assert second.share < found.share < 1
    assert found.better is not None
    assert found.better.layer(0) == mixed().layer(0)
    assert PROBLEM.cost(found.better) == found.bound
    assert found.certificate is not None
    assert found.certificate.placement == found.better
    assert mo.verify(found.certificate, TRACE).accepted


def test_a_broken_tolerance_is_named_with_its_size_and_the_rule_is_still_proved() -> None:
    loads = PROBLEM.workload.layers[0].load
    crowded = np.argsort(np.argsort(-loads, kind="stable"), kind="stable") // 2  # the busiest two share a GPU
    running = PROBLEM.partition(np.tile(crowded, (2, 1)))
    found = mo.certify(running, TRACE, load_tolerance=0.3, stop=FREELY)
    assert found.status == "inadmissible"
    assert "layer 0: GPU 0 serves" in found.broken
    assert "load tolerance 0.3 allows" in found.broken
    assert (found.distance, found.share) == (None, None)
    assert found.layers[0].tolerance > 0.3
    assert found.layers[0].tolerance == pytest.approx(found.layers[0].max_over_mean - 1, abs=2e-4)
    assert mo.certify(running, TRACE, load_tolerance=found.tolerance, stop=FREELY).broken == ""
    assert found.better is not None
    assert found.problem.violation(found.better) == ""
    assert found.bound == found.result.cost
    assert found.certificate is not None
    assert mo.verify(found.certificate, TRACE).accepted


def test_copies_are_those_of_the_fullest_layer_unless_more_are_asked_for() -> None:
    hosts = linear().hosts.copy()
    hosts[1, 0, 3] = True
    running = mo.Placement(hosts, hosts.argmax(axis=2), 1, 3, (0, 1), "other")
    found = mo.certify(running, TRACE, method="replicate", stop=FEW)
    assert found.problem.replicas == 1
    assert found.status == "feasible"
    assert (found.bound, found.distance, found.share, found.certificate) == (None, None, None, None)
    assert found.message == (
        "4 GPUs of 3 slots as in the placement, 1 copies a layer (1 layers have fewer); "
        "the placement is of model 'other', the trace of 'synthetic'"
    )
    assert mo.certify(running, TRACE, method="replicate", replicas=2, stop=FEW).problem.replicas == 2
    with pytest.raises(ValueError, match="replicas must be at least the 1 of layer 1, found 0"):
        mo.certify(running, TRACE, replicas=0)
    with pytest.raises(ValueError, match="the cut is defined for partitions"):
        mo.certify(running, TRACE, objective="cut")


def test_layers_and_prices_are_those_asked_for() -> None:
    two_nodes = replace(best(), nodes=2)
    found = mo.certify(two_nodes.layer(1), TRACE, node_cost=5, stop=FEW)
    assert [layer.layer_id for layer in found.layers] == [1]
    assert found.problem.cluster == mo.Cluster(2, 2, 2, node_cost=5)
    assert "on 2 nodes" in found.message
    assert found.bound is not None
    assert found.bound <= found.cost


@dataclass(frozen=True)
class Impatient(Heuristic):
    """Meets an interrupt at once."""

    name = "impatient"
    summary = "interrupted"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: mo.Placement | None
    ) -> Iterator[mo.Placement]:
        raise KeyboardInterrupt
        yield


def test_after_an_interrupt_the_placement_in_use_is_the_best_known() -> None:
    heard: list[mo.Result] = []
    found = mo.certify(linear(), TRACE, method=Impatient(), on_layer=heard.append)
    assert len(heard) == 1
    assert found.status == found.result.status == "interrupted"
    assert found.result.cost is not None
    assert found.result.cost <= found.cost
    assert (found.bound, found.distance, found.share) == (None, None, None)


@dataclass(frozen=True)
class Forgetful(mo.Method):
    """Blocks that ignore the start and hand in the linear placement with the bound."""

    bound: int | None = None
    name = "forgetful"
    summary = "loses what it is given"

    def solve(
        self, problem: Problem, *, stop: mo.Stop, seed: int, start: mo.Placement | None = None
    ) -> mo.Result:
        proved = mo.solve(problem, "blocks", stop=stop, seed=seed).layers[0]
        assert proved.certificate is not None
        held = problem.partition(np.arange(problem.workload.n_experts) // 2)
        cost = problem.cost(held)
        (proof,) = proved.certificate.proofs
        proof = replace(
            proof, cost=cost, optimal=False, bound=proof.bound if self.bound is None else self.bound
        )
        certificate = replace(proved.certificate, proofs=(proof,), placement=held)
        return replace(
            proved,
            status="certified-gap",
            placement=held,
            cost=cost,
            bound=proof.bound,
            certificate=certificate,
        )


def test_the_placement_in_use_is_kept_where_a_method_loses_it() -> None:
    found = mo.certify(best(), TRACE, method=Forgetful(), stop=FREELY)
    assert (found.status, found.result.status) == ("certified-optimal", "certified-optimal")
    assert found.certificate is not None
    assert found.certificate.placement == best()
    assert mo.verify(found.certificate, TRACE).accepted


def test_a_bound_above_the_cost_is_a_disagreement() -> None:
    found = mo.certify(best(), TRACE, method=Forgetful(bound=10**9), stop=FREELY)
    assert found.status == "disagreement"
    assert "exceeds the cost" in found.message


def test_bad_input_is_refused_by_rule() -> None:
    other = mo.Generator(layers=2, experts=6, top_k=2, tokens=50, requests=4, group_size=3).generate()
    with pytest.raises(ValueError, match="the placement has 8 experts a layer, the trace 6"):
        mo.certify(linear(), other)
    with pytest.raises(ValueError, match="layer 7 is not in the trace"):
        mo.certify(replace(linear(), layer_ids=(0, 7)), TRACE)
    with pytest.raises(ValueError, match=r"distinct and ascending, found \[1, 0\]"):
        mo.certify(replace(linear(), layer_ids=(1, 0)), TRACE)
    with pytest.raises(ValueError, match="layer 0: GPU 0 holds 2 experts, its slots are 1"):
        mo.certify(replace(linear(), slots=1), TRACE)
    with pytest.raises(ValueError, match="known are"):
        mo.certify(linear(), TRACE, method="magic")
