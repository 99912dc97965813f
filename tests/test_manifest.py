"""Manifests: what they say of requests, and recordings that they join."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt import manifest
from moeopt.manifest import Manifest, read_manifest
from moeopt.readers.joined_files import Joined
from moeopt.recording import read_trace, write_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from tests.strategies import same, traces

# Requests 3 (positions 0 to 2) and 7 (0 and 1).
TRACE = Trace(
    np.array([[[0, 1]], [[2, 1]], [[3, 0]], [[1, 2]], [[0, 2]]]),
    4,
    layer_ids=np.array([5]),
    request=np.array([3, 3, 3, 7, 7]),
    position=np.array([0, 1, 2, 0, 1]),
    phase=np.array([0, 0, 1, 0, 1]),
    model="tiny",
)


def saved(folder: Path, content: str, *, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_families_and_phases_come_from_the_lines(tmp_path: Path) -> None:
    write_trace(TRACE, tmp_path / "trace")
    path = saved(tmp_path, "request,family,prompt_tokens\n7,math,0\n3,code,1\n")
    trace = read_trace(tmp_path / "trace", manifest=path)
    assert trace.families == ("math", "code"), "in order of appearance"
    assert trace.family.tolist() == [1, 1, 1, 0, 0]
    assert trace.phase.tolist() == [0, 1, 1, 1, 1]
    assert np.array_equal(trace.experts, TRACE.experts)


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    csv = saved(tmp_path, '\ufeffPhase, Request ,FAMILY\r\n\r\ndecode,7,"a, b"\r\n,3,c\r\n')
    rows = [{"phase": "DECODE", "request": 7, "family": "a, b"}, {"Request": 3, "family": "c"}]
    jsonl = saved(tmp_path, "\n" + lines(rows), name="manifest.jsonl")
    first, second = (read_manifest(path).applied(TRACE) for path in (csv, jsonl))
    assert same(first, second)
    assert first.phase.tolist() == [0, 0, 1, 1, 1], "request 3 keeps its own phases"
    assert first.families == ("a, b", "c")


@settings(max_examples=40, deadline=None)
@given(trace=traces(), data=st.data())
def test_only_families_and_phases_change_and_a_request_has_one_family(
    trace: Trace, data: st.DataObject
) -> None:
    requests = np.unique(trace.request).tolist()
    rows = [
        manifest.Line(
            number,
            request,
            data.draw(st.sampled_from(["a", "b", "c"])),
            data.draw(st.none() | st.integers(0, 120)),
        )
        for number, request in enumerate(data.draw(st.permutations(requests)), 1)
    ]
    found = Manifest(tuple(rows)).applied(trace)
    for name in ("experts", "request", "position", "layer_ids"):
        assert np.array_equal(getattr(found, name), getattr(trace, name))
    for row in rows:
        mine = trace.request == row.request
        assert {found.families[index] for index in found.family[mine]} == {row.family}
        told = trace.phase[mine] if row.prompt is None else trace.position[mine] >= row.prompt
        assert np.array_equal(found.phase[mine], told)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("request,family\n3,a\n7,b\n4,c\n", "line 4: request 4 is not in the recording, .* from 3 to 7"),
        ("request,family\n3,a\n7,b\n3,a\n", "line 4: request 3 has line 2 already"),
        ("request,family\n3,a\n", "1 of 2 requests have no line, the first is 7"),
        ("request,family\n3,\n7,b\n", "line 2: family is missing"),
        ("request,phase\n3,decode\n7,decode\n", "line 2: family is missing"),
        ("family\na\n", "line 2: request is missing"),
        ("request,famly\n3,a\n", "column 'famly' is none of request, family, prompt_tokens, phase, file"),
        ("request,family,Family\n3,a,a\n", "column 'family' must be there once, found 2"),
        ("request,family\n3,a,1\n", "line 2: 2 columns are named, found 3"),
        ("request,family\n-3,a\n", "line 2: request must be a whole number below 2.31, found '-3'"),
        ("request,family\n3.0,a\n", "line 2: request must be a whole number"),
        ("request,family\n9999999999,a\n", "line 2: request must be a whole number"),
        ("request,family,phase\n3,a,warm\n", "line 2: phase must be prefill or decode, found 'warm'"),
        (
            "request,family,phase,prompt_tokens\n3,a,decode,5\n",
            "line 2: phase 'decode' and prompt_tokens 5 exclude each other",
        ),
        ('request,family\n3,"a\n', "line 2: unexpected end of data"),
        ("request,family,file\n3,a,x\n7,b,y\n", "line 2: file is of manifests that are read as recordings"),
        ("", "a manifest has lines, found none"),
        (lines([{"request": True, "family": "a"}]), "line 1: request must be a whole number .* found True"),
        (lines([{"request": 3, "family": 5}]), "line 1: family must be text, found 5"),
        (lines([{"request": 3, "family": "a"}]) + "{", "line 2: not JSON"),
        (lines([{"request": 3, "family": "a"}]) + "[3]", r"line 2: a line must be an object, found '\[3\]'"),
        (lines([{"request": 3, "kind": "a"}]), "line 1: column 'kind' is none of"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_line(tmp_path: Path, content: str, message: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(ValueError, match=message) as error:
        read_manifest(path).applied(TRACE)
    assert str(error.value).startswith(f"{path}: ")


def test_a_manifest_is_text_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest"
    path.write_bytes(b"request,family\n3,\xff\n")
    with pytest.raises(ValueError, match="manifest: a manifest is text in UTF-8"):
        read_manifest(path)
    monkeypatch.setattr(manifest, "LIMIT", 5)
    with pytest.raises(ValueError, match="a manifest may have 5 bytes, found 19"):
        read_manifest(path)
    with pytest.raises(ValueError, match="absent: cannot be read"):
        read_manifest(tmp_path / "absent")


def joined(path: Path, **limits: int) -> Trace:
    reader = Joined(**limits)
    assert reader.accepts(path, path.read_bytes()[:64])
    return reader.read(path, Supplement())


def part(request: int, *, tokens: int = 2, **changes: Any) -> Trace:
    experts = np.tile([[[request % 3, 3]]], (tokens, 1, 1))
    return Trace(experts, 4, request=np.full(tokens, request), **changes)


def test_files_become_one_trace_with_requests_numbered_anew(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write_trace(TRACE, tmp_path / "two requests")
    one = Trace(TRACE.experts[:2], 4, layer_ids=TRACE.layer_ids, model="tiny")
    write_trace(one, tmp_path / "deep" / "one")
    path = saved(tmp_path, "file,family,prompt_tokens\ndeep/one,math,1\ntwo requests,,\n")
    trace = joined(path)
    assert trace.request.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert trace.families == ("math", "all")
    assert trace.family.tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert trace.phase.tolist() == [0, 1, 0, 0, 1, 0, 1], "a file without prompt_tokens keeps its phases"
    assert np.array_equal(trace.experts, np.concatenate([one.experts, TRACE.experts]))


def test_lines_may_number_files_of_one_request(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_trace(part(0), tmp_path / name)
    path = saved(tmp_path, lines([{"file": "a", "request": 9}, {"file": "b", "request": 4}]))
    assert joined(path).request.tolist() == [9, 9, 4, 4]
    write_trace(TRACE, tmp_path / "b")
    with pytest.raises(ValueError, match="line 2: request 4 is given, b holds 2 requests"):
        joined(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"file": "/etc/passwd"}], "line 1: file must be relative .* found '/etc/passwd'"),
        ([{"file": "../outside"}], "line 1: file must be relative"),
        ([{"file": "a/../../outside"}], "line 1: file must be relative"),
        ([{"file": "..\\outside"}], "line 1: file must be relative"),
        ([{"file": "link"}], "line 1: file 'link' is a link out of the manifest's folder"),
        ([{"file": "linked/outside"}], "line 1: file 'linked/outside' is a link out"),
        ([{"file": "a"}, {"file": "absent"}], "line 2: 'absent' is no file"),
        ([{"file": "."}], "line 1: file must be relative"),
        ([{"file": "a"}, {"file": None}], "line 2: file is missing"),
        ([{"file": "manifest.csv"}], "line 1: manifest.csv is a manifest itself"),
        ([{"file": "a"}, {"file": "c"}], "line 2: n_experts is 9, the first file has 4"),
        ([{"file": "a"}, {"file": "d"}], "line 2: top_k is 1, the first file has 2"),
        ([{"file": "a"}, {"file": "e"}], r"line 2: layers are \[4\], the first file has \[0\]"),
        ([{"file": "a"}, {"file": "f"}], "line 2: model is 'other', the first file has ''"),
        ([{"file": "a", "request": 1}, {"file": "a", "request": 1}], "request 1 is given twice"),
        ([{"file": "a", "request": 1}, {"file": "a"}], "request is given of some lines: of all or of none"),
        ([{"file": "text"}], "line 1: .*text: content must be of a known format"),
        ([{"file": "counts"}], "line 1: counts holds counts only"),
    ],
)
def test_files_that_leave_the_folder_or_do_not_fit_are_refused_by_line(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path / "outside", tmp_path / "elsewhere" / "outside", folder / "a"):
        write_trace(part(0), place)
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    write_trace(Trace(part(0).experts, 9), folder / "c")
    write_trace(Trace(part(0).experts[:, :, :1], 4), folder / "d")
    write_trace(part(0, layer_ids=np.array([4])), folder / "e")
    write_trace(part(0, model="other"), folder / "f")
    (folder / "text").write_text("nothing known")
    layer = {"layer": 0, "heat": [2, 2], "pairs": []}
    counts = {"model": "", "n_layers": 1, "n_expert_per_layer": 2, "k": 1, "n_decode_tokens": 4}
    (folder / "counts").write_text(json.dumps(counts | {"layers": [layer]}))
    with pytest.raises(ValueError, match=message):
        joined(saved(folder, lines(rows)))


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    write_trace(part(0), tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert joined(saved(tmp_path, "file\nlink\n")).n_tokens == 2


def test_number_size_and_experts_of_files_are_bounded(tmp_path: Path) -> None:
    write_trace(part(0, tokens=100_000), tmp_path / "a")
    size = (tmp_path / "a").stat().st_size
    path = saved(tmp_path, "file\na\na\n")
    with pytest.raises(ValueError, match="names from 1 to 1 files, found 2"):
        joined(path, files=1)
    with pytest.raises(ValueError, match=f"may have {size} bytes together, found {2 * size}"):
        joined(path, limit=size)
    with pytest.raises(ValueError, match="line 3: the experts of all files may take 300000 bytes"):
        joined(path, limit=300_000)


@pytest.mark.parametrize("content", [b"", b"{", b"request,family\n", b"\xff\xfe\x00", b"PAR1", b"[" * 99_999])
def test_what_names_no_files_is_left_to_other_readers(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    assert not Joined().accepts(path, content[:64])
    assert not Joined().accepts(tmp_path, b"")
