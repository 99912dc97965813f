"""TACG: preferences of experts for families, the gated graph, and what becomes of it without families."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.family_graphs import NORMALISERS, FamilyGraphs
from moeopt.heuristics.spectral import Spectral
from moeopt.heuristics.tacg import Tacg
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Stop
from moeopt.trace import Trace
from tests.problem_strategies import problems
from tests.strategies import traces

FREELY = Stop(seconds=None)


def placed(method: Spectral, problem: Problem, seed: int = 0) -> Placement:
    placement = method.solve(problem, stop=FREELY, seed=seed).placement
    assert placement is not None
    return placement


def groups(placement: Placement) -> set[frozenset[int]]:
    """Experts that share a GPU, whatever its name."""
    gpus = set(placement.primary[0].tolist())
    return {frozenset(np.flatnonzero(placement.primary[0] == gpu).tolist()) for gpu in gpus}


def traced(*, families: int, experts: int = 12, k: int = 3, tokens: int = 240, seed: int = 0) -> Trace:
    """Tokens of each family drawn by a taste of its own."""
    rng = np.random.default_rng(seed)
    taste = rng.dirichlet(np.ones(experts) * 0.7, families) + 0.01
    taste /= taste.sum(axis=1, keepdims=True)
    family = np.arange(tokens) % families
    chosen = np.array([rng.choice(experts, k, replace=False, p=taste[own]) for own in family])
    names = tuple(f"family {index}" for index in range(families))
    return Trace(chosen[:, None, :], experts, families=names, family=family.astype(np.uint8))


def example(*, families: int = 3, cluster: Cluster | None = None, seed: int = 0) -> Problem:
    return Problem.from_trace(traced(families=families, seed=seed), cluster or Cluster(1, 4, 3))


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([(row - row.mean()) / row.std() for row in values])


@settings(max_examples=60, deadline=None)
@given(problem=problems(), seed=st.integers(0, 9), normaliser=st.sampled_from(NORMALISERS))
def test_groups_have_the_equal_sizes_that_slots_allow(problem: Problem, seed: int, normaliser: str) -> None:
    free = replace(problem, load_tolerance=None)
    method = Tacg(normaliser=normaliser, seeds=2)
    placement = placed(method, free, seed)
    assert free.violation(placement) == ""
    sizes = np.bincount(placement.primary[0], minlength=free.cluster.gpus)
    assert sizes.tolist() == equal_sizes(free.workload.n_experts, free.cluster.slots_of).tolist()
    assert placed(method, free, seed) == placement


@pytest.mark.parametrize("cluster", [Cluster(1, 4, (2, 5, 3, 2)), Cluster(1, 5, 3), Cluster(1, 3, (2, 2, 9))])
def test_slots_that_differ_and_experts_that_do_not_divide(cluster: Cluster) -> None:
    problem = example(cluster=cluster)
    sizes = np.bincount(placed(Tacg(), problem).primary[0], minlength=cluster.gpus)
    assert sizes.tolist() == equal_sizes(12, cluster.slots_of).tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_a_single_family_leaves_the_spectral_clusters(seed: int, alpha: float) -> None:
    problem = example(families=1, seed=seed)
    assert groups(placed(Tacg(alpha=alpha), problem, seed)) == groups(placed(Spectral(), problem, seed))
    unnamed = Problem.from_trace(
        Trace(traced(families=2, seed=seed).experts, 12), problem.cluster
    )  # no family names: all tokens are of one
    assert groups(placed(Tacg(alpha=alpha), unnamed, seed)) == groups(placed(Spectral(), unnamed, seed))


@pytest.mark.parametrize("seed", range(4))
def test_without_the_kernel_or_with_equal_tastes_it_is_the_spectral_clusters(seed: int) -> None:
    problem = example(seed=seed)
    assert groups(placed(Tacg(alpha=0.0), problem, seed)) == groups(placed(Spectral(), problem, seed))
    one = traced(families=1, seed=seed)
    twice = replace(
        one,
        experts=np.concatenate([one.experts, one.experts]),
        families=("a", "b"),
        family=np.repeat([0, 1], one.n_tokens).astype(np.uint8),
        request=np.zeros(2 * one.n_tokens, np.int32),
        position=np.arange(2 * one.n_tokens, dtype=np.int32),
        phase=np.zeros(2 * one.n_tokens, np.uint8),
    )
    alike = Problem.from_trace(twice, problem.cluster)
    assert np.allclose(FamilyGraphs.of(alike).preferences(tau=1.0), 0.5)
    assert groups(placed(Tacg(), alike, seed)) == groups(placed(Spectral(), alike, seed))


def test_a_family_without_tokens_is_as_good_as_absent() -> None:
    trace = traced(families=2)
    shifted = (trace.family * 2).astype(np.uint8)
    more = replace(trace, families=("family 0", "silent", "family 1", "mute"), family=shifted)
    cluster = Cluster(1, 4, 3)
    known, padded = Problem.from_trace(trace, cluster), Problem.from_trace(more, cluster)
    assert (FamilyGraphs.of(known).affinity == FamilyGraphs.of(padded).affinity).all()
    assert placed(Tacg(), known) == placed(Tacg(), padded)
    assert placed(Tacg(pooling="objective"), known) == placed(Tacg(pooling="objective"), padded)


def test_with_frequencies_degrees_repeat_usage_and_with_cosines_they_do_not() -> None:
    """Every token brings an expert k - 1 partners: c = (k - 1) u, and the score is 2 z(du)."""
    problem = example()
    frequency = FamilyGraphs.of(problem)
    assert np.allclose(frequency.affinity.sum(axis=2), 2 * frequency.usage)
    mean_of_others = (frequency.usage.sum(axis=0) - frequency.usage) / 2
    score = 2 * standardised(frequency.usage - mean_of_others)
    share = np.exp(score) / np.exp(score).sum(axis=0)
    assert np.allclose(frequency.preferences(tau=1.0), share)
    for normaliser in ("cosine", "lift"):
        other = FamilyGraphs.of(problem, normaliser=normaliser)
        degree = other.affinity.sum(axis=2)
        advantage = degree - (degree.sum(axis=0) - degree) / 2
        score = standardised(frequency.usage - mean_of_others) + standardised(advantage)
        found = other.preferences(tau=0.5)
        assert np.allclose(found, np.exp(2 * score) / np.exp(2 * score).sum(axis=0))
        assert not np.allclose(found, frequency.preferences(tau=0.5))


def advantage(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """float [families, experts]: each family less the mean of the others."""
    return np.array([own - np.delete(values, index, axis=0).mean(axis=0) for index, own in enumerate(values)])


@settings(max_examples=40, deadline=None)
@given(trace=traces(max_layers=1, max_k=4, max_tokens=60))
def test_by_frequency_the_advantage_in_degree_says_nothing_that_usage_does_not(trace: Trace) -> None:
    """A token of expert e makes k - 1 pairs with it: c = (k - 1) u, so dc = (k - 1) du and z(dc) = z(du)."""
    graphs = FamilyGraphs.of(Problem.from_trace(trace, Cluster(1, 4, 8)))
    degree = graphs.affinity.sum(axis=2)
    assert np.allclose(degree, (trace.top_k - 1) * graphs.usage)
    assert np.allclose(graphs.pooled.sum(axis=1), (trace.top_k - 1) * graphs.usage.mean(axis=0))
    if len(degree) > 1 and trace.top_k > 1:
        du, dc = advantage(graphs.usage), advantage(degree)
        told_apart = du.std(axis=1) > 1e-6
        assert np.allclose(standardised(dc[told_apart]), standardised(du[told_apart]))


@pytest.mark.parametrize("normaliser", ["cosine", "lift"])
def test_otherwise_normalised_degrees_rank_experts_as_usage_does_not(normaliser: str) -> None:
    plain = FamilyGraphs.of(example())
    graphs = FamilyGraphs.of(example(), normaliser=normaliser)
    du, dc = advantage(graphs.usage), advantage(graphs.affinity.sum(axis=2))
    assert (graphs.usage == plain.usage).all()
    assert np.abs(standardised(dc) - standardised(du)).max() > 0.5
    rank = [
        np.argsort(-values, kind="stable").tolist()
        for values in (graphs.usage[0], graphs.affinity[0].sum(axis=1))
    ]
    assert rank[0] != rank[1]


def test_without_coactivation_usage_alone_makes_preferences_and_every_pair_weighs_the_same() -> None:
    problem = example()
    graphs = FamilyGraphs.of(problem, normaliser="uniform")
    assert (graphs.affinity == 1 - np.eye(12)).all()
    assert (graphs.pooled == 1 - np.eye(12)).all()
    score = standardised(advantage(graphs.usage))
    assert np.allclose(graphs.preferences(tau=1.0), np.exp(score) / np.exp(score).sum(axis=0))
    assert placed(Tacg(normaliser="uniform"), problem) != placed(Tacg(), problem)


def test_unknown_graphs_are_refused() -> None:
    with pytest.raises(ValueError, match="normaliser must be one of frequency, cosine, lift, uniform, found"):
        FamilyGraphs.of(example(), normaliser="pmi")
    with pytest.raises(ValueError, match="pooling must be one of families, objective, found 'sum'"):
        FamilyGraphs.of(example(), pooling="sum")


def test_normalised_graphs_are_those_of_their_names() -> None:
    problem = example()
    plain, cosine, lift = (FamilyGraphs.of(problem, normaliser=name) for name in NORMALISERS[:3])
    product = plain.usage[:, :, None] * plain.usage[:, None, :]
    assert np.allclose(cosine.affinity * np.sqrt(product), plain.affinity)
    assert np.allclose(lift.affinity * product, plain.affinity)
    assert (np.diagonal(plain.affinity, axis1=1, axis2=2) == 0).all()


def test_shares_sum_to_one_and_sharpen_as_tau_falls() -> None:
    graphs = FamilyGraphs.of(example())
    soft, sharp = graphs.preferences(tau=100.0), graphs.preferences(tau=0.01)
    assert np.allclose(soft.sum(axis=0), 1)
    assert np.allclose(soft, 1 / 3, atol=0.05)
    assert np.isfinite(sharp).all()
    assert (np.sort(sharp.max(axis=0))[1:] > 0.99).all()


def test_families_with_experts_of_their_own_keep_apart_on_gpus_of_their_own() -> None:
    """A few bridging tokens join experts of two families; the kernel weakens those edges."""
    rng = np.random.default_rng(0)
    halves = rng.permutation(8).reshape(2, 4)
    family = np.arange(200) % 2
    chosen = np.array([rng.choice(halves[own], 2, replace=False) for own in family])
    trace = Trace(chosen[:, None, :], 8, families=("code", "math"), family=family.astype(np.uint8))
    problem = Problem.from_trace(trace, Cluster(2, 2, 2, 1, 1))
    graphs = FamilyGraphs.of(problem)
    assert (graphs.preferences(tau=1.0).argmax(axis=0)[halves] == [[0], [1]]).all()
    placement = placed(Tacg(), problem)
    assert set(placement.primary[0][halves[0]].tolist()) == {0, 1}
    assert set(placement.primary[0][halves[1]].tolist()) == {2, 3}


def test_a_problem_with_copies_gets_one_of_each() -> None:
    problem = replace(example(cluster=Cluster(1, 4, 4)), replicas=3)
    assert placed(Tacg(), problem).is_partition


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"alpha": -0.1}, r"alpha must lie between 0 and 1, found -0\.1"),
        ({"alpha": float("nan")}, "alpha must lie between 0 and 1, found nan"),
        ({"tau": 0.0}, r"tau must be finite and above 0, found 0\.0"),
        ({"tau": float("inf")}, "tau must be finite and above 0, found inf"),
        ({"normaliser": "pmi"}, "normaliser must be one of"),
    ],
)
def test_bad_settings_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tacg(**asked)
