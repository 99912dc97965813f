"""The latency model: worked by hand on two batches, monotone in what it is told, strict about its settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.architectures import architecture
from moeopt.hardware import GPUS, LINKS, named_gpu, named_link
from moeopt.latency import BatchCounts, ExpertWork, Machine, Seconds, batch_seconds

MACHINE = Machine(
    flops=100.0,
    memory_bandwidth=10.0,
    near_bandwidth=8.0,
    far_bandwidth=2.0,
    near_latency=1.0,
    far_latency=3.0,
    flops_efficiency=0.5,
    memory_efficiency=0.5,
    link_efficiency=0.5,
)
WORK = ExpertWork(flops=50, weight_bytes=20, vector_bytes=4)
COUNTS = BatchCounts(
    loads=np.array([[4, 0, 2, 2], [3, 3, 0, 0]]),
    activated=np.array([[1, 0, 1, 1], [2, 1, 0, 0]]),
    largest=np.array([5, 2]),
    near=np.array([6, 2]),
    far=np.array([7, 0]),
    gpus_per_node=2,
)


def test_two_batches_by_hand() -> None:
    padded = batch_seconds(COUNTS, MACHINE, work=WORK)
    # near: 1 + 5 x 1 x 4 / 4 = 6; far: 3 + 5 x 2 x 4 / 1 = 43. Then 1 + 2 = 3 and 3 + 16 = 19.
    assert padded.dispatch.tolist() == padded.combine.tolist() == [43.0, 19.0]
    # An activation takes 50 / 50 = 1 s, an activated expert 20 / 5 = 4 s.
    assert padded.compute.tolist() == [4.0, 8.0]
    assert padded.busy.tolist() == [(4 + 0 + 4 + 4) / 4, (8 + 4) / 4]
    assert padded.utilisation.tolist() == [0.75, 0.375]
    assert padded.total.tolist() == [90.0, 46.0]
    bare = batch_seconds(COUNTS, replace(MACHINE, padded=False), work=WORK)
    # near: 1 + 6 x 4 / 4 = 7; far: 3 + 7 x 4 / 1 = 31. Then 1 + 2 = 3, and nothing beyond the node.
    assert bare.dispatch.tolist() == [31.0, 3.0]


def test_seconds_add_join_and_sum() -> None:
    times = batch_seconds(COUNTS, MACHINE, work=WORK)
    assert (times + times).total.tolist() == (2 * times.total).tolist()
    both = Seconds.join([times, times.only(1)])
    assert both.compute.tolist() == [4.0, 8.0, 8.0]
    assert both.summed.to_dict() == both.to_dict()
    assert times.to_dict() == {
        "dispatch": 62.0,
        "compute": 12.0,
        "combine": 62.0,
        "total": 136.0,
        "utilisation": 0.5,
    }


def test_nothing_sent_takes_no_time() -> None:
    none = np.zeros(2, np.int64)
    quiet = batch_seconds(replace(COUNTS, largest=none, near=none, far=none), MACHINE, work=WORK)
    assert quiet.dispatch.tolist() == quiet.combine.tolist() == [0.0, 0.0]
    one_gpu = replace(COUNTS, loads=COUNTS.loads[:, :1], activated=COUNTS.activated[:, :1], gpus_per_node=1)
    assert batch_seconds(one_gpu, MACHINE, work=WORK).dispatch.tolist() == [0.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), padded=st.booleans(), factor=st.floats(1, 10))
def test_a_faster_machine_is_no_slower_and_more_work_no_faster(
    seed: int, padded: bool, factor: float
) -> None:
    rng = np.random.default_rng(seed)
    loads = rng.integers(1, 9, (3, 4))
    counts = BatchCounts(loads, np.minimum(loads, 3), *rng.integers(0, 9, (3, 3)), gpus_per_node=2)  # type: ignore[misc]
    machine = replace(MACHINE, padded=padded)
    slow = batch_seconds(counts, machine, work=WORK)
    assert (slow.utilisation <= 1 + 1e-12).all()
    for field in ("flops", "memory_bandwidth", "near_bandwidth", "far_bandwidth"):
        fast = batch_seconds(counts, replace(machine, **{field: factor * getattr(machine, field)}), work=WORK)
        assert (fast.total <= slow.total + 1e-9).all()
    more = batch_seconds(replace(counts, loads=counts.loads + 1), machine, work=WORK)
    assert (more.compute >= slow.compute).all()


def test_presets_are_dense_one_way_figures() -> None:
    machine = Machine.of("H100-SXM", "nvlink-ib-ndr", link_efficiency=1.0)
    assert (machine.flops, machine.memory_bandwidth) == (989.5e12, 3.35e12)
    assert (machine.near_bandwidth, machine.far_bandwidth) == (450e9, 50e9)
    assert machine.link_efficiency == 1.0
    assert machine.name == "h100-sxm, nvlink-ib-ndr, bf16"
    for gpu in GPUS.values():
        assert gpu.source.startswith(("NVIDIA", "AMD"))
        assert gpu.fp8_flops is None or gpu.fp8_flops == pytest.approx(2 * gpu.bf16_flops, rel=0.02)
        fitting = [link for link in LINKS if link.partition("-")[0] in dict(gpu.fabrics)]
        assert all(Machine.of(gpu.name, link).flops == gpu.bf16_flops for link in fitting)
        assert len(fitting) == 4 * len(gpu.fabrics)
    assert Machine.of("b200", "pcie-ib-xdr", compute="fp8").flops == 4.5e15


def test_the_work_of_a_model_is_that_of_its_experts() -> None:
    work = ExpertWork.of("mixtral-8x7b", vector_bytes=8192)
    assert work.flops == 2 * 3 * 4096 * 14336
    assert work.weight_bytes == 2 * 3 * 4096 * 14336
    assert work == ExpertWork.of(architecture("mixtral-8x7b"), vector_bytes=8192)
    assert ExpertWork.of("mixtral-8x7b", precision="fp8", vector_bytes=1).weight_bytes < work.weight_bytes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flops": 0.0}, "flops must be more than 0, found 0"),
        ({"far_bandwidth": float("inf")}, "far_bandwidth must be a number, found inf"),
        ({"near_latency": -1.0}, "near_latency must be at least 0, found -1"),
        ({"link_efficiency": 1.5}, "link_efficiency must be at most 1, found 1.5"),
        ({"memory_efficiency": 0}, "memory_efficiency must be more than 0"),
        ({"memory_bandwidth": "fast"}, "memory_bandwidth must be a number, found 'fast'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(MACHINE, **changes)


def test_hardware_that_is_unknown_or_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="'tpu'; known are a100-80gb"):
        named_gpu("tpu")
    with pytest.raises(ValueError, match="'string'; known are nvlink-ib-hdr"):
        named_link("string")
    with pytest.raises(ValueError, match="l40s has no nvlink, it has pcie"):
        Machine.of("l40s", "nvlink-ib-ndr")
    with pytest.raises(ValueError, match="a100-80gb does not compute in fp8"):
        Machine.of("a100-80gb", "nvlink-ib-hdr", compute="fp8")
    with pytest.raises(ValueError, match="compute must be bf16 or fp8, found 'fp4'"):
        Machine.of("b200", "nvlink-ib-xdr", compute="fp4")
