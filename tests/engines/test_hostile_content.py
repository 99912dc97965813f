"""No content, made by accident or malice, ends in anything but a placement or a ValueError, and soon."""

from __future__ import annotations

import io
import json
import time
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.engine import KEY, Engine
from moeopt.engines.eplb import ARRAYS, Eplb
from moeopt.engines.omniplacement import OmniPlacement
from moeopt.engines.plain_map import Plain
from moeopt.engines.sglang import SGLang
from moeopt.engines.tensorrt_llm import TensorRTLLM
from moeopt.engines.vllm import VLLM
from moeopt.engines.vllm_ascend import VLLMAscend
from moeopt.engines.vllm_proposals import VLLMProposedMap, VLLMProposedRanks
from moeopt.placement import Placement

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
HOSTS = np.tile(np.array([[True, False], [False, True], [True, False], [False, True]]), (2, 1, 1))
PLACED = Placement(HOSTS, HOSTS.argmax(axis=2), 1, 2, (0, 1))
DUMPS = {engine.name: engine.dump(PLACED) for engine in ENGINES}
SOON = 5.0
DEEP = 200_000


def header(shape: str, descr: str = "<i8") -> bytes:
    """An `.npy` content that declares a shape and holds 16 bytes."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def copied(rows: list[int], experts: int) -> bytes:
    """An archive whose inverse would need experts x most copies numbers."""
    file = io.BytesIO()
    np.savez_compressed(
        file, physical_to_logical_map=np.array([rows]), expert_count=np.zeros((1, experts), np.int64)
    )
    return file.getvalue()


HUGE = "9" * 100_000
HOSTILE = {
    "nothing": b"",
    "zeros": bytes(100_000),
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    **{
        f"deep {key}": f'{{"{key}": '.encode() + b"[" * DEEP
        for key in (
            KEY,
            "moeopt_vllm_plan",
            "layer_list",
            "expert_to_ep_rank",
            "initial_global_assignments",
            "layers",
        )
    },
    "digits": HUGE.encode(),
    "a huge expert": f'{{"{KEY}": [[0, {HUGE}]]}}'.encode(),
    "a huge rank": f'{{"expert_to_ep_rank": [0, {HUGE}]}}'.encode(),
    "NaN": f'{{"{KEY}": [[NaN, 1]]}}'.encode(),
    "infinity": b"[[Infinity, -Infinity]]",
    "experts beyond the slots": f'{{"{KEY}": {[[0, 1048575]] * 2000}}}'.encode(),
    "experts beyond the slots, YAML": b"num_slots: 2\ninitial_global_assignments:\n"
    + b"".join(b"  %d: [0, 1048575]\n" % layer for layer in range(2000)),
    "10^9 layers": header("(1000000000, 2)"),
    "10^9 x 10^9 x 10^9": header("(1000000000, 1000000000, 1000000000)"),
    "10^30": header(f"({10**30},)"),
    "negative axis": header("(-1, -2)"),
    "negative axes of three": header("(-1, -2, 1)"),
    "an axis that is true": header("(True, 2)"),
    "no axes": header("()"),
    "objects": header("(2, 1)", "|O"),
    "records": header("(2, 1)", "i4,i4"),
    "an empty type": header("(1000000000, 2)", "|V0"),
    "a header of Python 2": header("(2L, 1L, 1L)"),
    "code in the header": header("__import__('os').abort()"),
    "deep header": header("(" * 3000),
    "10^9 in an archive": zipped(header("(1000000000, 2)")),
    "10^18 in an archive": zipped(header("(1000000000, 1000000000)")),
    "objects in an archive": zipped(header("(2, 1)", "|O")),
    "inverse of 10^10": copied([0] * 100_000, 100_000),
    "a count of GPUs": json.dumps(
        {"model": "", "nodes": 1, "gpus": 10**9, "slots": 1, "experts": 10**9, "layers": {"0": []}}
    ).encode(),
    "a count of layers": b'{"moe_layer_count": 1000000000, "layer_list": []}',
    "text in UTF-16": json.dumps([[0, 1]]).encode("utf-16"),
    "half a character": b'{"\xc3',
}


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_content_is_refused_soon(engine: Engine, content: bytes) -> None:
    begun = time.perf_counter()
    assert engine.accepts(content) in (True, False)
    with suppress(ValueError):  # "text in UTF-16" is a map
        engine.read(content)
    for settings_ in ({"gpus": 2}, {"gpus": 1_000_000_000}):
        with suppress(ValueError):
            engine.load(content, **settings_)
    assert time.perf_counter() - begun < SOON


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_every_engine_refuses_what_is_no_map(engine: Engine) -> None:
    for name in (
        "nothing",
        "deep lists",
        "digits",
        "10^9 layers",
        "10^9 in an archive",
        "code in the header",
    ):
        with pytest.raises(ValueError, match=r"\S"):
            engine.read(HOSTILE[name])


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_no_damage_ends_in_another_error(engine: Engine) -> None:
    whole = DUMPS[engine.name]

    @settings(max_examples=150, deadline=None)
    @given(at=st.integers(0, len(whole)), end=st.integers(0, 12), put=st.binary(max_size=12))
    def holds(at: int, end: int, put: bytes) -> None:
        for attempt in (whole[:at], whole[:at] + put + whole[at + end :], put):
            assert engine.accepts(attempt) in (True, False)
            with suppress(ValueError):
                engine.read(attempt)
            with suppress(ValueError):
                engine.load(attempt, gpus=2)

    holds()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_the_content_of_another_engine_is_refused(engine: Engine) -> None:
    for other, content in DUMPS.items():
        if engine.accepts(content):
            assert other == engine.name or {other, engine.name} == {"eplb", "vllm-proposed-map"}
        elif other not in ("sglang",) or engine.name != "eplb":  # EPLB's map alone is a form of its own
            with pytest.raises(ValueError, match=r"\S"):
                engine.read(content)
