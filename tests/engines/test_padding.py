"""Free slots filled, and physical maps turned into placements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.engine import padded, physical_map, placement_of, repeated
from moeopt.placement import Placement
from tests.engine_strategies import ragged

PARTITION = Placement(np.arange(4)[None, :, None] // 2 == np.arange(2), np.array([[0, 0, 1, 1]]), 1, 3, (0,))


@settings(max_examples=150, deadline=None)
@given(placement=ragged(), seed=st.integers(0, 99), by_load=st.booleans())
def test_padding_fills_every_slot_and_moves_nothing(placement: Placement, seed: int, by_load: bool) -> None:
    loads = np.random.default_rng(seed).integers(0, 9, placement.primary.shape) if by_load else None
    full = padded(placement, loads=loads)
    assert (full.hosts.sum(axis=1) == placement.slots).all()
    assert (full.hosts | ~placement.hosts).all()
    assert (full.primary == placement.primary).all()
    assert padded(full, loads=loads) == full
    assert (physical_map(placement, pad=True, loads=loads) == physical_map(full)).all()


def test_without_loads_the_lowest_absent_experts_are_taken() -> None:
    assert physical_map(PARTITION, pad=True).tolist() == [[0, 1, 2, 0, 2, 3]]


def test_with_loads_the_hottest_share_is_halved_first() -> None:
    assert physical_map(PARTITION, pad=True, loads=[[1, 5, 9, 0]]).tolist() == [[0, 1, 2, 1, 2, 3]]
    wide = replace(PARTITION, slots=4)
    assert padded(wide, loads=[[1, 5, 9, 0]]).hosts.all()


def test_a_second_copy_halves_the_share_that_a_third_would_halve() -> None:
    hosts = np.eye(4, dtype=bool)[None]  # an expert a GPU, with a slot to spare each
    alone = Placement(hosts, hosts.argmax(axis=2), 1, 2, (0,))
    copies = padded(alone, loads=[[10, 4, 4, 0]]).hosts[0].sum(axis=1)
    assert copies.tolist() == [3, 2, 2, 1]  # 10 goes first, 5 second, then the fours before 3.33
    assert padded(alone, loads=[[12, 4, 4, 0]]).hosts[0].sum(axis=1).tolist() == [4, 2, 1, 1]


@pytest.mark.parametrize(
    "loads", [[[1, 2, 3]], [1, 2, 3, 4], [[1, 2, 3, np.nan]], [[1, 2, 3, np.inf]], [[1, 2, 3, -1]]]
)
def test_loads_that_are_none_are_refused(loads: object) -> None:
    with pytest.raises(
        ValueError, match=r"loads must be finite numbers \[layers, experts\] \(1, 4\), at least 0"
    ):
        padded(PARTITION, loads=loads)  # type: ignore[arg-type]


def test_what_cannot_be_filled_is_refused() -> None:
    with pytest.raises(ValueError, match="5 slots cannot be filled with distinct experts, there are 4"):
        padded(replace(PARTITION, slots=5))
    with pytest.raises(ValueError, match="GPU 0 holds 2 experts, slots are 1"):
        padded(replace(PARTITION, slots=1))


def test_a_free_slot_is_minus_one_where_it_is_allowed() -> None:
    rows = np.array([[0, 1, 1, -1]])
    found = placement_of(rows, experts=2, gpus=2, nodes=1, layer_ids=(0,), model="", free=True)
    assert found.hosts[0].tolist() == [[True, False], [True, True]]
    assert found == placement_of(rows, experts=2, gpus=2, nodes=1, layer_ids=(0,), model="", once=False)
    with pytest.raises(ValueError, match=r"slot 3: expert -1 out of range 0\.\.1"):
        placement_of(rows, experts=2, gpus=2, nodes=1, layer_ids=(0,), model="")
    with pytest.raises(ValueError, match="expert -2 out of range"):
        placement_of(rows - 1, experts=2, gpus=2, nodes=1, layer_ids=(0,), model="", free=True)
    assert repeated(np.array([[-1, -1, 1, 1]]), gpus=2).tolist() == [[0, 1, 1]]


def test_sizes_are_refused_before_they_are_allocated() -> None:
    few = np.zeros((1000, 2), np.int64)
    with pytest.raises(ValueError, match="layer 0: expert 1 is on no GPU"):
        placement_of(few, experts=10**12, gpus=2, nodes=1, layer_ids=tuple(range(1000)), model="")
    many = np.arange(1 << 16)[None]
    with pytest.raises(
        ValueError, match="layers x experts x GPUs must be at most 1073741824, found 1 x 65536 x 65536"
    ):
        placement_of(many, experts=1 << 16, gpus=1 << 16, nodes=1, layer_ids=(0,), model="")
