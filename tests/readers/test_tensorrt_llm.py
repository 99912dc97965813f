"""Statistics of TensorRT-LLM become loads, summed over ranks and iterations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeopt.readers.tensorrt_llm import TensorRTLLM
from moeopt.supplement import Supplement
from moeopt.workload import Workload
from tests.test_safetensors import encoded

READER, NONE = TensorRTLLM(), Supplement()
META = {"num_experts": 4, "num_experts_per_token": 2}
COUNTS = {"100_3": [1, 2, 3, 4], "100_10": [4, 4, 1, 1], "101_3": [10, 0, 0, 10], "101_10": [0, 0, 0, 20]}


def statistics(folder: Path, *ranks: dict[str, list[int]], meta: Any = META) -> Path:
    """The folder that so many ranks write."""
    (folder / "meta_info.json").write_text(json.dumps(meta))
    for rank, counts in enumerate(ranks):
        tensors = {name: np.array(count, np.int64) for name, count in counts.items()}
        (folder / f"rank{rank}.safetensors").write_bytes(encoded(tensors, __metadata__={"a": "b"}))
    return folder


def read(folder: Path, supplement: Supplement = NONE) -> Workload:
    assert READER.accepts(folder, b"")
    return READER.read(folder, supplement)


def loads(workload: Workload) -> list[list[int]]:
    return [layer.load.tolist() for layer in workload.layers]


def test_counts_are_summed_over_iterations_and_layers_are_absolute(tmp_path: Path) -> None:
    found = read(statistics(tmp_path, COUNTS))
    assert (found.layer_ids, found.n_experts, found.top_k) == ((3, 10), 4, 2)
    assert loads(found) == [[11, 2, 3, 14], [4, 4, 1, 21]]
    assert found.tokens.tolist() == [15]


def test_ranks_are_summed_and_other_files_are_not_read(tmp_path: Path) -> None:
    folder = statistics(tmp_path, *[COUNTS] * 12)  # rank10 comes after rank9
    (folder / "rank0_numtokens.json").write_text("{}")
    (folder / "cooccurrence_rank0.safetensors").write_bytes(b"")
    assert loads(read(folder)) == [[132, 24, 36, 168], [48, 48, 12, 252]]


def test_what_the_user_says_is_taken_or_refused(tmp_path: Path) -> None:
    folder = statistics(tmp_path, COUNTS)
    assert read(folder, Supplement(layer_ids=(10,), model="m")).layer_ids == (10,)
    with pytest.raises(ValueError, match="top_k is given as 8, the recording says 2"):
        read(folder, Supplement(top_k=8))
    with pytest.raises(ValueError, match=r"layer 0 is not recorded, the layers are \[3, 10\]"):
        read(folder, Supplement(layer_ids=(0,)))


def test_a_rank_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = statistics(tmp_path, COUNTS, COUNTS, COUNTS)
    (folder / "rank1.safetensors").unlink()
    with pytest.raises(ValueError, match="files of all ranks must be there, found none of rank 1"):
        read(folder)
    statistics(folder, COUNTS, COUNTS, COUNTS, meta=META | {"ep_size": 4, "experts_per_rank": 1})
    with pytest.raises(ValueError, match="found none of rank 3"):
        read(folder)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (None, "meta_info.json must be a JSON object, found NoneType: nothing was recorded"),
        ([], "meta_info.json must be a JSON object, found list"),
        ({"num_experts": 4}, "field 'num_experts_per_token' is missing"),
        (META | {"num_experts": "4"}, "field 'num_experts' must be int"),
        (META | {"num_experts": 0}, "num_experts must lie between 1 and 65536, found 0"),
        (META | {"num_experts": 10**40}, r"found 1e\+40"),
        (META | {"num_experts": 5}, r"rank0\.safetensors: tensor 100_3 must count the tokens of 5 experts"),
        (META | {"num_experts_per_token": 5}, "top-k must lie between 1 and the 4 experts, found 5"),
    ],
)
def test_what_is_wrong_with_the_meta_file_is_named(tmp_path: Path, meta: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(statistics(tmp_path, COUNTS, meta=meta))


def test_a_meta_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = statistics(tmp_path, COUNTS)
    for content in (b"{", b"\xff", b"[" * 100_000):
        (folder / "meta_info.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"meta_info\.json: not JSON"):
            read(folder)
    (folder / "meta_info.json").write_bytes(b" " * (1 << 21))
    with pytest.raises(ValueError, match=r"meta_info\.json may have 1048576 bytes, found 2097152"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "counts", "message"),
    [
        ("3", [1, 2, 3, 4], "a tensor is named <iteration>_<layer>, found '3'"),
        ("100_None", [1, 2, 3, 4], "found '100_None'"),
        ("1_-1", [1, 2, 3, 4], "found '1_-1'"),
        ("1_03", [1, 2, 3, 4], "found '1_03'"),
        ("1_3", [[1, 2, 3, 4]], r"tensor 1_3 must count the tokens of 4 experts, found int64 \(1, 4\)"),
        ("1_3", [1, 2, 3, -4], r"tensor 1_3 must lie from 0 to 2\^46, found -4 to 3"),
        ("1_3", [1, 2, 3, 2**46], r"tensor 1_3 must lie from 0 to 2\^46"),
        ("1_3", [0, 0, 0, 0], "every count of 1 layers is zero"),
    ],
)
def test_tensors_that_are_no_counts_are_refused(tmp_path: Path, name: str, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(statistics(tmp_path, {name: counts}))


def test_floats_are_no_counts(tmp_path: Path) -> None:
    folder = statistics(tmp_path, COUNTS)
    (folder / "rank0.safetensors").write_bytes(encoded({"1_3": np.ones(4)}))
    with pytest.raises(
        ValueError, match=r"rank0\.safetensors: tensor 1_3 must count .* found float64 \(4,\)"
    ):
        read(folder)


def test_other_folders_and_files_are_not_accepted(tmp_path: Path) -> None:
    assert not READER.accepts(tmp_path, b"")
    statistics(tmp_path)
    assert not READER.accepts(tmp_path, b"")
    assert not READER.accepts(tmp_path / "meta_info.json", b"{")
    assert not READER.accepts(tmp_path / "absent", b"")
    (tmp_path / "rankx.safetensors").write_bytes(b"")
    assert not READER.accepts(tmp_path, b"")


def test_links_and_statistics_past_the_limit_are_refused(tmp_path: Path) -> None:
    folder = statistics(tmp_path, COUNTS)
    size = (folder / "rank0.safetensors").stat().st_size
    with pytest.raises(ValueError, match=f"statistics may have {size - 1} bytes, found {size}"):
        TensorRTLLM(limit=size - 1).read(folder, NONE)
    (folder / "rank1.safetensors").symlink_to(folder / "rank0.safetensors")
    with pytest.raises(ValueError, match=r"found the symbolic link 'rank1\.safetensors'"):
        read(folder)


def test_a_rank_that_lost_an_iteration_is_named(tmp_path: Path) -> None:
    lost = {name: count for name, count in COUNTS.items() if name != "101_3"}
    with pytest.raises(ValueError, match=r"rank1\.safetensors: all ranks must have the same tensors, 101_3"):
        read(statistics(tmp_path, COUNTS, lost))
