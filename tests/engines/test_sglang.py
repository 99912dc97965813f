"""SGLang's placement file: what it demands, and the way back."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.engine import Engine
from moeopt.engines.sglang import SGLang
from moeopt.placement import Placement
from tests.engine_strategies import filled

ENGINE: Engine = SGLang()


TWO = Placement(
    np.array([[[True, False], [True, True], [False, True]], [[True, True], [True, False], [False, True]]]),
    np.array([[0, 0, 1], [0, 0, 1]]),
    1,
    2,
    (1, 3),
)
LOOSE = replace(TWO, slots=3)


@settings(max_examples=60, deadline=None)
@given(placement=filled(), further=st.integers(0, 3))
def test_a_placement_comes_back_from_its_file(placement: Placement, further: int) -> None:
    content = ENGINE.dump(placement, hidden_layers=placement.layer_ids[-1] + 1 + further)
    said = {"nodes": placement.nodes, "layer_ids": placement.layer_ids, "model": placement.model}
    back = ENGINE.load(content, gpus=placement.gpus, **said)
    assert back == placement


@settings(max_examples=30, deadline=None)
@given(placement=filled())
def test_every_row_has_every_expert_and_every_gpu_equal_slots_without_duplicates(
    placement: Placement,
) -> None:
    document = json.loads(ENGINE.dump(placement))
    assert list(document) == ["physical_to_logical_map"]
    rows = document["physical_to_logical_map"]
    assert len(rows) == placement.layer_ids[-1] + 1
    for row in rows:
        assert set(row) == set(range(placement.n_experts))
        assert len(row) == placement.gpus * int(np.max(placement.slots))
    for layer in placement.layer_ids:
        for owned in np.array(rows[layer]).reshape(placement.gpus, -1):
            assert (np.diff(owned) > 0).all()


def test_dense_layers_get_the_trivial_row() -> None:
    rows = json.loads(ENGINE.dump(TWO, hidden_layers=5))["physical_to_logical_map"]
    assert rows == [[0, 1, 2, 0], [0, 1, 1, 2], [0, 1, 2, 0], [0, 1, 0, 2], [0, 1, 2, 0]]
    assert len(json.loads(ENGINE.dump(TWO))["physical_to_logical_map"]) == 4


@pytest.mark.parametrize("total", [3, 0])
def test_layers_beyond_the_model_are_refused(total: int) -> None:
    with pytest.raises(ValueError, match=rf"below {total} hidden layers, found \[1, 3\]"):
        ENGINE.dump(TWO, hidden_layers=total)
    assert "distinct" in ENGINE.check(replace(TWO, layer_ids=(1, 1)))


def test_free_slots_are_filled_only_on_request() -> None:
    with pytest.raises(ValueError, match="layer 1: GPU 0 holds 2 experts, all 3 slots must be filled"):
        ENGINE.dump(LOOSE)
    assert ENGINE.check(LOOSE, pad=True) == ""
    rows = json.loads(ENGINE.dump(LOOSE, pad=True))["physical_to_logical_map"]
    assert rows[1] == [0, 1, 2, 0, 1, 2]
    assert "4 slots cannot be filled with distinct experts, there are 3" in ENGINE.check(
        replace(TWO, slots=4), pad=True
    )


def test_padding_takes_the_lowest_absent_expert() -> None:
    partition = Placement(
        np.arange(4)[None, :, None] // 2 == np.arange(2), np.array([[0, 0, 1, 1]]), 1, 3, (0,)
    )
    rows = json.loads(ENGINE.dump(partition, pad=True))["physical_to_logical_map"]
    assert rows == [[0, 1, 2, 0, 2, 3]]


def test_unequal_or_overfull_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of slots, found 2, 3"):
        ENGINE.dump(replace(TWO, slots=(2, 3)))
    with pytest.raises(ValueError, match="layer 1: GPU 0 holds 2 experts, slots are 1"):
        ENGINE.dump(replace(TWO, slots=1))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"physical_to_logical_map": [[0, 1, 1', "not JSON"),
        (b"[[0, 1]]", "expected a JSON object, found list"),
        (b'{"physical_to_logical_map": [[0, 1]], "version": 1}', "the only key must be"),
        (b'{"logical_count": [[3, 1]]}', "the only key must be"),
        (b'{"physical_to_logical_map": 3}', "must be a list of lists"),
        (b'{"physical_to_logical_map": []}', "must be a list of lists"),
        (b'{"physical_to_logical_map": [[]]}', "must be a list of lists"),
        (b'{"physical_to_logical_map": [[0, 1], [0]]}', "layer 1 has 1"),
        (
            b'{"physical_to_logical_map": [[0, "1"]]}',
            "layer 0, slot 1: an expert is a whole number, found '1'",
        ),
        (b'{"physical_to_logical_map": [[0, true]]}', "layer 0, slot 1: .* found True"),
        (b'{"physical_to_logical_map": [[0, 1.0]]}', "found 1.0"),
        (b'{"physical_to_logical_map": [[0, -1]]}', "found -1"),
        (b'{"physical_to_logical_map": [[0, 99999999999999999999]]}', "whole number"),
        (b'{"physical_to_logical_map": [[0, 1, 0]]}', "3 slots on 2 GPUs"),
        (b'{"physical_to_logical_map": [[0, 2]]}', "layer 0: expert 1 is on no GPU"),
        (b'{"physical_to_logical_map": [[1, 1, 0, 1]]}', "GPU 0 holds expert 1 twice"),
    ],
)
def test_a_broken_file_is_refused_by_rule(content: bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ENGINE.load(content, gpus=2)


def test_a_layer_that_has_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="layer 4 is not among the 4 rows"):
        ENGINE.load(ENGINE.dump(TWO), gpus=2, layer_ids=(1, 4))


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=60), at=st.integers(0, 70))
def test_no_content_ends_in_another_error(content: bytes, at: int) -> None:
    whole = ENGINE.dump(TWO)
    for attempt in (content, whole[:at], whole[:at] + content + whole[at + len(content) :]):
        with suppress(ValueError):
            ENGINE.load(attempt, gpus=2)


def test_sglang_takes_a_path_for_a_file_by_its_ending() -> None:
    assert ENGINE.notes(TWO, "map.json").command[-2:] == ("--init-expert-location", "map.json")
    with pytest.raises(ValueError, match=r"ends in \.json, found 'map'"):
        ENGINE.notes(TWO, "map")
