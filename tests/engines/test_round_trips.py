"""What every engine's file keeps, and which engine owns a content."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt.engine import Engine
from moeopt.engines.eplb import Eplb
from moeopt.engines.omniplacement import OmniPlacement
from moeopt.engines.plain_map import Plain
from moeopt.engines.sglang import SGLang
from moeopt.engines.tensorrt_llm import TensorRTLLM
from moeopt.engines.vllm import VLLM
from moeopt.engines.vllm_ascend import VLLMAscend
from moeopt.engines.vllm_proposals import VLLMProposedMap, VLLMProposedRanks
from moeopt.placement import Placement
from tests.engine_strategies import filled, ragged, shared_partitions

# In the order in which a content is offered to them: by name.
ENGINES: tuple[Engine, ...] = (
    Eplb(),
    OmniPlacement(),
    Plain(),
    SGLang(),
    TensorRTLLM(),
    VLLM(),
    VLLMAscend(),
    VLLMProposedMap(),
    VLLMProposedRanks(),
)
MANY = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def unsaid(engine: Engine, placement: Placement) -> dict[str, Any]:
    """Settings for what the engine's file does not say."""
    if engine.name in ("plain", "vllm"):
        return {}
    given: dict[str, Any] = {"nodes": placement.nodes, "model": placement.model}
    if engine.name not in ("omniplacement", "vllm-ascend", "vllm-proposed-ranks"):
        given["gpus"] = placement.gpus
    if engine.name not in ("eplb", "tensorrt-llm"):
        given["layer_ids"] = placement.layer_ids
    return given


def comes_back(engine: Engine, placement: Placement) -> bool:
    content = engine.dump(placement)
    found = engine.read(content)
    return (
        engine.check(placement) == ""
        and engine.accepts(content)
        and found.layer_ids in (None, placement.layer_ids, tuple(range(len(found.rows))))
        and found.gpus in (None, placement.gpus)
        and found.experts in (None, placement.n_experts)
        and engine.load(content, **unsaid(engine, placement)) == placement
    )


@pytest.mark.parametrize("engine", ENGINES[:-1], ids=lambda engine: engine.name)
def test_import_of_export_is_the_placement(engine: Engine) -> None:
    @MANY
    @given(placement=filled())
    def holds(placement: Placement) -> None:
        assert comes_back(engine, placement)

    holds()


@MANY
@given(placement=shared_partitions())
def test_import_of_export_is_the_placement_where_one_map_serves_all_layers(placement: Placement) -> None:
    assert comes_back(ENGINES[-1], placement)


@MANY
@given(placement=ragged())
def test_a_plain_file_keeps_free_slots(placement: Placement) -> None:
    assert comes_back(Plain(), placement)


@MANY
@given(placement=ragged())
def test_a_pattern_keeps_gpus_of_different_numbers(placement: Placement) -> None:
    engine = OmniPlacement()
    back = engine.load(engine.dump(placement), layer_ids=placement.layer_ids, nodes=placement.nodes)
    assert (back.hosts == placement.hosts).all()
    assert back.slots == placement.hosts.sum(axis=1).max()


@settings(max_examples=100, deadline=None)
@given(placement=st.one_of(filled(), shared_partitions()))
def test_every_content_has_one_owner(placement: Placement) -> None:
    """Lists of lists alone have two: EPLB's arrays are asked before the proposal."""
    for engine in ENGINES:
        if engine.check(placement):
            continue
        owners = [other.name for other in ENGINES if other.accepts(engine.dump(placement))]
        assert owners == (["eplb", engine.name] if engine.name == "vllm-proposed-map" else [engine.name])


def test_engines_are_asked_in_the_order_of_their_names() -> None:
    names = [engine.name for engine in ENGINES]
    assert names == sorted(names)


@settings(max_examples=60, deadline=None)
@given(placement=filled(), shift=st.integers(1, 2))
def test_layers_in_any_order_are_written_ascending(placement: Placement, shift: int) -> None:
    turned = np.roll(np.arange(len(placement.layer_ids)), shift)
    other = Placement.join([placement.layer(int(index)) for index in turned])
    for engine in ENGINES[:-1]:
        if engine.name in ("eplb", "plain"):  # they say the ids of their rows
            continue
        assert engine.dump(other) == engine.dump(placement)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_layer_ids_that_name_no_layer_are_refused(engine: Engine) -> None:
    hosts = np.ones((2, 2, 1), bool)
    for ids in ((1, 1), (-1, 0)):
        broken = Placement(hosts, np.zeros((2, 2), int), 1, 2, ids)
        if engine.name == "eplb":  # an array of ids, whatever they are
            continue
        with pytest.raises(ValueError, match="layer ids must be distinct"):
            engine.dump(broken)


@pytest.mark.parametrize(
    "engine", [one for one in ENGINES if one.name not in ("plain", "omniplacement")], ids=lambda one: one.name
)
def test_unequal_gpus_are_refused_with_the_numbers(engine: Engine) -> None:
    hosts = np.array([[[True, False], [True, False], [False, True]]])
    unequal = Placement(hosts, hosts.argmax(axis=2), 1, (2, 1), (0,))
    with pytest.raises(ValueError, match=r"same number of slots, found 2, 1|as many experts, found 1 to 2"):
        engine.dump(unequal)
    loose = Placement(hosts, hosts.argmax(axis=2), 1, 2, (0,))
    with pytest.raises(ValueError, match=r"GPU 1 holds 1 experts, all 2 slots|found 1 to 2"):
        engine.dump(loose)


@pytest.mark.parametrize(
    "engine",
    [one for one in ENGINES if one.name in ("omniplacement", "vllm", "vllm-ascend", "vllm-proposed-map")],
    ids=lambda one: one.name,
)
def test_a_placement_of_some_moe_layers_is_not_passed_off_as_the_first_ones(engine: Engine) -> None:
    hosts = np.ones((2, 2, 1), bool)
    some = Placement(hosts, np.zeros((2, 2), int), 1, 2, (3, 5))
    with pytest.raises(ValueError, match="among all 58 MoE layers, the placement has 2"):
        engine.dump(some, moe_layers=58)
    assert engine.dump(some, moe_layers=2) == engine.dump(some)
