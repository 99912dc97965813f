"""Usage proofs hold for the checker, and stay below every plan with copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt import registry
from moeopt.api import solve
from moeopt.checker import check_layer
from moeopt.cluster import Cluster
from moeopt.generator import Generator
from moeopt.problem import Problem
from moeopt.relaxations.counting import counting_proof
from moeopt.relaxations.usage import Prices, Usage, usage_proof
from moeopt.stop import Clock, Stop
from moeopt.testing import brute_force
from tests.replica_strategies import replica_problems


def rounds(count: int) -> Clock:
    return Stop(seconds=None, candidates=count).start()


def small(**rules: object) -> Problem:
    trace = Generator(layers=1, experts=12, top_k=4, tokens=600, seed=3).generate()
    return Problem.from_trace(trace, Cluster.of(gpus=4, slots=4), replicas=4, **rules)  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(unequal=True, nodes=True))
def test_no_plan_costs_less_and_the_checker_agrees(problem: Problem) -> None:
    least, _ = brute_force(problem)
    proof = usage_proof(problem, clock=rounds(40), seed=0, cost=None)
    if proof is None:
        with pytest.raises(ValueError, match="usage prices"):
            Usage.of(problem)
        return
    assert check_layer(problem, proof, placement=None) == ""
    assert least is None or proof.bound <= least


@pytest.mark.parametrize("tolerance", [None, "0.1"])
def test_it_proves_more_the_longer_it_climbs(tolerance: str | None) -> None:
    problem = small(load_tolerance=tolerance)
    bounds = [usage_proof(problem, clock=rounds(count), seed=0, cost=None) for count in (1, 20, 500)]
    assert None not in bounds
    first, second, last = (proof.bound for proof in bounds if proof is not None)
    assert first < second < last
    assert last > counting_proof(problem, cost=None).bound
    assert all(check_layer(problem, proof, placement=None) == "" for proof in bounds if proof is not None)


def test_a_load_tolerance_raises_it() -> None:
    free, even = (
        usage_proof(small(load_tolerance=tolerance), clock=rounds(300), seed=0, cost=None)
        for tolerance in (None, "0.02")
    )
    assert free is not None
    assert even is not None
    assert even.bound > free.bound


def test_what_it_does_not_bound_it_leaves_to_others() -> None:
    problem = small()
    assert usage_proof(replace(problem, tail="0"), clock=rounds(1), seed=0, cost=None) is None
    trace = Generator(layers=1, experts=64, top_k=4, tokens=200, seed=0).generate()
    large = Problem.from_trace(trace, Cluster.of(gpus=8, slots=9), replicas=8)
    with pytest.raises(ValueError, match=r"27,540,584,512 contents of a GPU, usage prices end at 1,000,000"):
        Usage.of(large)


def test_tables_and_contents_agree_with_a_count_by_hand() -> None:
    problem = small(load_tolerance="0.1")
    usage = Usage.of(problem)
    rng = np.random.default_rng(0)
    weights = usage.expert_weights
    prices = Prices(
        (rng.random(usage.members.shape) * 2 * usage.weights[:, None]).astype(np.int64),
        (rng.random(12) * weights).astype(np.int64),
        (rng.normal(size=12) * weights).astype(np.int64),
    )
    ((found, _),) = usage.worth(prices, weights=usage.weights, levels=[1])
    (part,) = usage.listings
    for row in rng.permutation(len(part.rows))[:50]:
        content, marks = part.contents[part.rows[row]], part.marks[row]
        sole = content[(marks >> np.arange(4) & 1) == 1]
        others = np.setdiff1d(content, sole)
        forced = np.isin(usage.members, sole).sum(axis=1)
        saved = np.maximum(0, prices.members - usage.tokens[:, None])
        net = (
            usage.weights
            + forced * usage.tokens
            - np.where(np.isin(usage.members, others), saved, 0).sum(axis=1)
        )
        worth = np.where(forced > 0, net, np.minimum(0, net)).sum() - usage.cap
        assert found[row] == worth - prices.sole[sole].sum() - prices.copies[others].sum()


def test_every_marked_content_is_listed_that_can_be_loaded_so() -> None:
    usage = Usage.of(small(load_tolerance="0.1"))
    (part,) = usage.listings
    assert usage.told.all()
    loads = np.zeros(12, np.int64)
    np.add.at(loads, usage.members, usage.tokens[:, None])
    marked = part.marks[:, None] >> np.arange(4) & 1
    listed = set(zip(part.rows.tolist(), part.marks.tolist(), strict=True))
    assert len(listed) == len(part.rows)
    assert ((marked * loads[part.contents[part.rows]]).sum(axis=1) <= usage.cap).all()
    every = (np.arange(16)[:, None] >> np.arange(4) & 1) @ loads[part.contents].T
    assert len(listed) == (every <= usage.cap).sum()


def test_without_replicas_every_copy_is_an_only_one_and_the_bound_is_near() -> None:
    problem = replace(small(), replicas=0, cluster=Cluster.of(gpus=4, slots=3))
    proof = usage_proof(problem, clock=rounds(400), seed=0, cost=None)
    assert proof is not None
    assert proof.numbers["told_apart"] == list(range(12))
    optimum = solve(problem, registry.named_method("blocks"), stop=Stop(seconds=60)).cost
    assert optimum is not None
    assert 0.9 * optimum < proof.bound <= optimum
