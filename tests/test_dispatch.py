"""A dispatch accounts for every token; a cover is the cheapest of all assignments to copies."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.dispatch import Dispatch, Plan, cover, cover_plan, forced, touched
from moeopt.expert_sets import ExpertSets
from moeopt.placement import Placement
from moeopt.trace import Trace
from moeopt.workload import Workload


def price(gpus: tuple[int, ...], gpus_per_node: int, gpu_cost: int, node_cost: int) -> int:
    return gpu_cost * len(set(gpus)) + node_cost * len({gpu // gpus_per_node for gpu in gpus})


@st.composite
def copies(draw: st.DrawFn) -> tuple[ExpertSets, np.ndarray[Any, Any], int]:
    """(sets, hosts [experts, gpus], GPUs per node)."""
    nodes, per_node = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    experts, k = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    k = min(k, experts)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    members = np.array([rng.choice(experts, k, replace=False) for _ in range(draw(st.integers(1, 8)))])
    sets = ExpertSets.of(members, rng.integers(1, 5, (len(members), 2)), n_experts=experts)
    hosts = rng.random((experts, nodes * per_node)) < draw(st.sampled_from([0.2, 0.5, 0.9]))
    hosts[np.arange(experts), rng.integers(0, nodes * per_node, experts)] = True
    return sets, hosts, per_node


@settings(max_examples=150, deadline=None)
@given(case=copies(), gpu_cost=st.integers(0, 3), node_cost=st.integers(0, 5))
def test_no_assignment_to_copies_costs_less_than_the_cover(case: Any, gpu_cost: int, node_cost: int) -> None:
    sets, hosts, per_node = case
    found = cover(sets, hosts, gpus_per_node=per_node, gpu_cost=gpu_cost, node_cost=node_cost)
    assert found.violation(sets, hosts) == ""
    for row, members in enumerate(sets.members.tolist()):
        choices = [np.flatnonzero(hosts[expert]).tolist() for expert in members]
        least = min(price(gpus, per_node, gpu_cost, node_cost) for gpus in product(*choices))
        assert price(tuple(found.gpus[row].tolist()), per_node, gpu_cost, node_cost) == least


@settings(max_examples=40, deadline=None)
@given(case=copies())
def test_loads_count_every_activation_where_it_is_served(case: Any) -> None:
    sets, hosts, per_node = case
    found = cover(sets, hosts, gpus_per_node=per_node)
    loads = found.gpu_loads(hosts.shape[1])
    wanted = [0] * hosts.shape[1]
    for row, gpus in enumerate(found.gpus.tolist()):
        for gpu in gpus:
            wanted[gpu] += int(found.tokens[row].sum())
    assert loads.tolist() == wanted
    assert loads.sum() == sets.counts.sum() * sets.top_k


def test_a_cover_prefers_few_nodes_when_nodes_are_dear() -> None:
    sets = ExpertSets.of(np.array([[0, 1, 2]]), np.ones((1, 1), np.int64), n_experts=3)
    hosts = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]], bool)
    assert np.unique(cover(sets, hosts, gpus_per_node=2, node_cost=9).gpus // 2).tolist() == [1]
    assert len(np.unique(cover(sets, hosts, gpus_per_node=2).gpus)) == 2


def test_a_partition_leaves_no_choice() -> None:
    sets = ExpertSets.of(np.array([[0, 2], [1, 2]]), np.array([[3], [4]]), n_experts=3)
    hosts = np.eye(3, dtype=bool)[:, [1, 0, 2]]
    for found in (forced(sets, hosts), cover(sets, hosts, gpus_per_node=3)):
        assert found.gpus.tolist() == [[1, 2], [0, 2]]
        assert found.tokens.tolist() == [[3], [4]]


def test_touched_counts_distinct_labels_of_a_row() -> None:
    assert touched(np.array([[1, 1, 1], [2, 0, 2], [0, 1, 2]])).tolist() == [1, 2, 3]
    assert touched(np.array([[5]])).tolist() == [1]


def test_covers_of_too_many_experts_are_refused_only_where_there_is_a_choice() -> None:
    sets = ExpertSets.of(np.arange(17)[None], np.ones((1, 1), np.int64), n_experts=17)
    hosts = np.zeros((17, 2), bool)
    hosts[:, 0] = True
    assert cover(sets, hosts, gpus_per_node=2).gpus.tolist() == [[0] * 17]
    hosts[3, 1] = True
    with pytest.raises(ValueError, match="top-k up to 16, found 17"):
        cover(sets, hosts, gpus_per_node=2)


@pytest.fixture
def served() -> tuple[ExpertSets, Any, Dispatch]:
    sets = ExpertSets.of(np.array([[0, 1], [1, 2]]), np.array([[2, 1], [0, 3]]), n_experts=3)
    hosts = np.array([[1, 0], [1, 1], [0, 1]], bool)
    split = Dispatch(
        np.array([0, 0, 1], np.int32),
        np.array([[0, 0], [0, 1], [1, 1]], np.int32),
        np.array([[1, 1], [1, 0], [0, 3]]),
    )
    assert split.violation(sets, hosts) == ""
    return sets, hosts, split


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": np.array([[3, 1], [-1, 0], [0, 3]])}, "row 1 serves a negative number of tokens"),
        ({"tokens": np.array([[1, 1], [0, 0], [0, 3]])}, "set 0 has 2 tokens of family 0, 1 served"),
        ({"tokens": np.array([[1], [1], [3]])}, r"tokens of shape \(3, 1\), expected \(3, 2\)"),
        ({"sets": np.array([0, 0, 2])}, "names expert set 2, there are 2"),
        ({"sets": np.array([-1, 0, 1])}, "names expert set -1, there are 2"),
        ({"gpus": np.array([[0, 0], [0, 2], [1, 1]])}, "names GPU 2, there are 2"),
        ({"gpus": np.array([[0, 0], [0, -1], [1, 1]])}, "names GPU -1, there are 2"),
        ({"gpus": np.array([[0, 0], [1, 0], [1, 1]])}, "GPU 1 does not hold expert 0"),
        ({"gpus": np.array([[0], [0], [1]])}, r"GPUs of shape \(3, 1\), expected \(3, 2\)"),
        ({"gpus": np.zeros((3, 3), np.int32)}, r"GPUs of shape \(3, 3\), expected \(3, 2\)"),
    ],
)
def test_a_dispatch_that_is_none_says_why(served: Any, changes: dict[str, Any], words: str) -> None:
    sets, hosts, split = served
    with pytest.raises(ValueError, match=words):
        raise ValueError(replace(split, **changes).violation(sets, hosts))


def test_a_plan_survives_its_document() -> None:
    trace = Trace(np.array([[[0, 1], [1, 2]], [[2, 1], [0, 1]]]), 3, layer_ids=np.array([2, 5]))
    hosts = np.ones((2, 3, 2), bool)
    placement = Placement(hosts, np.zeros((2, 3), np.int32), 1, 3, (2, 5))
    plan = cover_plan(placement, Workload.from_trace(trace))
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again.to_dict() == plan.to_dict()
    for part, same in zip(plan.dispatches, again.dispatches, strict=True):
        assert (part.sets == same.sets).all()
        assert (part.gpus == same.gpus).all()
        assert (part.tokens == same.tokens).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sets": [0, 1]}, "equally many rows"),
        ({"gpus": [[0.5, 0]]}, "gpus must hold whole numbers"),
        ({"gpus": [[2**32, 0]]}, "gpus must hold whole numbers"),
        ({"gpus": [0]}, "equally many rows"),
        ({"tokens": [["1"]]}, "tokens must hold whole numbers"),
    ],
)
def test_a_plan_document_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    placement = Placement(np.ones((1, 2, 1), bool), np.zeros((1, 2), np.int32), 1, 2, (0,))
    row = {"sets": [0], "gpus": [[0, 0]], "tokens": [[1]]}
    document = {"format": "moeopt-plan", "version": 1, "placement": placement.to_dict(), "dispatches": [row]}
    assert len(Plan.from_dict(document).dispatches) == 1
    with pytest.raises(ValueError, match=words):
        Plan.from_dict(document | {"dispatches": [row | changes]})
    with pytest.raises(ValueError, match="2 dispatches for 1 layers"):
        Plan.from_dict(document | {"dispatches": [row, row]})
