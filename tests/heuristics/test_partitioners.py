"""General partitioners as peers: exact sizes, the fan-out as their objective, and reasons where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from moeopt import partitioners
from moeopt.cluster import Cluster
from moeopt.heuristics.kahip import Kahip
from moeopt.heuristics.metis import Metis
from moeopt.heuristics.mt_kahypar import MtKahypar
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Stop
from moeopt.trace import Trace

FREELY = Stop(seconds=None)
PACKAGES = {"metis": "pymetis", "kahip": "kahip", "mt-kahypar": "mtkahypar"}
METHODS = [Metis(), Metis(recursive=False), Kahip(mode="eco"), MtKahypar()]
EVERY = pytest.mark.parametrize("method", METHODS, ids=repr)


def ready(method: Any) -> Any:
    """The method, or a skipped test without its package."""
    package = PACKAGES[method.name]
    pytest.importorskip(package, reason=f"{package} is of the extra partitioners")
    return method


def pairs(cluster: Cluster, **fields: Any) -> Problem:
    """Eight experts in four pairs e, e + 4 that always go together, and a little noise."""
    ids = np.array([[[0, 4]], [[1, 5]], [[2, 6]], [[3, 7]]] * 9 + [[[0, 1]], [[2, 3]]])
    return Problem.from_trace(Trace(ids, 8), cluster, **fields)


def noise(cluster: Cluster, *, experts: int, top_k: int, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((300, 1, experts)) ** np.linspace(1, 3, experts), axis=2)[:, :, :top_k]
    return Problem.from_trace(Trace(ids, experts), cluster)


@EVERY
def test_pairs_that_go_together_are_put_together(method: Any) -> None:
    assert ready(method).solve(pairs(Cluster(1, 4, 2)), stop=FREELY, seed=0).cost == 2


@pytest.mark.parametrize("method", [*METHODS, MtKahypar(slack=2)], ids=repr)
@pytest.mark.parametrize(
    "cluster", [Cluster(1, 3, 6), Cluster(1, 4, 4), Cluster(1, 1, 16), Cluster(1, 20, 1), Cluster(1, 6, 3)]
)
def test_groups_are_as_equal_as_the_slots_allow(method: Any, cluster: Cluster) -> None:
    problem = noise(cluster, experts=16, top_k=3)
    placement = ready(method).solve(problem, stop=FREELY, seed=1).placement
    sizes = np.bincount(placement.primary[0], minlength=cluster.gpus)
    assert sorted(sizes) == sorted(equal_sizes(16, cluster.slots_of))


@EVERY
def test_tokens_of_one_expert_leave_nothing_to_ask(method: Any) -> None:
    problem = noise(Cluster(1, 4, 2), experts=8, top_k=1)
    assert ready(method).solve(problem, stop=FREELY, seed=0).cost == 0


@pytest.mark.parametrize("method", [Metis(), Kahip(mode="eco"), MtKahypar(preset="deterministic")], ids=repr)
def test_the_same_seed_gives_the_same_placement(method: Any) -> None:
    problem = noise(Cluster(1, 4, 6), experts=24, top_k=4)
    first, second = (ready(method).solve(problem, stop=FREELY, seed=3) for _ in range(2))
    assert first.placement == second.placement


@EVERY
def test_the_cut_of_pairs_is_treated_too(method: Any) -> None:
    assert ready(method).solve(pairs(Cluster(1, 4, 2), objective="cut"), stop=FREELY, seed=0).cost == 2


@EVERY
def test_a_load_that_nobody_balanced_is_refused_by_the_problem(method: Any) -> None:
    ids = np.array([[[0, 1]]] * 50 + [[[2, 3]]])
    problem = Problem.from_trace(Trace(ids, 4), Cluster(1, 2, 2), load_tolerance="0.1")
    assert ready(method).solve(problem, stop=FREELY, seed=0).status == "none-found"


@EVERY
def test_what_is_not_treated_is_said(method: Any) -> None:
    ready(method)
    nodes = pairs(Cluster(2, 2, 2, node_cost=3))
    assert method.supports(nodes) == "knows one level of groups, node_cost is 3"
    copies = replace(pairs(Cluster(1, 4, 3)), replicas=2)
    assert method.supports(copies) == "places single copies, replicas are 2"
    assert not method.supports(pairs(Cluster(2, 2, 2)))


@EVERY
def test_an_absent_package_is_named_with_its_extra(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PACKAGES[method.name]
    monkeypatch.setattr(partitioners, "find_spec", lambda name: None if name == package else find_spec(name))
    reason = method.supports(pairs(Cluster(1, 4, 2)))
    assert reason == f"{package} is not installed: pip install 'moeopt[partitioners]'"


def test_one_process_has_one_number_of_threads() -> None:
    ready(MtKahypar()).solve(pairs(Cluster(1, 4, 2)), stop=FREELY, seed=0)
    with pytest.raises(ValueError, match="runs with 2 threads in this process, found 1"):
        MtKahypar(threads=1).solve(pairs(Cluster(1, 4, 2)), stop=FREELY, seed=0)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"preset must be one of default, quality, .* found 'best'"):
        MtKahypar(preset="best")
    with pytest.raises(ValueError, match="threads must be at least 1, found 0"):
        MtKahypar(threads=0)
    with pytest.raises(ValueError, match="slack must be at least 0, found -1"):
        MtKahypar(slack=-1)
    with pytest.raises(ValueError, match="mode must be one of fast, eco, strong, found 'slow'"):
        Kahip(mode="slow")


def test_large_weights_are_scaled_and_none_vanishes() -> None:
    weights = np.array([1, 10**15, 3 * 10**15, 0])
    scaled = partitioners.whole(weights)
    assert scaled.tolist() == pytest.approx([1, partitioners.MOST / 4, partitioners.MOST * 3 / 4, 0], abs=1)
    assert (scaled > 0).tolist() == [True, True, True, False]
    assert (partitioners.whole(weights[:1]) == weights[:1]).all()
