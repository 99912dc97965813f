import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.readers.npz import Npz
from moeopt.recording import read_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from tests.strategies import same, traces

EXPERTS = np.array([[[0, 1]], [[2, 1]], [[3, 0]]], np.uint8)
GOOD: dict[str, Any] = {
    "experts": EXPERTS,
    "n_experts": 4,
    "sequence": np.array([5, 5, 6]),
    "position": np.array([0, 1, 0]),
    "phase": np.array([0, 1, 1]),
    "family": np.array([1, 1, 0]),
    "families": np.array(["code", "math"]),
    "layer_ids": np.array([7]),
    "model": np.array("tiny"),
}


def saved(folder: Path, **changes: Any) -> Path:
    """GOOD with some arrays changed, or left out where None."""
    path = folder / "trace.npz"
    np.savez(path, **{name: value for name, value in (GOOD | changes).items() if value is not None})
    return path


@settings(max_examples=25, deadline=None)
@given(trace=traces())
def test_the_documented_layout_becomes_the_trace(
    trace: Trace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "layout.npz"
    np.savez_compressed(
        path,
        experts=trace.experts,
        n_experts=trace.n_experts,
        sequence=trace.request,
        position=trace.position,
        phase=trace.phase,
        family=trace.family,
        families=np.array(trace.families),
        layer_ids=trace.layer_ids.astype(np.int16),
        model=np.array(trace.model + "."),  # NumPy drops trailing NULs of text
    )
    found = Npz().read(path, Supplement())
    assert found.model == trace.model + "."
    assert same(Trace(**{**vars(found), "model": trace.model}), trace)


@pytest.mark.parametrize("name", GOOD)
def test_every_array_of_the_layout_must_be_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"trace\.npz: array '{name}' is missing, found \["):
        read_trace(saved(tmp_path, **{name: None, "note": np.array(1)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": EXPERTS.astype(np.float32)}, "experts must be integers, found dtype float32"),
        ({"experts": EXPERTS * np.nan}, "experts must be integers, found dtype float64"),
        ({"experts": EXPERTS.astype(np.int16) - 1}, "expert id -1 out of range 0..3, token 0"),
        ({"n_experts": 3}, "expert id 3 out of range 0..2, token 2, layer index 0"),
        ({"experts": np.array([[[1, 1]]] * 3)}, r"expert repeated within token 0, layer index 0: \[1, 1\]"),
        ({"experts": EXPERTS[:0]}, r"empty trace: experts has shape \(0, 1, 2\)"),
        ({"experts": EXPERTS[0]}, r"experts must have axes \[tokens, layers, k\], found shape \(1, 2\)"),
        (
            {"experts": EXPERTS.astype(object)},
            "must hold numbers or text, not pickled, found dtype object",
        ),
        ({"experts": np.array([{"a": 1}])}, "array 'experts' must hold numbers or text, not pickled"),
        ({"n_experts": 4.0}, "array 'n_experts' must be one integer, found float64"),
        ({"n_experts": [4, 4]}, r"array 'n_experts' must be one integer, found int64 of shape \(2,\)"),
        ({"sequence": np.array([5, 5])}, r"request must have shape \(3,\), found \(2,\)"),
        ({"sequence": np.array([], np.int32)}, r"array 'sequence' must not be empty, found shape \(0,\)"),
        ({"position": np.array([0, 1, -1])}, "position must lie between 0 and 2147483647, found -1..1"),
        ({"phase": np.array([0, 2, 1])}, r"phase must be 0 \(prefill\) or 1 \(decode\), found 2"),
        ({"family": np.array([0, 2, 1])}, "family 2 out of range, there are 2 families"),
        ({"families": np.array([1, 2])}, "array 'families' must be text with 1 axes, found int64"),
        ({"families": np.array(["a", "a"])}, "families must be distinct names"),
        ({"layer_ids": np.array([1, 2])}, r"layer_ids must have shape \(1,\), found \(2,\)"),
        ({"model": np.array(["a", "b"])}, "array 'model' must be text with 0 axes"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        read_trace(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = saved(tmp_path).read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(4, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.npz: damaged or truncated npz archive"):
            read_trace(path)


def test_a_changed_byte_never_gives_another_trace(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content, good = path.read_bytes(), read_trace(path)
    for place in range(0, len(content), 41):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            found = read_trace(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either outcome is right
        else:
            assert same(found, good)


def test_sizes_past_the_limit_are_refused_before_unpacking(tmp_path: Path) -> None:
    path = saved(tmp_path, experts=np.zeros((1_000, 10, 1), np.uint8))
    with pytest.raises(ValueError, match="arrays must unpack to at most 9999 bytes, found 1"):
        Npz(limit=9_999).read(path, Supplement())


def test_a_header_that_promises_more_than_the_member_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 1, 1), }\n"
    np.savez(path, **{name: value for name, value in GOOD.items() if name != "experts"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("experts.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="needs 1000000000000 bytes, found 0"):
        read_trace(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00\x02\x00[]", b"\x93NUMPY\x09\x00\x02\x00{}", b"text" * 9]
)
def test_a_member_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    path = saved(tmp_path, experts=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("experts.npy", content)
    with pytest.raises(ValueError, match=r"trace\.npz: array 'experts' has no readable header"):
        read_trace(path)


def test_other_zip_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", b"")
    with pytest.raises(ValueError, match="content must be of a known format"):
        read_trace(path)
