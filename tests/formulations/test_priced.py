"""Priced blocks prove what listed blocks and brute force say, and sizes that no list reaches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from moeopt import priced_partition
from moeopt.balance import lightest
from moeopt.block_range import BlockRange
from moeopt.checker import check_layer, verify
from moeopt.cluster import Cluster
from moeopt.exact import Exact
from moeopt.formulation import ByPricing
from moeopt.heuristics.linear import Linear
from moeopt.problem import Problem
from moeopt.samples import sample
from moeopt.set_partition import Verdict
from moeopt.solvers.door import Session
from moeopt.stop import Stop
from moeopt.testing import brute_force, check_formulation
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks
from moeopt_formulations.priced import Priced
from tests.problem_strategies import problems

PRICED = Priced()
EXACT = Exact(PRICED)
FREELY = Stop(seconds=None)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def clustered(experts: int, *, k: int, size: int, tokens: int = 3_000, seed: int = 0) -> Trace:
    """Tokens that keep to a group of experts, mostly; groups interleave so that no default finds them."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(experts).reshape(-1, size)
    rows = []
    for _ in range(tokens):
        weights = np.full(experts, 0.1)
        weights[groups[rng.integers(len(groups))]] = 2.0
        rows.append([rng.choice(experts, k, replace=False, p=weights / weights.sum())])
    return Trace(np.array(rows), experts)


def test_it_offers_a_range() -> None:
    assert isinstance(PRICED, ByPricing)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems())
def test_the_proved_cost_is_that_of_brute_force(problem: Problem) -> None:
    if PRICED.supports(problem):
        return
    least, _ = brute_force(problem)
    result = EXACT.solve(problem, stop=FREELY, seed=0)
    if least is None:
        assert (result.status, result.placement, result.bound) == ("infeasible-claimed", None, None)
        return
    assert result.status == "certified-optimal", result.message
    assert result.cost == result.bound == least
    assert result.certificate is not None
    assert check_layer(problem, result.certificate.proofs[0], placement=result.placement) == ""


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(most_experts=6))
def test_where_contents_can_be_listed_its_statement_is_that_of_blocks(
    problem: Problem, session: Session
) -> None:
    if not PRICED.supports(problem):
        check_formulation(PRICED, [problem], session=session)


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
@pytest.mark.parametrize("tolerance", [None, "0.05"])
def test_it_agrees_with_listed_blocks_at_sixteen_experts(objective: str, tolerance: str | None) -> None:
    trace = clustered(16, k=4, size=4)
    for cluster in (Cluster.of(gpus=4, slots=4), Cluster.of(gpus=3, slots=6), Cluster.of(gpus=2, slots=8)):
        problem = Problem.from_trace(trace, cluster, objective=objective, load_tolerance=tolerance)
        priced = EXACT.solve(problem, stop=FREELY, seed=1)
        listed = Exact(Blocks()).solve(problem, stop=FREELY, seed=1)
        assert (priced.status, priced.cost, priced.bound) == (listed.status, listed.cost, listed.bound)


def test_contents_that_no_list_holds_are_proved_and_verified() -> None:
    trace = clustered(48, k=4, size=8, tokens=2_000)
    problem = Problem.from_trace(trace, Cluster.of(gpus=6, slots=8))
    assert "enumeration ends" in Blocks().supports(problem)
    result = EXACT.solve(problem, stop=FREELY, seed=0)
    assert result.status == "certified-optimal", result.message
    assert result.certificate is not None
    assert verify(result.certificate.to_dict(), trace).accepted
    with pytest.raises(ValueError, match="377,348,994 contents of 8 experts, enumeration ends at 12,000,000"):
        PRICED.build(problem)


def test_a_certificate_proves_no_more_than_its_numbers_do() -> None:
    trace = clustered(16, k=4, size=4)
    problem = Problem.from_trace(trace, Cluster.of(gpus=4, slots=4))
    result = EXACT.solve(problem, stop=FREELY, seed=0)
    assert result.certificate is not None
    (proof,) = result.certificate.proofs
    assert proof.kind == "priced"
    numbers = dict(proof.numbers)
    dearer = {**numbers, "prices": [numbers["prices"][0] + numbers["scale"], *numbers["prices"][1:]]}
    raised = {**dearer, "dual": numbers["dual"] + numbers["scale"]}
    for altered in (dearer, raised):
        assert check_layer(problem, replace(proof, numbers=altered), placement=result.placement)
    below = replace(proof, bound=proof.bound - 1, optimal=False)
    assert check_layer(problem, below, placement=result.placement)


def test_any_start_leads_to_the_same_proof() -> None:
    problem = Problem.from_trace(clustered(20, k=3, size=5), Cluster.of(gpus=4, slots=5))
    linear = Linear().solve(problem, stop=Stop(seconds=None, candidates=1), seed=0).placement
    costs = {EXACT.solve(problem, stop=FREELY, seed=seed, start=linear).cost for seed in range(3)}
    assert costs == {EXACT.solve(problem, stop=FREELY, seed=0).cost}


def test_what_it_does_not_state_it_refuses_with_the_number() -> None:
    trace = clustered(36, k=3, size=6, tokens=100)
    assert "found slots for 18" in PRICED.supports(Problem.from_trace(trace, Cluster.of(gpus=2, slots=18)))
    copies = Problem.from_trace(trace, Cluster.of(gpus=6, slots=7), replicas=2)
    assert "replicas are 2" in PRICED.supports(copies)


def test_families_that_weigh_nothing_leave_numbers_that_the_checker_can_add_up() -> None:
    sets = [[1, 2, 3], [1, 2, 3], [1, 2, 4], [1, 3, 4], [2, 3, 4], [2, 3, 4], [2, 3, 4], [2, 3, 4]]
    family = np.array([0, 1, 0, 1, 0, 1, 1, 1], np.uint8)
    trace = Trace(np.array(sets)[:, None, :], 5, families=("code", "math"), family=family)
    problem = Problem.from_trace(trace, Cluster.of(gpus=3, slots=2), family_weights={"code": 1, "math": 0})
    least, _ = brute_force(problem)
    for seed in range(3):
        result = EXACT.solve(problem, stop=FREELY, seed=seed)
        assert (result.status, result.cost) == ("certified-optimal", least), result.message


def test_prices_begin_at_a_placement_that_swaps_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the placement of the most even loads alone they may never come near the relaxation's."""
    problem = Problem.from_trace(sample("tiny-moe").layers([0]), Cluster.of(gpus=8, slots=4))
    begun: list[int] = []

    def prove(blocks: BlockRange, *, gpu_of: NDArray[np.int64], **_: object) -> Verdict:
        begun.append(problem.cost(problem.partition(gpu_of)))
        return Verdict()

    monkeypatch.setattr(priced_partition, "prove_priced", prove)
    result = Exact(Priced()).solve(problem, stop=FREELY, seed=0)
    assert begun == [result.cost]
    assert begun[0] < problem.cost(lightest(problem))
