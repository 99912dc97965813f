"""EPLB's arrays: inverse maps that agree, no pickles, and the way back."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.engine import Engine, physical_map, placement_of
from moeopt.engines.eplb import ARRAYS, Eplb
from moeopt.placement import Placement
from tests.engine_strategies import ragged

ENGINE: Engine = Eplb()
TWO = Placement(
    np.array([[[True, False], [True, True], [False, True]], [[True, True], [True, False], [False, True]]]),
    np.array([[0, 0, 1], [0, 0, 1]]),
    2,
    2,
    (1, 3),
    "model",
)


def arrays(content: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


def archive(**changed: Any) -> bytes:
    """The archive of TWO with some arrays replaced, or left out where None."""
    kept = {
        name: value for name, value in {**arrays(ENGINE.dump(TWO)), **changed}.items() if value is not None
    }
    file = io.BytesIO()
    np.savez(file, **kept)
    return file.getvalue()


@settings(max_examples=60, deadline=None)
@given(placement=ragged())
def test_a_padded_placement_keeps_its_copies_and_comes_back(placement: Placement) -> None:
    content = ENGINE.dump(placement, pad=True)
    back = ENGINE.load(content, gpus=placement.gpus, nodes=placement.nodes)
    assert (back.hosts | ~placement.hosts).all()
    assert (back.hosts.sum(axis=1) == placement.slots).all()
    assert back.layer_ids == placement.layer_ids
    assert ENGINE.load(ENGINE.dump(back), gpus=back.gpus, nodes=back.nodes) == back


@settings(max_examples=40, deadline=None)
@given(placement=ragged())
def test_the_three_maps_agree(placement: Placement) -> None:
    found = arrays(ENGINE.dump(placement, pad=True))
    rows, slots_of, counts = (found[name] for name in ARRAYS[:3])
    assert all(found[name].dtype == np.int64 for name in ARRAYS)
    assert slots_of.shape[2] == counts.max()
    for layer in range(len(rows)):
        for expert in range(placement.n_experts):
            at = np.flatnonzero(rows[layer] == expert)
            assert counts[layer, expert] == len(at)
            assert slots_of[layer, expert].tolist() == at.tolist() + [-1] * (slots_of.shape[2] - len(at))


def test_a_placement_read_back_is_the_one_written() -> None:
    content = ENGINE.dump(TWO)
    assert ENGINE.load(content, gpus=2, nodes=2, model="model") == TWO
    found = arrays(content)
    assert found["physical_to_logical_map"].tolist() == [[0, 1, 1, 2], [0, 1, 0, 2]]
    assert found["logical_to_physical_map"][0].tolist() == [[0, -1], [1, 2], [3, -1]]
    assert found["expert_count"].tolist() == [[1, 2, 1], [2, 1, 1]]
    assert found["layer_ids"].tolist() == [1, 3]


def test_writing_twice_gives_the_same_arrays_and_free_slots_are_refused() -> None:
    assert arrays(ENGINE.dump(TWO)).keys() == set(ARRAYS)
    with pytest.raises(ValueError, match="layer 1: GPU 0 holds 2 experts, all 3 slots must be filled"):
        ENGINE.dump(replace(TWO, slots=3))
    with pytest.raises(ValueError, match="same number of slots"):
        ENGINE.dump(replace(TWO, slots=(2, 3)), pad=True)
    assert ENGINE.check(TWO) == ""


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"expert_count": None}, "array 'expert_count' is missing"),
        ({"layer_ids": np.array(["a", "b"])}, "'layer_ids' must hold whole numbers"),
        ({"layer_ids": np.array([1.0, 3.0])}, "'layer_ids' must hold whole numbers"),
        ({"layer_ids": np.array([1])}, "1 layer ids for 2 layers"),
        ({"layer_ids": np.array([[1, 3]])}, "layer_ids .layers. do not fit"),
        ({"expert_count": np.array(3)}, "do not fit"),
        ({"expert_count": np.zeros((2, 0), int)}, "do not fit"),
        ({"expert_count": np.array([[1, 1, 1], [2, 1, 1]])}, "expert_count does not belong"),
        ({"logical_to_physical_map": np.zeros((2, 3, 2), int)}, "logical_to_physical_map does not belong"),
        ({"physical_to_logical_map": np.array([0, 1])}, r"must be integers \[layers, slots\]"),
        ({"physical_to_logical_map": np.array([[0, 1, 1], [0, 1, 2]])}, "3 slots on 2 GPUs"),
        (
            {"physical_to_logical_map": np.array([[0, 1, 1, 3], [0, 1, 0, 2]])},
            "layer 1, slot 3: expert 3 out of range",
        ),
        (
            {"physical_to_logical_map": np.array([[0, 1, 1, 2], [0, 1, 2, 2]])},
            "layer 3: GPU 1 holds expert 2 twice",
        ),
        (
            {"physical_to_logical_map": np.array([[0, 1, 0, 1], [0, 1, 0, 2]])},
            "layer 1: expert 2 is on no GPU",
        ),
        ({"physical_to_logical_map": np.array([[None, 1]])}, "pickle"),
    ],
)
def test_a_broken_archive_is_refused_by_rule(changed: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ENGINE.load(archive(**changed), gpus=2)


def test_no_truncated_or_garbled_archive_ends_in_another_error() -> None:
    whole = ENGINE.dump(TWO)
    for at in range(0, len(whole), 7):
        garbled = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        for content in (whole[:at], garbled):
            with suppress(ValueError):
                ENGINE.load(content, gpus=2)
    with pytest.raises(ValueError, match="damaged or truncated"):
        ENGINE.load(whole[:-30], gpus=2)


def test_a_number_of_gpus_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="4 slots on 3 GPUs"):
        ENGINE.load(ENGINE.dump(TWO), gpus=3)
    with pytest.raises(ValueError, match="4 slots on 0 GPUs"):
        placement_of(physical_map(TWO), experts=3, gpus=0, nodes=1, layer_ids=(1, 3), model="")
