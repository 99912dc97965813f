"""vLLM's plan, and the policy that returns it, against a stand-in for the interface of vllm 0.33.0."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.engine import physical_map
from moeopt.engines.vllm import VARIABLE, VLLM
from moeopt.placement import Placement
from moeopt.vllm_plugin import kept_slots, policy_of, register
from tests.engine_strategies import filled

ENGINE = VLLM()
TWO = Placement(
    np.array([[[True, False], [True, True], [False, True]], [[True, True], [True, False], [False, True]]]),
    np.array([[0, 0, 1], [0, 0, 1]]),
    2,
    2,
    (3, 7),
    "model",
)


class Tensor:
    """Of torch: what the policy touches."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.shape = array, array.shape

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> NDArray[Any]:
        return self.array


class AbstractEplbPolicy(ABC):
    """Of vllm/distributed/eplb/policy/abstract.py, with its parameters in its order."""

    @classmethod
    @abstractmethod
    def rebalance_experts(
        cls,
        weight: Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Tensor | None = None,
    ) -> Tensor:
        """[layers, num_replicas]: the expert of each replica."""


class DefaultEplbPolicy(AbstractEplbPolicy):
    @classmethod
    def rebalance_experts(cls, *_: Any) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """vLLM's registry of policies; torch beside it."""
    policies: Any = ModuleType("vllm.distributed.eplb.policy")
    policies.AbstractEplbPolicy = AbstractEplbPolicy
    policies.EPLB_POLICIES = {"default": DefaultEplbPolicy}
    torch: Any = ModuleType("torch")
    torch.from_numpy = Tensor
    for name in ("vllm", "vllm.distributed", "vllm.distributed.eplb"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, policies.__name__, policies)
    monkeypatch.setitem(sys.modules, "torch", torch)
    found: dict[str, Any] = policies.EPLB_POLICIES
    return found


def asked(policy: Any, *, layers: int = 2, experts: int = 3, slots: int = 4, ranks: int = 2) -> Any:
    """What vLLM gets when it rebalances: it passes everything by position, the initial map as the old one."""
    old = np.tile(np.arange(slots) % experts, (layers, 1))
    return policy.rebalance_experts(
        Tensor(np.ones((layers, experts))), slots, 1, 1, ranks, Tensor(old)
    ).numpy()


def test_without_the_variable_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "vllm.distributed.eplb.policy", None)  # an import would fail
    register()


def test_the_registered_policy_returns_the_plan(
    registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held_before = registry
    path = tmp_path / "plan.json"
    path.write_bytes(ENGINE.dump(TWO))
    monkeypatch.setenv(VARIABLE, str(path))
    register()
    register()  # vLLM may load a plug-in more than once
    policy = held_before["default"]
    assert issubclass(policy, AbstractEplbPolicy)
    found = asked(policy)
    assert found.dtype == np.int64
    by_gpu = np.sort(found.reshape(2, 2, 2), axis=2).reshape(2, 4)
    assert by_gpu.tolist() == physical_map(TWO).tolist()
    alone = policy.rebalance_experts(Tensor(np.zeros((2, 3))), 4, 1, 1, 2)
    assert alone.numpy().tolist() == physical_map(TWO).tolist()


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"layers": 3}, "plan.json: the plan has 2 MoE layers, vLLM asks for 3"),
        ({"experts": 4}, "the plan has 3 experts, vLLM asks for 4"),
        ({"slots": 6}, r"the plan has 4 slots \(num_redundant_experts \+ experts\), vLLM asks for 6"),
        ({"ranks": 4}, "the plan has 2 GPUs, vLLM asks for 4"),
    ],
)
def test_another_shape_is_refused_with_both_numbers(change: dict[str, int], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        asked(policy_of(TWO, AbstractEplbPolicy, source="plan.json"), **change)


def test_a_plan_that_cannot_be_read_stops_the_server(
    registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent.json"))
    with pytest.raises(ValueError, match=r"absent\.json: cannot be read: No such file"):
        register()
    (tmp_path / "absent.json").write_text("{}")
    with pytest.raises(ValueError, match=r"absent\.json: key 'moeopt_vllm_plan' is missing"):
        register()
    registry.clear()
    with pytest.raises(ValueError, match="this vLLM has no policy 'default'"):
        register()


@pytest.mark.usefixtures("registry")
def test_a_returned_plan_is_nobody_elses() -> None:
    policy = policy_of(TWO, AbstractEplbPolicy, source="plan")
    asked(policy)[:] = 0
    policy.rebalance_experts(Tensor(np.zeros((2, 3))), 4, 1, 1, 2).numpy()[:] = 0
    assert sorted(asked(policy)[0].tolist()) == [0, 1, 1, 2]


@settings(max_examples=200, deadline=None)
@given(placement=filled(), seed=st.integers(0, 999))
def test_experts_that_stay_on_their_gpu_keep_their_slots(placement: Placement, seed: int) -> None:
    rows, rng = physical_map(placement), np.random.default_rng(seed)
    old = rng.integers(0, placement.n_experts, rows.shape)  # an old map may hold an expert twice
    kept = kept_slots(rows, old, gpus=placement.gpus)
    new, before, after = (table.reshape(len(rows), placement.gpus, -1) for table in (rows, old, kept))
    assert (np.sort(after, axis=2) == new).all()  # the same experts on every GPU
    for layer, gpu in np.ndindex(new.shape[:2]):
        stay = set(new[layer, gpu]) & set(before[layer, gpu])
        unmoved = after[layer, gpu][after[layer, gpu] == before[layer, gpu]]
        assert set(unmoved) == stay
        incoming = after[layer, gpu][~np.isin(after[layer, gpu], list(stay))]
        assert (np.diff(incoming) > 0).all()
    assert (kept_slots(rows, kept, gpus=placement.gpus) == kept).all()  # asked again, nothing moves


def test_an_old_map_of_another_shape_keeps_nothing() -> None:
    rows = np.array([[1, 0]])
    assert kept_slots(rows, np.array([[0, 1, 2, 3]]), gpus=1).tolist() == [[1, 0]]
    assert kept_slots(rows, np.array([[0, 1]]), gpus=1).tolist() == [[0, 1]]


def test_a_plan_says_everything_but_primaries() -> None:
    assert ENGINE.load(ENGINE.dump(TWO)) == TWO
    assert ENGINE.load(ENGINE.dump(TWO), gpus=2, nodes=1, model="other") == replace(
        TWO, nodes=1, model="other"
    )
    found = ENGINE.read(ENGINE.dump(TWO))
    assert (found.layer_ids, found.experts, found.gpus) == ((3, 7), 3, 2)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"moeopt_vllm_plan": 2}, "version moeopt_vllm_plan must be a whole number from 1 to 1, found 2"),
        ({"comment": ""}, "key 'comment' is unknown"),
        ({"model": 3}, "model must be text, found 3"),
        ({"nodes": 3}, "2 GPUs on 3 nodes"),
        ({"nodes": 0}, "nodes must be a whole number from 1"),
        ({"gpus": 10**9}, "4 slots on 1000000000 GPUs"),
        ({"gpus": True}, "gpus must be a whole number"),
        ({"experts": 10**9}, "layer 3: expert 3 is on no GPU"),
        ({"experts": 2}, "expert 2 out of range 0..1"),
        ({"experts": -1}, "experts must be a whole number"),
        ({"layer_ids": [7, 3]}, r"layer_ids must ascend, .* found \[7, 3\]"),
        ({"layer_ids": [3, 3]}, "layer ids must be distinct"),
        ({"layer_ids": [3]}, "2 layers need a list of as many layer_ids"),
        ({"layer_ids": [3, 7.0]}, "a layer id must be a whole number .* found 7.0"),
        ({"rows": [[0, 1, 1, 2], [0, 1, 0]]}, "layer 1 has 3"),
        ({"rows": [[0, 1, 1, 2], [0, 1, 0, -1]]}, "layer 1, slot 3: .* found -1"),
        ({"rows": [[0, 1, 1, 2], [0, 1, 2, 2]]}, "layer 7: GPU 1 holds expert 2 twice"),
        ({"rows": 3}, "rows must be a list of lists"),
    ],
)
def test_a_broken_plan_is_refused_by_rule(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ENGINE.load(json.dumps({**json.loads(ENGINE.dump(TWO)), **change}).encode())


def test_gpus_must_be_those_asked_for() -> None:
    with pytest.raises(ValueError, match="gpus are 2 in the file, asked for were 8"):
        ENGINE.load(ENGINE.dump(TWO), gpus=8)


def test_more_redundant_experts_than_vllm_has_room_for_are_refused() -> None:
    every = Placement(np.ones((1, 32, 33), bool), np.zeros((1, 32), int), 1, 32, (0,))
    assert ENGINE.check(every) == "vLLM takes 1023 redundant experts, found 1024"
    with pytest.raises(ValueError, match="found 1024"):
        ENGINE.dump(every)
