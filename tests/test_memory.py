"""Slots from memory: bytes to the last one, published sizes, and errors that say what to change."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from moeopt.architectures import ARCHITECTURES, Architecture, architecture
from moeopt.capacity_cli import capacity
from moeopt.cluster import Cluster
from moeopt.memory import GIB, PRECISIONS, Capacity, Precision, expert_bytes

V3 = ARCHITECTURES["deepseek-v3"]


def grouped(hidden: int, *, heads: int, kv: int, width: int = 128, norms: int = 0, bias: bool = False) -> int:
    """Parameters of grouped-query attention."""
    columns = width * (heads + 2 * kv)
    return hidden * columns + heads * width * hidden + bias * columns + norms


def latent(hidden: int, *, heads: int, query: int | None) -> int:
    """Parameters of multi-head latent attention: 128 + 64 wide queries and keys, rank 512, norms of the ranks."""
    queries = hidden * heads * 192 if query is None else query * (hidden + 1 + heads * 192)
    return queries + hidden * (512 + 64) + 512 + 512 * heads * 256 + heads * 128 * hidden


# vocabulary, attention of a layer, dense layers, their width, numbers an expert besides its row of the router,
# other numbers a MoE layer
REST = {
    "deepseek-v3": (129_280, latent(7168, heads=128, query=1536), 3, 18_432, 1, 0),
    "llama-4-maverick": (202_048, grouped(5120, heads=40, kv=8), 24, 16_384, 0, 0),
    "qwen3-235b-a22b": (151_936, grouped(4096, heads=64, kv=4, norms=256), 0, 0, 0, 0),
    "qwen3-30b-a3b": (151_936, grouped(2048, heads=32, kv=4, norms=256), 0, 0, 0, 0),
    "deepseek-moe-16b": (102_400, grouped(2048, heads=16, kv=16), 1, 10_944, 0, 0),
    "deepseek-v2-lite": (102_400, latent(2048, heads=16, query=None), 1, 10_944, 0, 0),
    "moonlight-16b-a3b": (163_840, latent(2048, heads=16, query=None), 1, 11_264, 1, 0),
    "qwen1.5-moe-a2.7b": (151_936, grouped(2048, heads=16, kv=16, bias=True), 0, 0, 0, 2048),
    # output bias and a sink for each head
    "gpt-oss-20b": (201_088, grouped(2880, heads=64, kv=8, width=64, bias=True) + 2880 + 64, 0, 0, 1, 0),
    "olmoe-1b-7b": (50_304, grouped(2048, heads=16, kv=16, norms=4096), 0, 0, 0, 0),
    "mixtral-8x7b": (32_000, grouped(4096, heads=32, kv=8), 0, 0, 0, 0),
}
BEYOND = {"llama-4-maverick": 871_932_416, "moonlight-16b-a3b": 1_728}  # see ARCHITECTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_published_parameters_are_those_of_the_configuration(name: str) -> None:
    shape = ARCHITECTURES[name]
    vocabulary, attention, dense, width, router, more = REST[name]
    hidden, layers = shape.hidden, shape.layers + dense
    counted = (
        2 * vocabulary * hidden + hidden + layers * (attention + 2 * hidden) + dense * 3 * hidden * width
    )
    shared = shape.shared * 3 * hidden * shape.intermediate
    counted += shape.layers * (shape.experts * (hidden + router) + shared + more) + shape.routed_parameters
    assert shape.parameters == counted + BEYOND.get(name, 0)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("deepseek-v3", 653.9), ("mixtral-8x7b", 45.1), ("qwen3-235b-a22b", 227.1), ("gpt-oss-20b", 19.1)],
)
def test_routed_experts_are_most_of_a_model(name: str, billions: float) -> None:
    shape = ARCHITECTURES[name]
    assert shape.other_parameters is not None
    assert shape.routed_parameters / 1e9 == pytest.approx(billions, abs=0.05)
    assert shape.other_parameters < shape.routed_parameters / 4


@pytest.mark.parametrize(
    ("precision", "bits"),
    [
        ("fp32", 32),
        ("bf16", 16),
        ("fp8", "8.001953125"),
        ("int4", "4.125"),
        ("mxfp4", "4.25"),
        ("nvfp4", "4.5"),
    ],
)
def test_a_weight_takes_its_bits_and_its_part_of_a_scale(precision: str, bits: int | str) -> None:
    assert PRECISIONS[precision].bits_per_weight == Fraction(bits)


def test_an_expert_is_counted_to_the_last_byte() -> None:
    weights = 3 * 7168 * 2048
    assert expert_bytes(V3, "bf16") == 2 * weights
    assert expert_bytes(V3, "fp8") == weights + 4 * 3 * (7168 // 128) * (2048 // 128)
    gpt = ARCHITECTURES["gpt-oss-20b"]  # gate and up fused or not: 3 x 2880 numbers of bias, in bf16
    assert expert_bytes(gpt, "mxfp4") == 3 * 2880 * (2880 // 2 + 2880 // 32) + 2 * 3 * 2880
    assert expert_bytes(replace(V3, matrices=2, parameters=None), "bf16") == 2 * 2 * 7168 * 2048


@given(outputs=st.integers(1, 500), inputs=st.integers(1, 500), name=st.sampled_from(sorted(PRECISIONS)))
def test_a_matrix_that_blocks_do_not_fill_takes_more_than_its_share(
    outputs: int, inputs: int, name: str
) -> None:
    stored = PRECISIONS[name]
    height, width = stored.block or (1, 1)
    exact = stored.bits_per_weight * outputs * inputs / 8
    found = stored.matrix_bytes(outputs, inputs)
    assert found >= exact
    if outputs % height == 0 and inputs % width == 0:
        assert found - exact < 1


@given(
    name=st.sampled_from(sorted(ARCHITECTURES)),
    gpus=st.integers(1, 512),
    memory=st.integers(1, 300),
    cache=st.integers(0, 60),
    precision=st.sampled_from(sorted(PRECISIONS)),
)
def test_the_slots_fit_and_one_more_would_not(
    name: str, gpus: int, memory: int, cache: int, precision: str
) -> None:
    try:
        found = Capacity.of(
            name,
            gpus=gpus,
            gpu_memory_gib=memory,
            kv_cache_gib=cache,
            precision=precision,
            other_weights_gib=1,
        )
    except ValueError:
        return
    rest = found.other_bytes + found.kv_cache_bytes + found.reserve_bytes
    assert rest + found.slots * found.slot_bytes <= found.gpu_bytes
    if found.slots < found.model.experts:
        assert rest + (found.slots + 1) * found.slot_bytes > found.gpu_bytes
    assert found.free_slots >= 0


EXPLAINED = """\
GPU memory                                         85,899,345,920 B   80.000 GiB
- other weights 17,117,648,384 in fp8 / 1          17,121,827,498 B   15.946 GiB
- KV cache                                         21,474,836,480 B   20.000 GiB
- reserve       activations, buffers                4,294,967,296 B    4.000 GiB
= for experts                                      43,007,714,646 B   40.054 GiB
one expert      3 x 7168 x 2048 in fp8                 44,050,944 B    0.041 GiB
/ one slot      58 layers of it                     2,554,954,752 B    2.379 GiB
= slots         16 a GPU and layer
16 GPUs x 16 = 256 slots a layer for 256 experts, 0 free for copies"""


def test_the_arithmetic_is_shown() -> None:
    found = Capacity.of(
        "DeepSeek-V3", gpus=16, gpu_memory_gib=80, kv_cache_gib=20, precision="fp8", dense_precision="fp8"
    )
    assert found.explain() == EXPLAINED
    assert found.to_dict()["slots"] == found.slots == 16


def test_a_gpu_holds_no_expert_twice() -> None:
    found = Capacity.of("gpt-oss-20b", gpus=2, gpu_memory_gib=24, precision="mxfp4")
    assert found.left_bytes // found.slot_bytes > found.slots == 32
    assert "32 a GPU and layer (every expert)" in found.explain()
    assert "2880 + bias in mxfp4" in found.explain()


def test_other_weights_are_split_over_those_that_share_them() -> None:
    whole = Capacity.of("mixtral-8x7b", gpus=8, gpu_memory_gib=80)
    split = Capacity.of("mixtral-8x7b", gpus=8, gpu_memory_gib=80, dense_shards=8)
    assert split.other_bytes == -(-whole.other_bytes // 8)


def test_a_cluster_comes_from_memory() -> None:
    cluster = Cluster.from_memory(
        "deepseek-v3",
        gpus=32,
        nodes=4,
        node_cost=2,
        gpu_memory_gib=80,
        kv_cache_gib=20,
        reserve=0.05,
        precision="fp8",
    )
    assert cluster == Cluster(4, 8, 10, node_cost=2)


def test_a_model_and_a_precision_of_ones_own() -> None:
    tiny = Architecture("tiny", 64, 32, experts=8, layers=2, top_k=2, matrices=2)
    stored = Precision("six", 6, (8, 8), 16)
    found = Capacity.of(tiny, gpus=2, gpu_memory_gib=1, precision=stored, other_weights_gib=0.5, reserve=0)
    assert found.expert_bytes == 2 * (64 * 32 * 6 + 8 * 4 * 16) // 8
    assert found.other_bytes == GIB // 2
    with pytest.raises(ValueError, match="tiny: parameters are not known: give other_weights_gib"):
        Capacity.of(tiny, gpus=2, gpu_memory_gib=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"kv_cache_gib": 60},
            "KV cache 60.00 GiB.*leave -15.88 GiB.*the KV cache may take 41.74 GiB at most",
        ),
        ({"gpu_memory_gib": 24}, "the other weights may take 20.42 GiB at most"),
        ({"gpu_memory_gib": 24, "kv_cache_gib": 25}, "other weights alone is not it: 4.58 GiB short without"),
        ({"kv_cache_gib": 20}, "8 GPUs x 10 = 80 slots.*256 experts: 26 GPUs at least, or 52.03 GiB more"),
        ({"reserve": 1}, "below 1, found 1"),
        ({"reserve": -0.1}, "reserve must not be negative, found -0.1"),
        ({"gpu_memory_gib": float("nan")}, "gpu_memory_gib must be a number, found nan"),
        ({"gpu_memory_gib": True}, "gpu_memory_gib must be a number, found True"),
        ({"gpus": 0}, "gpus must be a whole number, at least 1, found 0"),
        ({"dense_shards": 3}, "gpus must be divisible by dense_shards, found 8 and 3"),
        ({"precision": "fp7"}, "no precision is named 'fp7'; known are fp32, bf16"),
    ],
)
def test_errors_say_which_term_is_too_big(settings: dict[str, float], words: str) -> None:
    given = {"gpus": 8, "gpu_memory_gib": 80, "precision": "fp8", **settings}
    with pytest.raises(ValueError, match=words):
        Capacity.of("deepseek-v3", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden": 0}, "hidden must be a whole number, at least 1, found 0"),
        ({"experts": 4}, "top_k 8 exceeds the 4 experts"),
        ({"matrices": 4}, "matrices must be 2 or 3, found 4"),
        ({"parameters": 10}, "10 parameters in all, 653908770816 in routed experts alone"),
        ({"shared": 0.5}, "shared must be a whole number"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(fields: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(V3, **fields)  # type: ignore[arg-type]


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no model is named 'gpt-5'; known are deepseek-v3, "):
        architecture("gpt-5")


def test_the_command_shows_the_terms_and_says_them_as_json() -> None:
    app = typer.Typer()
    app.command()(capacity)
    words = ["deepseek-v3", "--gpus", "16", "--gpu-memory", "80", "--kv-cache", "20"]
    words += ["--precision", "fp8", "--dense-precision", "fp8"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "2,554,954,752" in shown.output
    assert "16 GPUs x 16 = 256 slots a layer for 256 experts" in shown.output
    answer = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert (answer["slots"], answer["slot_bytes"], answer["free_slots"]) == (16, 2_554_954_752, 0)
    assert set(answer) >= {"model", "gpus", "gpu_bytes", "other_bytes", "kv_cache_bytes", "reserve_bytes"}
    refused = CliRunner().invoke(app, ["mixtral-8x7b", "--gpus", "1", "--gpu-memory", "24"])
    assert isinstance(refused.exception, ValueError)
