"""Checkouts of public repositories become traces; their layouts are written here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.convert_traces import app, esft_trace, fingerprints_trace
from moeopt.recording import read_trace
from moeopt.trace import Trace
from tests.strategies import same

LENGTHS = {"law": [2, 3], "intent": [1]}


def ids(family: str, sequence: int, layer: int) -> list[int]:
    """The k = 2 experts of all tokens of a sequence, made up."""
    rng = np.random.default_rng([len(family), sequence, layer])
    return [int(e) for _ in range(LENGTHS[family][sequence]) for e in rng.permutation(4)[:2]]


def esft(folder: Path, *, ranks: bool = False) -> Path:
    """A checkout of ESFT: layers 1 and 10, whose names do not sort as numbers do."""
    for family, lengths in LENGTHS.items():
        for sequence in range(len(lengths)):
            place = folder / "results" / "expert_scores" / family
            place = place / f"rank_{sequence}" if ranks else place
            place.mkdir(parents=True, exist_ok=True)
            for layer in (1, 10):
                chosen = ids(family, sequence, layer)
                line = "\t".join(map(str, chosen)) + "\t\t" + "\t".join("0.25" for _ in chosen) + "\n"
                with (place / f"expert_weights_{layer}.txt").open("a") as file:
                    file.write(line)
            (place / "summary.json").write_text("{}")
    return folder


@pytest.mark.parametrize("ranks", [False, True])
def test_a_line_of_esft_is_a_sequence_of_prefill(tmp_path: Path, ranks: bool) -> None:
    trace = esft_trace(esft(tmp_path, ranks=ranks), top_k=2, n_experts=4)
    assert trace.layer_ids.tolist() == [1, 10]
    assert (trace.families, trace.model) == (("intent", "law"), "DeepSeek-V2-Lite")
    assert trace.request.tolist() == [0, 1, 1, 2, 2, 2]
    assert trace.position.tolist() == [0, 0, 1, 0, 1, 2]
    assert trace.family.tolist() == [0, 1, 1, 1, 1, 1]
    assert not trace.phase.any()
    for index, layer in enumerate((1, 10)):
        expected = [*ids("intent", 0, layer), *ids("law", 0, layer), *ids("law", 1, layer)]
        assert trace.experts[:, index].reshape(-1).tolist() == expected
    scores = tmp_path / "results" / "expert_scores"
    assert same(esft_trace(scores, top_k=2, n_experts=4), trace)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0\t1\t\t0.5\n", "line 1: 2 ids need as many gates after two tabs"),
        ("0\t1\n", "line 1: 2 ids need as many gates"),
        ("0\tx\t\t0.5\t0.5\n", "line 1: ids must be whole numbers"),
        ("0\t1\t2\t\t1\t1\t1\n", "line 1: 3 ids are no tokens of top-2"),
        ("0\t1\t\t1\t1\n", "1 sequences of 1 tokens, layer 1 has 2 of 5"),
    ],
)
def test_a_file_of_esft_that_does_not_fit_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = esft(tmp_path) / "results" / "expert_scores" / "law" / "expert_weights_10.txt"
    path.write_text(line)
    with pytest.raises(ValueError, match=message) as error:
        esft_trace(tmp_path, top_k=2, n_experts=4)
    assert str(error.value).startswith(str(path))


def test_layers_of_all_families_agree_and_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file of the layout was found"):
        esft_trace(tmp_path)
    (esft(tmp_path) / "results" / "expert_scores" / "law" / "expert_weights_10.txt").unlink()
    with pytest.raises(ValueError, match=r"law: layers are \[1\], other folders have \[1, 10\]"):
        esft_trace(tmp_path, top_k=2, n_experts=4)


def example(dataset: str, category: str, tokens: dict[int, list[list[int]]]) -> dict[str, Any]:
    data = [
        {
            f"token_{position}": {
                f"layer_{layer}": {"selected_experts": chosen, "selected_probs": [0.5] * len(chosen)}
                for layer, chosen in enumerate(by_layer)
            }
        }
        for position, by_layer in tokens.items()
    ]
    return {"dataset": dataset, "category": category, "original_prompt": "", "router_data": data}


def fingerprints(folder: Path, **changes: Any) -> Path:
    """A checkout of GPT-OSS-MoE-ExpertFingerprinting with three examples in two files."""
    first = example("gpqa", "Genetics", {178: [[3, 1], [2, 0]], 180: [[0, 1], [1, 2]]}) | changes
    others = [
        example("mmlu", "law", {12: [[1, 0], [3, 2]]}),
        example("mmlu", "virology", {7: [[2, 0], [3, 1]]}),
    ]
    for name, content in (("gpqa/Genetics", first), ("mmlu/all", others)):
        (folder / "data" / name).mkdir(parents=True, exist_ok=True)
        (folder / "data" / name / "True_False_examples.json").write_text(json.dumps(content))
        (folder / "data" / name / "True_False.json").write_text('{"sample_count": 1}')
    return folder


def test_an_example_of_fingerprints_is_a_sequence_of_decode(tmp_path: Path) -> None:
    trace = fingerprints_trace(fingerprints(tmp_path), n_experts=4)
    assert trace.experts.tolist() == [
        [[3, 1], [2, 0]],
        [[0, 1], [1, 2]],
        [[1, 0], [3, 2]],
        [[2, 0], [3, 1]],
    ]
    assert trace.request.tolist() == [0, 0, 1, 2]
    assert trace.position.tolist() == [178, 180, 12, 7], "as the file counts them"
    assert (trace.families, trace.family.tolist()) == (("gpqa", "mmlu"), [0, 0, 1, 1])
    assert trace.phase.all()
    by_category = fingerprints_trace(tmp_path, by="category", n_experts=4)
    assert by_category.families == ("Genetics", "law", "virology")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router_data": []}, "router_data must hold tokens, found none"),
        ({"router_data": 3}, "field 'router_data' must be list"),
        ({"dataset": 3}, "field 'dataset' must be str"),
        ({"router_data": [{"word_3": {}}]}, "a name must be token_<number>, found 'word_3'"),
        (
            {"router_data": [{"token_3": {"layer_0": {"selected_experts": [1]}}}, {"token_4": {}}]},
            r"token_4: layers are \[\], other tokens have \[0\]",
        ),
        (
            {"router_data": [{"token_3": {"layer_0": {"selected_experts": [1, 0.5]}}}]},
            "selected_experts must hold whole numbers",
        ),
        ({"router_data": [{"token_3": {"layer_0": {}}}]}, "token_3, layer_0: no selected_experts"),
        ({"router_data": [{"token_3": []}]}, "token_3 must hold layers, found list"),
        ({"router_data": [3]}, "router_data must list objects, found 3"),
    ],
)
def test_an_example_of_fingerprints_that_does_not_fit_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        fingerprints_trace(fingerprints(tmp_path, **changes), n_experts=4)
    assert str(error.value).startswith(str(tmp_path / "data" / "gpqa"))


def test_families_are_by_dataset_or_category(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="families are by dataset or by category, found 'prompt'"):
        fingerprints_trace(tmp_path, by="prompt")


def test_the_commands_write_what_the_functions_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.parquet"
    arguments = ["fingerprints", str(fingerprints(tmp_path)), "-o", str(out), "--by", "category"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "4 tokens of 3 sequences, 2 layers, families Genetics, law, virology" in result.output
    assert same(read_trace(out), fingerprints_trace(tmp_path, by="category"))
    trace = Trace(np.array([[[0, 1]]]), 64)
    monkeypatch.setattr("benchmarks.convert_traces.esft_trace", lambda folder: trace)
    assert CliRunner().invoke(app, ["esft", str(tmp_path), "-o", str(out)]).exit_code == 0
    assert same(read_trace(out), trace)


def test_a_folder_of_something_else_ends_with_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["esft", str(tmp_path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "no file of the layout was found" in result.output
