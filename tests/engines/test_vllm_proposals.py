"""What open proposals would let vLLM read."""

from __future__ import annotations

import json

import numpy as np
import pytest

import moeopt as mo
from moeopt.engines.vllm_proposals import VLLMProposedMap, VLLMProposedRanks
from moeopt.placement import Placement

MAP, RANKS = VLLMProposedMap(), VLLMProposedRanks()
TWO = Placement(
    np.array([[[True, False], [True, True], [False, True]], [[True, True], [True, False], [False, True]]]),
    np.array([[0, 0, 1], [0, 0, 1]]),
    1,
    2,
    (3, 7),
)
SHARED = Placement.partition([[0, 1, 1, 0]] * 2, mo.Cluster.of(gpus=2, slots=2), layer_ids=(3, 7))


def test_proposals_are_marked_as_such() -> None:
    for engine, placement in ((MAP, TWO), (RANKS, SHARED)):
        assert engine.summary.startswith("PROPOSAL vllm#")
        assert "in no release" in engine.notes(placement, "map.json").source


def test_a_map_is_a_row_a_layer() -> None:
    assert json.loads(MAP.dump(TWO)) == [[0, 1, 1, 2], [0, 1, 0, 2]]


def test_one_row_is_that_of_all_layers() -> None:
    assert MAP.accepts(b"[0, 3, 1, 2]")
    assert MAP.read(b"[0, 3, 1, 2]").shared
    assert not MAP.read(b"[[0, 3, 1, 2]]").shared
    assert MAP.load(b"[0, 3, 1, 2]", gpus=2, layer_ids=(3, 7)) == SHARED
    assert MAP.load(b"[0, 3, 1, 2]", gpus=2).layer_ids == (0,)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", r"list of slots or of layers, found \[\]"),
        (b"{}", "found {}"),
        (b"[0, [1]]", "layer 0, slot 1: .* found .1."),
        (b"[[0], 1]", "must be a list of lists"),
        (b"[[0, 1], [0]]", "layer 1 has 1"),
        (b"[0, NaN]", "NaN is no number"),
        (b"[0, -1]", "found -1"),
        (b"[0, 1e3]", "found 1000.0"),
        (b"[0, 1000000]", "layer 0: expert 1 is on no GPU"),
        (b"[0, 1, 0]", "3 slots on 2 GPUs"),
        (b"[0, 0, 1, 0]", "GPU 0 holds expert 0 twice"),
    ],
)
def test_a_broken_map_is_refused_by_rule(content: bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        MAP.load(content, gpus=2)


def test_ranks_are_one_partition_for_all_layers() -> None:
    assert json.loads(RANKS.dump(SHARED)) == {"expert_to_ep_rank": [0, 1, 1, 0]}
    with pytest.raises(ValueError, match="layer 3: expert 1 has 2 copies, the file can say one"):
        RANKS.dump(TWO)
    cluster = mo.Cluster.of(gpus=2, slots=2)
    with pytest.raises(ValueError, match="one map for all layers: layer 7 differs from layer 3"):
        RANKS.dump(Placement.partition([[0, 1, 1, 0], [0, 1, 0, 1]], cluster, layer_ids=(3, 7)))
    with pytest.raises(ValueError, match="every GPU must hold as many experts, found 1 to 2"):
        RANKS.dump(Placement.partition([[0, 1, 1]], cluster, layer_ids=(3,)))
    with pytest.raises(ValueError, match="can say one"):
        RANKS.notes(TWO, "ranks.json")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"[0, 1]", "expected an object with expert_to_ep_rank, found list"),
        (b"{}", "key 'expert_to_ep_rank' is missing"),
        (b'{"expert_to_ep_rank": [0, 1], "x": 1}', "key 'x' is unknown"),
        (b'{"expert_to_ep_rank": [0, 1], "expert_to_ep_rank": [1, 0]}', "given twice"),
        (b'{"expert_to_ep_rank": []}', "0 experts fill at most as many ranks"),
        (b'{"expert_to_ep_rank": 3}', "must be a list, found 3"),
        (b'{"expert_to_ep_rank": [0, 999999]}', "2 experts fill at most as many ranks, found 999999"),
        (b'{"expert_to_ep_rank": [0, 1000000000]}', "found 1000000000"),
        (b'{"expert_to_ep_rank": [0, -1]}', "found -1"),
        (b'{"expert_to_ep_rank": [0, 0, 1]}', "as many experts, found 1 to 2"),
        (b'{"expert_to_ep_rank": [0, 2, 0, 2]}', "as many experts, found 0 to 2"),
    ],
)
def test_broken_ranks_are_refused_by_rule(content: bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        RANKS.load(content)


def test_ranks_must_be_as_many_as_asked_for() -> None:
    with pytest.raises(ValueError, match="gpus are 2 in the file, asked for were 4"):
        RANKS.load(RANKS.dump(SHARED), gpus=4)
