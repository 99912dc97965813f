"""OmniPlacement's pattern: shape, zeros and ones, GPUs of different numbers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from moeopt.engines.eplb import Eplb
from moeopt.engines.omniplacement import OmniPlacement
from moeopt.placement import Placement

ENGINE = OmniPlacement()
HOSTS = np.array(
    [[[True, False], [True, True], [True, False]], [[False, True], [True, False], [False, True]]]
)
UNEQUAL = Placement(HOSTS, HOSTS.argmax(axis=2), 1, 3, (2, 5))


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_the_array_is_of_gpus_layers_and_experts() -> None:
    pattern: Any = np.load(io.BytesIO(ENGINE.dump(UNEQUAL)))
    assert (pattern.dtype, pattern.shape) == (np.int32, (2, 2, 3))
    assert pattern.tolist() == [[[1, 1, 1], [0, 1, 0]], [[0, 1, 0], [1, 0, 1]]]


def test_gpus_and_layers_may_hold_different_numbers() -> None:
    assert ENGINE.check(UNEQUAL) == ""
    assert ENGINE.load(ENGINE.dump(UNEQUAL), layer_ids=(2, 5)) == UNEQUAL
    assert ENGINE.read(ENGINE.dump(UNEQUAL)).rows.tolist() == [[0, 1, 2, 1, -1, -1], [1, -1, -1, 0, 2, -1]]


def test_free_slots_are_filled_on_request() -> None:
    full = ENGINE.load(ENGINE.dump(UNEQUAL, pad=True))
    assert full.hosts.all()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, bool])
def test_any_whole_type_is_read(dtype: type) -> None:
    pattern: Any = HOSTS.transpose(2, 0, 1).astype(dtype)
    assert ENGINE.load(saved(np.asfortranarray(pattern)), layer_ids=(2, 5)) == UNEQUAL


def test_two_axes_are_a_physical_map_and_not_a_pattern() -> None:
    assert [one.accepts(saved(HOSTS.astype(int))) for one in (ENGINE, Eplb())] == [True, False]
    assert [one.accepts(saved(np.ones((2, 2), int))) for one in (ENGINE, Eplb())] == [False, True]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (saved(np.full((1, 1, 2), 2)), "GPU 0, layer 0, expert 0: 0 or 1, found 2"),
        (saved(np.full((1, 1, 2), -1)), "0 or 1, found -1"),
        (saved(np.ones((1, 1, 2))), "must hold whole numbers, found float64"),
        (saved(np.ones((1, 2), int)), r"must be \[GPUs, MoE layers, experts\], found shape \(1, 2\)"),
        (saved(np.ones((0, 1, 2), int)), r"found shape \(0, 1, 2\)"),
        (saved(np.zeros((2, 1, 2), int)), "layer 0: expert 0 is on no GPU"),
        (saved(np.array([[[1, 0]], [[1, 0]]])), "layer 0: expert 1 is on no GPU"),
        (saved(np.ones((1, 1, 2), int))[:-8], "needs 16 bytes, found 8"),
        (saved(np.ones((1, 1, 2), int)) + b"x", "needs 16 bytes, found 17"),
        (b"\x93NUMPY", "has no readable header"),
        (b"", "has no readable header"),
    ],
)
def test_a_broken_array_is_refused_by_rule(content: bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ENGINE.load(content)


def test_world_size_and_layers_must_be_those_asked_for() -> None:
    content = ENGINE.dump(UNEQUAL)
    with pytest.raises(ValueError, match="gpus are 2 in the file, asked for were 8"):
        ENGINE.load(content, gpus=8)
    with pytest.raises(ValueError, match="1 layer ids for 2 layers"):
        ENGINE.load(content, layer_ids=(2,))
