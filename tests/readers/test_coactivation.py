"""Files of loads and pair counts become workloads; what no tokens can have counted is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moeopt as mo
from moeopt.pair_counts import PairCounts
from moeopt.readers.coactivation import Coactivation
from moeopt.recording import read_recording, read_trace, read_workload, write_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.readers.test_parquet import GOOD as TRACE

GOOD: dict[str, Any] = {
    "model": "tiny",
    "quant": "ignored",
    "n_layers": 2,
    "n_expert_per_layer": 4,
    "k": 2,
    "n_decode_tokens": 10,
    "layers": [
        {"layer": 3, "heat": [8, 6, 4, 2], "pairs": [[0, 1, 5, 1.04], [2, 0, 3, 0.9]], "chain_order": [0]},
        {"layer": 5, "heat": [5, 5, 5, 5], "pairs": []},
    ],
}
Change = Callable[[dict[str, Any]], object]


def saved(folder: Path, change: Change = lambda _: None) -> Path:
    document = copy.deepcopy(GOOD)
    change(document)
    path = folder / "counts"
    path.write_text(json.dumps(document))
    return path


def test_the_documented_layout_becomes_the_workload(tmp_path: Path) -> None:
    workload = read_workload(saved(tmp_path))
    assert not workload.complete
    assert (workload.model, workload.layer_ids, workload.families) == ("tiny", (3, 5), ("all",))
    assert (workload.n_experts, workload.top_k, workload.tokens.tolist()) == (4, 2, [10])
    first, second = workload.layers
    assert isinstance(first, PairCounts)
    assert isinstance(second, PairCounts)
    assert first.load.tolist() == [8, 6, 4, 2]
    assert first.pairs.tolist() == [[0, 1], [0, 2]]
    assert first.counts.tolist() == [[5], [3]]
    assert second.pairs.shape == (0, 2)
    assert Workload.from_dict(workload.to_dict()).digest == workload.digest


def test_a_trace_file_gives_its_workload_and_counts_give_no_trace(tmp_path: Path) -> None:
    write_trace(TRACE, tmp_path / "trace")
    assert mo.read_workload(tmp_path / "trace").digest == Workload.from_trace(TRACE).digest
    assert isinstance(read_recording(tmp_path / "trace"), Trace)
    path = saved(tmp_path)
    assert isinstance(read_recording(path), Workload)
    with pytest.raises(
        ValueError, match=r"counts: a trace holds the experts of every token, .*moeopt\.read_workload"
    ):
        read_trace(path)


@pytest.mark.parametrize("content", ["{}", '{"layers": [], "heat": 1}', "[1]", '{"format": "moeopt-plan"}'])
def test_other_json_is_of_no_known_format(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other: content must be of a known format \(.*coactivation"):
        read_workload(path)


def of_layer(name: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["layers"][0][name] = value

    return change


def of_file(name: str, value: Any) -> Change:
    return lambda document: document.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("k"), "field 'k' is missing"),
        (of_file("k", "2"), "field 'k' must be int, found '2'"),
        (of_file("k", True), "field 'k' must be int, found True"),
        (of_file("k", 5), "layer 3: top-k must lie between 1 and the 4 experts, found 5"),
        (of_file("k", 3), "layer 3: loads sum to 20, 10 tokens of top-3 make 30"),
        (of_file("n_decode_tokens", 0), "n_decode_tokens must be at least 1 and below .* found 0"),
        (of_file("n_decode_tokens", 10**30), r"n_decode_tokens must be .* found 1e\+30"),
        (of_file("n_decode_tokens", 11), "layer 3: loads sum to 20, 11 tokens of top-2 make 22"),
        (of_file("n_layers", 3), "n_layers promises 3 layers, found 2"),
        (of_file("n_expert_per_layer", 5), r"layer 3: heat must be of 5 experts, found shape \(4,\)"),
        (of_file("model", 1), "field 'model' must be str"),
        (lambda d: d["layers"].__setitem__(1, 7), "a layer must be an object, found 7"),
        (of_layer("layer", 5), r"layers must ascend from 0 on, found \[5, 5\]"),
        (of_layer("layer", -1), r"layers must ascend from 0 on, found \[-1, 5\]"),
        (of_layer("layer", "3"), "field 'layer' must be int, found '3'"),
        (lambda d: d["layers"][0].pop("heat"), "layer 3: field 'heat' is missing"),
        (lambda d: d["layers"][0].pop("pairs"), "layer 3: field 'pairs' is missing"),
        (of_layer("heat", [8, 6, 4]), r"layer 3: heat must be of 4 experts, found shape \(3,\)"),
        (of_layer("heat", [[8, 6, 4, 2]]), r"layer 3: heat must be of 4 experts, found shape \(1, 4\)"),
        (
            of_layer("heat", [8, 6, 4, 2.0]),
            "layer 3: heat must hold whole numbers of 64 bits, found dtype float",
        ),
        (of_layer("heat", [8, 6, 7, -1]), "layer 3: load must lie from 0 .* found -1 to 8"),
        (of_layer("heat", [11, 5, 4, 0]), "layer 3: expert 0 is chosen by 11 of 10 tokens"),
        (of_layer("pairs", {}), "layer 3: field 'pairs' must be list"),
        (of_layer("pairs", [[0, 1, 5]]), r"layer 3: a pair must be \[i, j, count, lift\], found \[0, 1, 5\]"),
        (of_layer("pairs", [7]), "layer 3: a pair must be .* found 7"),
        (of_layer("pairs", [[0, 1, 5.5, 1.0]]), "layer 3: pairs must hold whole numbers"),
        (of_layer("pairs", [[0, "1", 5, 1.0]]), "layer 3: pairs must hold whole numbers"),
        (of_layer("pairs", [[0, 1, -5, 1.0]]), "layer 3: counts must lie from 0 .* found -5"),
        (of_layer("pairs", [[0, 1, 2**62, 1.0]]), "layer 3: counts must lie from 0 "),
        (of_layer("pairs", [[0, 4, 2, 1.0]]), "layer 3: pairs must be of ids below 4, found 4"),
        (of_layer("pairs", [[-1, 1, 2, 1.0]]), "layer 3: pairs must lie from 0 .* found -1"),
        (of_layer("pairs", [[1, 1, 2, 1.0]]), "layer 3: a pair is of two experts, found 1 and 1"),
        (
            of_layer("pairs", [[0, 1, 2, 1.0], [1, 0, 2, 1.0]]),
            "layer 3: experts 0 and 1 are counted twice",
        ),
        (
            of_layer("pairs", [[0, 3, 3, 1.0]]),
            "layer 3: experts 0 and 3 are chosen together by 3 tokens, alone by 8 and 2",
        ),
        (
            of_layer("pairs", [[0, 1, 5, 1.0], [0, 2, 4, 1.0]]),
            "layer 3: expert 0 is in 9 pairs, 8 tokens of top-2 have 8",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(tmp_path: Path, change: Change, message: str) -> None:
    path = saved(tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        read_workload(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = path.read_bytes()
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"counts: (not JSON|content must be of a known format)"):
            read_workload(path)


def test_text_that_is_not_unicode_and_nesting_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    for content in (
        b'{"layers": [{"heat": 1, "pairs": "\xff"}]}',
        b'{"heat": 0, "pairs": 0, "layers": ' + b"[" * 100_000,
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="counts: not JSON"):
            read_workload(path)
    path.write_text('  [{"layers": 0, "heat": 0, "pairs": 0}]')
    with pytest.raises(ValueError, match="known format"):
        read_workload(path)


def test_files_past_the_limit_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    size = path.stat().st_size
    with pytest.raises(ValueError, match=f"may have {size - 1} bytes, found {size}"):
        Coactivation(limit=size - 1).read(path, Supplement())
    assert Coactivation(limit=size).read(path, Supplement()).model == "tiny"
