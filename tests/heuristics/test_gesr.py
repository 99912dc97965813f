"""GESR: copies of the best scored experts, within replicas and slots, on top of any placement of single copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import moeopt as mo
from moeopt.cluster import Cluster
from moeopt.family_graphs import NORMALISERS, FamilyGraphs
from moeopt.heuristics.eplb import Eplb
from moeopt.heuristics.frequency import Frequency
from moeopt.heuristics.gesr import SCORERS, SECONDARIES, Gesr, TacgGesr, generality, scores, single_copies
from moeopt.heuristics.grace import Grace
from moeopt.heuristics.linear import Linear
from moeopt.heuristics.lpt import Lpt
from moeopt.heuristics.metro import Metro
from moeopt.heuristics.migrate import Migrate
from moeopt.heuristics.occult import Occult
from moeopt.heuristics.random import Random
from moeopt.heuristics.sem_moe import SemMoe
from moeopt.heuristics.spectral import Spectral
from moeopt.heuristics.swap import Swap
from moeopt.heuristics.tacg import Tacg
from moeopt.method import Heuristic, Method
from moeopt.news import News, heard
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.registry import named_method
from moeopt.stop import Stop
from moeopt.trace import Trace
from tests.problem_strategies import any_problems

FREELY = Stop(seconds=None)


def placed(method: Method, problem: Problem, seed: int = 0) -> Placement:
    placement = method.solve(problem, stop=FREELY, seed=seed).placement
    assert placement is not None
    return placement


def example(*, replicas: int, slots: int | tuple[int, ...] = 5, tolerance: str | None = None) -> Problem:
    """300 tokens of two tastes, 12 experts on 4 GPUs, top-3."""
    rng = np.random.default_rng(0)
    taste = rng.dirichlet(np.ones(12), 2) + 0.02
    taste /= taste.sum(axis=1, keepdims=True)
    family = np.arange(300) % 2
    chosen = np.array([rng.choice(12, 3, replace=False, p=taste[own]) for own in family])
    trace = Trace(chosen[:, None, :], 12, families=("code", "math"), family=family.astype(np.uint8))
    return Problem.from_trace(trace, Cluster(1, 4, slots), replicas=replicas, load_tolerance=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    problem=any_problems(extras=("replicas", "speeds", "tail")),
    n_rep=st.integers(0, 4),
    k_sec=st.integers(0, 3),
)
def test_copies_keep_slots_and_both_budgets(problem: Problem, n_rep: int, k_sec: int) -> None:
    free = replace(problem, load_tolerance=None)
    placement = placed(TacgGesr(seeds=2, n_rep=n_rep, k_sec=k_sec), free)
    assert free.violation(placement) == ""
    copies = placement.hosts[0].sum(axis=1) - 1
    assert copies.sum() <= min(free.replicas, n_rep * k_sec)
    assert copies.max() <= k_sec
    assert np.count_nonzero(copies) <= n_rep
    assert (placement.primary == placed(Tacg(seeds=2), free).primary).all()


def test_without_replicas_it_is_tacg() -> None:
    problem = example(replicas=0)
    assert placed(TacgGesr(), problem) == placed(Tacg(), problem)


def test_copies_go_to_the_most_central_experts_where_their_partners_are() -> None:
    problem = example(replicas=5, slots=12)
    placement = placed(TacgGesr(), problem)
    graphs = FamilyGraphs.of(problem)
    ranked = np.argsort(-generality(graphs, lambda1=0.0, lambda2=0.0), kind="stable")
    copies = placement.hosts[0].sum(axis=1) - 1
    assert copies[ranked[:3]].tolist() == [2, 2, 1]
    assert copies.sum() == 5
    primary = placement.primary[0]
    for expert in ranked[:3]:
        pull = np.array([graphs.pooled[expert, primary == gpu].sum() for gpu in range(4)])
        pull[primary[expert]] = -1
        nearest = np.argsort(-pull)[: copies[expert]]
        assert set(np.flatnonzero(placement.hosts[0, expert]).tolist()) == {primary[expert], *nearest}


def test_replicas_beyond_the_published_number_stay_unused() -> None:
    problem = example(replicas=20, slots=8)
    assert placed(TacgGesr(n_rep=4), problem).hosts.sum() == 12 + 8
    assert placed(TacgGesr(), problem).hosts.sum() == 12 + 16


def test_copies_fill_unequal_slots_and_no_more() -> None:
    problem = example(replicas=4, slots=(3, 3, 3, 7))
    placement = placed(TacgGesr(), problem)
    assert problem.violation(placement) == ""
    assert placement.hosts[0, :, 3].sum() == 7


def test_more_replicas_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="replicas 9 cannot be placed: 12 experts leave 8 of 20 slots free"):
        example(replicas=9)


def test_where_the_tolerance_is_broken_copies_of_a_levelled_placement_follow() -> None:
    problem = example(replicas=4, tolerance="0.02")
    proposals = list(
        TacgGesr().search(problem, clock=FREELY.start(), rng=np.random.default_rng(0), start=None)
    )
    assert all(proposal.hosts.sum() == 16 for proposal in proposals)
    assert len(proposals) == (2 if problem.violation(proposals[0]) else 1)


def test_the_score_is_centrality_consistency_and_specificity() -> None:
    graphs = FamilyGraphs.of(example(replicas=0))
    found = generality(graphs, lambda1=0.5, lambda2=2.0)
    for expert in range(12):
        mean = graphs.pooled[expert]
        rows = graphs.affinity[:, expert]
        cosines = [row @ mean / np.sqrt((row @ row) * (mean @ mean)) for row in rows]
        apart = [np.sqrt(((row - mean) ** 2).sum()) for row in rows]
        assert found[expert] == pytest.approx(mean.sum() + 0.5 * np.mean(cosines) - 2.0 * max(apart))


def test_an_expert_that_nobody_uses_scores_nothing() -> None:
    ids = np.array([[0, 1], [1, 2], [0, 2]])
    problem = Problem.from_trace(Trace(ids[:, None, :], 4), Cluster(1, 2, 3), replicas=2)
    assert generality(FamilyGraphs.of(problem), lambda1=1.0, lambda2=1.0)[3] == 0
    assert placed(TacgGesr(lambda1=1.0, lambda2=1.0), problem).hosts[0, 3].sum() == 1


def published(problem: Problem, primary: NDArray[np.int32], *, n_rep: int, k_sec: int) -> NDArray[np.bool_]:
    """bool [experts, gpus]: the copies of GESR with its published settings, stated once more."""
    pooled = FamilyGraphs.of(problem).pooled
    hosts: NDArray[np.bool_] = primary[:, None] == np.arange(problem.cluster.gpus)
    partners = pooled @ hosts
    left = problem.replicas
    for expert in sorted(range(len(pooled)), key=lambda one: (-pooled[one].sum(), one))[:n_rep]:
        room = hosts.sum(axis=0) < np.minimum(problem.cluster.slots_of, len(hosts))
        others = [gpu for gpu in np.flatnonzero(room) if gpu != primary[expert]]
        for gpu in sorted(others, key=lambda one: (-partners[expert, one], one))[:k_sec]:
            if left:
                hosts[expert, gpu] = True
                left -= 1
    return hosts


@settings(max_examples=60, deadline=None)
@given(problem=any_problems(extras=("replicas",)), seed=st.integers(0, 9))
def test_tacg_gesr_is_gesr_on_tacg_and_both_are_bit_for_bit_what_is_published(
    problem: Problem, seed: int
) -> None:
    free = replace(problem, load_tolerance=None)
    whole = placed(TacgGesr(seeds=2), free, seed)
    below = placed(Tacg(seeds=2), free, seed).primary[0]
    assert (whole.primary[0] == below).all()
    assert (whole.hosts[0] == published(free, below, n_rep=8, k_sec=2)).all()
    proposals = [
        list(method.search(problem, clock=FREELY.start(), rng=np.random.default_rng(seed), start=None))
        for method in (TacgGesr(seeds=2), Gesr(Tacg(seeds=2)))
    ]
    assert proposals[0] == proposals[1]
    assert proposals[0][0] == whole


BASES: list[Heuristic] = [
    Linear(),
    Random(),
    Lpt(),
    Frequency(),
    Occult(),
    SemMoe(restarts=2),
    Metro(batch=4, batches=8),
    Eplb(),
    Grace(),
    Spectral(seeds=2),
    Swap(restarts=1, kicks=5),
]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
def test_every_base_gets_the_same_number_of_copies_on_top_of_what_it_places_alone(base: Heuristic) -> None:
    problem = example(replicas=6, slots=6)
    method = Gesr(base, n_rep=3)
    placement = placed(method, problem, 5)
    assert problem.violation(placement) == ""
    alone = placed(base, single_copies(problem), 5)
    assert (placement.primary == alone.primary).all()
    assert (placement.hosts >= alone.hosts).all()
    assert np.sort(placement.hosts[0].sum(axis=1)).tolist() == [1] * 9 + [3] * 3
    assert problem.cost(placement) <= single_copies(problem).cost(alone)
    assert method.solve(problem, stop=FREELY, seed=5).method == repr(method)
    assert repr(base) in repr(method)


def test_with_no_slot_to_spare_a_copy_that_finds_no_room_is_not_made() -> None:
    """By frequency, the three experts that get copies share GPU 0, whose free slots no copy of theirs can use."""
    problem = example(replicas=6, slots=5)
    hosts = placed(Gesr(Frequency(), n_rep=3), problem).hosts[0]
    assert hosts.sum(axis=0).tolist() == [3, 5, 5, 4]
    assert hosts.sum() == 17


@pytest.mark.parametrize("name", ["blocks", "priced"])
def test_an_exact_method_can_be_the_base_and_its_costs_and_bounds_are_nobodys_news(name: str) -> None:
    problem = example(replicas=6)
    alone = named_method(name).solve(single_copies(problem), stop=FREELY, seed=0)
    told: list[News] = []
    with heard(told.append):
        result = Gesr(named_method(name)).solve(problem, stop=FREELY, seed=0)
    assert result.placement is not None
    assert alone.cost is not None
    assert single_copies(problem).cost(problem.partition(result.placement.primary)) == alone.cost
    assert [news.cost for news in told] == [result.cost]
    assert result.bound is None


def test_the_base_sees_equal_groups_without_copies_tolerance_or_incumbent() -> None:
    problem = example(replicas=4, slots=(3, 3, 3, 7), tolerance="0.5")
    changed = replace(problem, incumbent=placed(Linear(), problem), max_moves=3, total_replicas=2)
    single = single_copies(changed)
    assert single.cluster.slots == 3
    assert (single.replicas, single.load_tolerance) == (0, None)
    assert (single.incumbent, single.max_moves, single.total_replicas) == (None, None, None)
    assert single.workload is problem.workload


def test_a_base_that_ends_with_the_clock_is_left_to_its_best_so_far() -> None:
    problem = example(replicas=6)
    result = Gesr(Swap()).solve(problem, stop=Stop(seconds=1e-6), seed=0)
    assert result.placement is not None
    assert result.placement.hosts.sum() == 18
    one = Gesr(Swap()).solve(problem, stop=Stop(seconds=None, candidates=1), seed=0)
    assert one.placement is not None


def test_a_base_that_does_not_treat_the_problem_is_refused_by_its_own_reason() -> None:
    with pytest.raises(ValueError, match="method gesr does not treat this problem: base migrate: "):
        Gesr(Migrate()).solve(example(replicas=2), stop=FREELY, seed=0)


def skewed() -> Problem:
    """Family "code" of 200 tokens on experts 0 to 3, "math" of 20 on 4 to 7, top-2; pairs and tokens by hand."""
    code = [[0, 1]] * 110 + [[0, 2]] * 50 + [[1, 3]] * 40
    math = [[4, 5]] * 17 + [[4, 6]] * 2 + [[6, 7]] * 1
    family = np.repeat([0, 1], [200, 20]).astype(np.uint8)
    trace = Trace(np.array(code + math)[:, None, :], 8, families=("code", "math"), family=family)
    return Problem.from_trace(trace, Cluster(1, 4, 4), replicas=4)


def test_scorers_rank_by_tokens_by_families_or_by_degree() -> None:
    problem = skewed()
    graphs = FamilyGraphs.of(problem)
    frequency = scores(problem, graphs, scorer="frequency")
    assert frequency.tolist() == [160, 150, 50, 40, 19, 17, 3, 1]
    hot = scores(problem, graphs, scorer="hot")
    assert np.allclose(hot, [0.8, 0.75, 0.25, 0.2, 0.95, 0.85, 0.15, 0.05])
    centrality = scores(problem, graphs, scorer="centrality")
    assert np.allclose(centrality, hot / 2)  # no expert is of both families
    assert (centrality == generality(graphs, lambda1=0.0, lambda2=0.0)).all()
    copied = {
        scorer: set(np.flatnonzero(placed(Gesr(scorer=scorer, n_rep=2), problem).hosts[0].sum(axis=1) > 1))
        for scorer in ("generality", "centrality", "frequency", "hot")
    }
    assert copied == {
        "generality": {4, 5},
        "centrality": {4, 5},
        "frequency": {0, 1},
        "hot": {4, 5},
    }
    with pytest.raises(ValueError, match="scorer must be one of centrality, frequency, hot, found 'best'"):
        scores(problem, graphs, scorer="best")


def test_centrality_is_frequency_where_families_have_equal_tokens_and_not_by_cosine() -> None:
    problem = example(replicas=0)
    plain, cosine = (FamilyGraphs.of(problem, normaliser=name) for name in ("frequency", "cosine"))
    load = scores(problem, plain, scorer="frequency")
    assert np.allclose(scores(problem, plain, scorer="centrality"), 2 * load / 300)
    other = scores(problem, cosine, scorer="centrality")
    assert not np.allclose(other / other.sum(), load / load.sum())


def test_without_coactivation_in_the_scores_the_lowest_ids_get_the_copies() -> None:
    problem = example(replicas=6, slots=8)
    hosts = placed(Gesr(Linear(), normaliser="uniform", n_rep=3), problem).hosts[0]
    assert hosts.sum(axis=1).tolist() == [3] * 3 + [1] * 9


def test_random_copies_follow_the_seed() -> None:
    problem = example(replicas=6)
    method = Gesr(Linear(), scorer="random", secondary="random")
    drawn = [placed(method, problem, seed) for seed in range(6)]
    assert drawn[0] == placed(method, problem, 0)
    assert len(set(drawn)) > 1
    assert len({one.hosts[0].sum(axis=1).tobytes() for one in drawn}) > 1


def test_copies_by_load_go_to_the_lightest_gpu_for_its_speed_as_it_is_by_then() -> None:
    """Loads 8, 4, 2, 2 by expert, one a GPU: expert 0 leaves 4 and brings 4, then GPU 2 has 6, GPU 3 the least."""
    tokens = np.repeat([0, 1, 2, 3], [8, 4, 2, 2])
    problem = Problem.from_trace(Trace(tokens[:, None, None], 4), Cluster(1, 4, 3), replicas=2)
    method = Gesr(Linear(), scorer="frequency", secondary="lightest", k_sec=1)
    hosts = placed(method, problem).hosts[0]
    assert [np.flatnonzero(row).tolist() for row in hosts] == [[0, 2], [1, 3], [2], [3]]
    paced = replace(problem, cluster=Cluster(1, 4, 3, speeds=(1, 1, 1, 4)))
    hosts = placed(method, paced).hosts[0]
    assert [np.flatnonzero(row).tolist() for row in hosts] == [[0, 3], [1, 3], [2], [3]]


@settings(max_examples=60, deadline=None)
@given(
    problem=any_problems(extras=("replicas", "speeds", "tail")),
    scorer=st.sampled_from(SCORERS),
    secondary=st.sampled_from(SECONDARIES),
    normaliser=st.sampled_from(NORMALISERS),
    seed=st.integers(0, 9),
)
def test_every_rule_keeps_slots_budget_and_the_placement_below(
    problem: Problem, scorer: str, secondary: str, normaliser: str, seed: int
) -> None:
    free = replace(problem, load_tolerance=None)
    method = Gesr(Lpt(), scorer, secondary, normaliser=normaliser)
    placement = placed(method, free, seed)
    assert free.violation(placement) == ""
    assert (placement.primary == placed(Lpt(), single_copies(free)).primary).all()
    assert placed(method, free, seed) == placement


def test_top_k_beyond_what_copies_are_judged_for_is_refused() -> None:
    experts = np.array([np.random.default_rng(seed).permutation(18)[:17] for seed in range(5)])
    problem = Problem.from_trace(Trace(experts[:, None, :], 18), Cluster(1, 3, 8), replicas=2)
    for method in (Gesr(), TacgGesr()):
        with pytest.raises(ValueError, match="top-k must be at most 16 with replicas, found 17"):
            method.solve(problem, stop=FREELY, seed=0)
        assert placed(method, replace(problem, replicas=0)).is_partition


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"base": "tacg"}, "base must be a method, found 'tacg'"),
        ({"scorer": "best"}, "scorer must be one of generality, centrality, .*, found 'best'"),
        ({"secondary": "far"}, "secondary must be one of affinity, lightest, random, found 'far'"),
        ({"normaliser": "pmi"}, "normaliser must be one of frequency, cosine, lift, uniform, found 'pmi'"),
        ({"pooling": "sum"}, "pooling must be one of families, objective, found 'sum'"),
        ({"n_rep": -1}, "n_rep must not be negative, found -1"),
        ({"lambda2": float("nan")}, "lambda2 must be finite and not negative, found nan"),
    ],
)
def test_bad_settings_of_gesr_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gesr(**asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"n_rep": -1}, "n_rep must not be negative, found -1"),
        ({"k_sec": -2}, "k_sec must not be negative, found -2"),
        ({"lambda1": float("inf")}, "lambda1 must be finite and not negative, found inf"),
        ({"lambda2": -0.5}, r"lambda2 must be finite and not negative, found -0\.5"),
        ({"alpha": 2.0}, r"alpha must lie between 0 and 1, found 2\.0"),
    ],
)
def test_bad_settings_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TacgGesr(**asked)


def test_ctrl_c_in_the_base_ends_the_run_with_copies_on_what_it_had() -> None:
    @dataclass(frozen=True)
    class Stopped(Lpt):
        def search(self, problem: Problem, **given: Any) -> Iterator[Placement]:
            yield from super().search(problem, **given)
            raise KeyboardInterrupt

    asked = Problem.from_trace(mo.sample("tiny-moe").layers([0]), mo.Cluster.of(gpus=8, slots=5), replicas=8)
    result = Gesr(base=Stopped(), n_rep=4).solve(asked, stop=Stop(seconds=None), seed=0)
    whole = Gesr(base=Lpt(), n_rep=4).solve(asked, stop=Stop(seconds=None), seed=0)
    assert result.status == "interrupted"
    assert result.placement == whole.placement
