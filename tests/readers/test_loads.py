"""Matrices of loads, in every form in which load balancers take them, become workloads."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.load_counts import LoadCounts
from moeopt.readers.loads import Loads
from moeopt.recording import read_workload
from moeopt.supplement import Supplement
from moeopt.workload import Workload
from tests.torch_files import save

READER, NONE = Loads(), Supplement()
MATRIX = np.array([[90, 132, 40, 61], [20, 107, 104, 64]])


def accepts(path: Path) -> bool:
    return READER.accepts(path, path.read_bytes()[:64])


def read(path: Path, supplement: Supplement = NONE) -> Workload:
    assert accepts(path)
    return READER.read(path, supplement)


def written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def stored(path: Path, array: Any) -> Path:
    with path.open("wb") as file:
        np.save(file, array)
    return path


def zipped(path: Path, **arrays: Any) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def loads(workload: Workload) -> list[Any]:
    """[layers][experts], or with families [layers][experts][families]."""
    assert all(isinstance(layer, LoadCounts) for layer in workload.layers)
    counts = [layer.counts for layer in workload.layers]
    return [one[:, 0].tolist() if len(workload.families) == 1 else one.tolist() for one in counts]


def history(*steps: Any) -> dict[str, Any]:
    return {"load_history": [{"step": 7, "logical_expert_load": step} for step in steps]}


matrices = st.builds(
    lambda seed, layers, experts: 1 + np.random.default_rng(seed).integers(0, 2**40, (layers, experts)),
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(1, 9),
)


@settings(max_examples=40, deadline=None)
@given(matrix=matrices, floats=st.booleans())
def test_a_matrix_is_the_same_workload_in_every_form(
    matrix: np.ndarray[Any, Any], floats: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp()
    array = matrix.astype(np.float64) if floats else matrix
    found = [
        read(stored(base / "loads", array)),
        read(zipped(base / "loads.z", weight=array)),
        read(save(array, base / "loads.pt")),
        read(written(base / "loads.json", array.tolist())),
        read(written(base / "history.json", history(array.tolist()))),
    ]
    assert loads(found[0]) == matrix.tolist()
    assert found[0].layer_ids == tuple(range(len(matrix)))
    assert len({workload.digest for workload in found}) == 1


def test_types_of_numpy_and_torch_make_no_difference(tmp_path: Path) -> None:
    expected = read(stored(tmp_path / "x", MATRIX)).digest
    for dtype in (np.int16, np.int32, np.uint8, np.uint64, np.float16, np.float32, ">i4"):
        assert read(stored(tmp_path / "x", MATRIX.astype(dtype))).digest == expected
    assert read(stored(tmp_path / "x", np.asfortranarray(MATRIX))).digest == expected
    assert read(save(MATRIX.astype(np.float32), tmp_path / "x.pt")).digest == expected


def test_layers_model_and_top_k_are_what_the_user_says(tmp_path: Path) -> None:
    path = stored(tmp_path / "x", MATRIX)
    found = read(path, Supplement(n_experts=4, layer_ids=(3, 9), top_k=2, model="m"))
    assert (found.layer_ids, found.top_k, found.model, found.tokens.tolist()) == ((3, 9), 2, "m", [162])
    with pytest.raises(ValueError, match="3 layer_ids for the 2 layers recorded"):
        read(path, Supplement(layer_ids=(1, 2, 3)))
    with pytest.raises(ValueError, match="n_experts is given as 8, the recording says 4"):
        read(path, Supplement(n_experts=8))


def test_rows_of_zeros_are_dense_layers_and_left_out(tmp_path: Path) -> None:
    path = stored(tmp_path / "x", np.vstack([[0] * 4, MATRIX, [0] * 4]))
    assert read(path).layer_ids == (1, 2)
    assert read(path, Supplement(layer_ids=(0, 3, 5, 7))).layer_ids == (3, 5)
    assert loads(read(path)) == MATRIX.tolist()


def test_a_history_is_summed(tmp_path: Path) -> None:
    path = written(tmp_path / "x", history(MATRIX.tolist(), (3 * MATRIX).tolist()))
    assert loads(read(path)) == (4 * MATRIX).tolist()


def test_named_arrays_are_families(tmp_path: Path) -> None:
    found = read(zipped(tmp_path / "x", code=MATRIX, math=MATRIX[::-1]))
    assert found.families == ("code", "math")
    assert loads(found)[0] == [[90, 20], [132, 107], [40, 104], [61, 64]]
    assert found.tokens.tolist() == [323, 323]


def test_families_of_several_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must have one shape, found \{'a': \(2, 4\), 'b': \(2, 2\)\}"):
        read(zipped(tmp_path / "x", a=MATRIX, b=MATRIX[:, :2]))


def test_an_archive_of_several_models_asks_for_one(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x", a__code=MATRIX, a__math=MATRIX, b__code=MATRIX[:, :2])
    with pytest.raises(ValueError, match=r"has loads of the models a, b: give model \(--model\)"):
        read(path)
    with pytest.raises(ValueError, match="loads of the models a, b, found none of 'c'"):
        read(path, Supplement(model="c"))
    found = read(path, Supplement(model="a"))
    assert (found.model, found.families, found.n_experts) == ("a", ("code", "math"), 4)
    assert read(path, Supplement(model="b")).families == ("code",)
    alone = zipped(tmp_path / "y", a__code=MATRIX, a__math=MATRIX)
    assert read(alone).model == "a"
    assert read(alone, Supplement(model="renamed")).model == "renamed"


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (MATRIX + 0.5, r"layer 0, expert 0: a load is a whole number from 0 to 2\^46, found 90\.5"),
        (MATRIX * np.nan, "found nan"),
        (MATRIX * np.inf, "found inf"),
        (-MATRIX, "found -90"),
        (MATRIX * 2**60, "layer 0, expert 0: a load is a whole number"),
        (MATRIX * 0, "every load of 2 layers is zero: nothing was recorded"),
        (MATRIX[:0], r"loads must be numbers \[layers, experts\], found int64 \(0, 4\)"),
    ],
)
def test_loads_that_are_none_are_refused_not_rounded(tmp_path: Path, matrix: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(stored(tmp_path / "x", matrix))


def test_halves_of_a_history_do_not_add_up_to_wholes(tmp_path: Path) -> None:
    half = (MATRIX + 0.5).tolist()
    with pytest.raises(
        ValueError, match="step 0 of the history: layer 0, expert 0: a load is a whole number"
    ):
        read(written(tmp_path / "x", history(half, half)))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"load_history": [], "logical_expert_load": 1}, "load_history must have steps, found none"),
        (
            history([[1, 2]], [[1]]),
            r"step 1 of the history: loads must have shape \(1, 2\) .* found \(1, 1\)",
        ),
        (history({"a": 1}), "step 0 of the history: field 'logical_expert_load' must be list"),
        (history([[True]]), "layer 0: a load is a number, found bool"),
        (history([["1"]]), "layer 0: a load is a number, found str"),
        (history([[10**40]]), "step 0 of the history: loads must be numbers"),
        (
            {"load_history": [1, {"logical_expert_load": 1}]},
            "step 0 of the history must be an object, found int",
        ),
        ({"load_history": 1, "logical_expert_load": 2}, "field 'load_history' must be list"),
        ([[1, 2], [3]], "layer 1: every layer is a list of as many loads as layer 0, found 1"),
        ([[1, 2], 3], "layer 1: every layer is a list of as many loads as layer 0, found int"),
        ([[1, 2], [3, None]], "layer 1: a load is a number, found NoneType"),
        ([[1, [2]]], "layer 0: a load is a number, found list"),
    ],
)
def test_json_that_is_no_matrix_is_refused(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(written(tmp_path / "x", document))


def test_json_that_is_cut_or_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"[[1, 2], [", b"[[1, \xff]]", b"[[1," + b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not JSON"):
            read(path)


def test_a_number_is_no_matrix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loads must be JSON lists or an object, found int"):
        READER.read(written(tmp_path / "x", 1), NONE)


def test_tensors_of_other_forms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be one tensor \[layers, experts\], found dict"):
        read(save({"load": MATRIX}, tmp_path / "x.pt"))
    with pytest.raises(
        ValueError, match=r"loads must be numbers \[layers, experts\], found int64 \(1, 2, 4\)"
    ):
        read(save(MATRIX[None], tmp_path / "x.pt"))


def test_a_plain_pickle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(MATRIX, protocol=protocol))
        with pytest.raises(ValueError, match=r"runs code when it is read: save it again, with torch\.save"):
            read(path)


def test_arrays_of_other_formats_are_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for array in (
        np.zeros((5, 3, 2), np.uint8),
        np.zeros((5, 3, 2), np.uint16),
        np.zeros(3),
        np.array([["a"]]),
        np.array([[True]]),
    ):
        assert not accepts(stored(path, array))
        assert not accepts(zipped(path, loads=array))
        assert not accepts(zipped(path, loads=MATRIX, other=array))
    assert not accepts(zipped(path, experts=MATRIX))
    assert not accepts(zipped(path, router_logits_0=MATRIX))
    assert not accepts(zipped(path))
    assert not accepts(save({"rank": 0, "logical_count": MATRIX}, path))
    for text in (
        "",
        "{}",
        "[]",
        "[1]",
        '[["a"]]',
        '[[{"a": 1}]]',
        '{"load_history": []}',
        "PAR1",
        "\x80\x01",
    ):
        path.write_text(text, encoding="latin-1")
        assert not accepts(path)
    assert not READER.accepts(tmp_path, b"")


def test_damaged_files_are_refused_or_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (
        stored(path, MATRIX).read_bytes(),
        zipped(path, a=MATRIX, b=MATRIX).read_bytes(),
        save(MATRIX, path).read_bytes(),
    ):
        for length in range(0, len(content), 13):
            path.write_bytes(content[:length])
            if accepts(path):
                with pytest.raises(ValueError, match=r"needs 64 bytes, found|damaged|readable header"):
                    READER.read(path, NONE)


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path: Path) -> None:
    path = stored(tmp_path / "x", MATRIX)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(2, 4), }           ", b"(200000000000, 4), }"))
    with pytest.raises(ValueError, match="needs 6400000000000 bytes, found 64"):
        read(path)


def test_sizes_past_the_limit_are_refused_before_unpacking(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x", a=np.zeros((100, 100)))
    with pytest.raises(ValueError, match="arrays must unpack to at most 9999 bytes, found 80128"):
        Loads(limit=9_999).read(path, NONE)
    with pytest.raises(ValueError, match="a file of loads may have 99 bytes, found"):
        Loads(limit=99).read(path, NONE)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 1, 0]], "each number from 0 to 3: a map of experts to slots"),
        (np.arange(300 * 2).reshape(300, 2).tolist(), "at most 256 layers, found 300 rows: ids of tokens"),
    ],
)
def test_what_has_two_axes_and_is_no_load_is_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    np.save(tmp_path / "rows.npy", np.array(rows))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for name in ("rows.npy", "rows.json"):
        with pytest.raises(ValueError, match=message):
            read_workload(tmp_path / name)


def test_an_archive_of_one_array_of_another_name_is_left_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "ids.npz", topk_ids=np.array([[0, 1], [2, 3]]))
    with pytest.raises(ValueError, match="content must be of a known format"):
        read_workload(tmp_path / "ids.npz")
