"""The verb `profile`: tables, a document, a page."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import moeopt as mo
from moeopt.pair_counts import PairCounts
from moeopt.profile_cli import profile
from moeopt.profile_tables import tables_of
from moeopt.recording import write_recording
from moeopt.storage import write_json
from moeopt.workload import Workload

SAMPLE = mo.sample("tiny-moe")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample, its counts, and a placement."""
    folder = tmp_path_factory.mktemp("files")
    workload = Workload.from_trace(SAMPLE)
    pairs = replace(workload, layers=tuple(PairCounts.of_sets(sets) for sets in workload.layers))
    gpu_of = [[expert // 8 for expert in range(32)]] * 6
    placement = mo.Placement.partition(gpu_of, mo.Cluster.of(gpus=4, slots=8), layer_ids=range(6))
    write_recording(SAMPLE, folder / "trace.parquet")
    write_recording(pairs, folder / "pairs.json")
    write_json(folder / "placement.json", placement.to_dict())
    return folder


def drawn(found: mo.Trace | Workload) -> str:
    out = StringIO()
    console = Console(file=out, width=80)
    for item in tables_of(mo.profile(found)):
        console.print(item)
    assert all(len(line) <= 80 for line in out.getvalue().splitlines())
    return out.getvalue()


def test_tables_fit_eighty_columns_and_name_what_is_missing() -> None:
    text = drawn(SAMPLE)
    for word in ("tiny-moe: layers", "Families", "code ~ math", "Over time", "steady traffic"):
        assert word in text
    assert "drift: needs tokens: a trace, not counts" in drawn(Workload.from_trace(SAMPLE))


def test_markup_in_names_is_shown_as_it_is() -> None:
    text = drawn(replace(SAMPLE, families=("[bold]a[/bold]", "[/]", "c", "d"), model="[red]"))
    assert "[bold]a[/bold] ~ [/]" in text
    assert "[red]: layers" in text


def test_the_document_is_the_profile(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile(files / "trace.parquet", layers="1-2", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(mo.profile(SAMPLE.layers([1, 2])).to_dict()))


def test_kinds_of_requests_are_told_when_asked_for(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile(files / "trace.parquet", classify=True)
    assert "first tokens tell the family of" in capsys.readouterr().out
    profile(files / "trace.parquet", classify=True, as_json=True)
    told = json.loads(capsys.readouterr().out)["classification"]
    assert told["recorded"]["majority"] == 0.25
    assert told["recorded"]["learned"] == told["shuffled"]["learned"] > 0
    with pytest.raises(ValueError, match=r"pairs\.json: .*a trace is needed, not counts"):
        profile(files / "pairs.json", classify=True)


@pytest.mark.parametrize("name", ["trace.parquet", "pairs.json"])
def test_a_page_is_written_beside_the_tables(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    page = tmp_path / "page.html"
    profile(files / name, html=page)
    assert "open it in a browser" in " ".join(capsys.readouterr().out.split())
    assert "spectral groups" in page.read_text(encoding="utf-8")
    profile(files / name, html=page, placement=files / "placement.json")
    assert "4 GPUs hold" in page.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_what_makes_no_sense_is_refused_and_nothing_written(files: Path, tmp_path: Path) -> None:
    trace, page = files / "trace.parquet", tmp_path / "page.html"
    with pytest.raises(ValueError, match="--html is needed"):
        profile(trace, placement=files / "placement.json")
    with pytest.raises(ValueError, match="layer 9 is not in the trace"):
        profile(trace, layers="9", html=page)
    with pytest.raises(ValueError, match="does not exist"):
        profile(trace, html=tmp_path / "absent" / "page.html")
    other = mo.Placement.partition([[0, 1]], mo.Cluster.of(gpus=2, slots=1), layer_ids=[0])
    write_json(tmp_path / "other.json", other.to_dict())
    with pytest.raises(ValueError, match=r"other\.json on .*trace\.parquet: .* 2 experts a layer"):
        profile(trace, html=page, placement=tmp_path / "other.json")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]
