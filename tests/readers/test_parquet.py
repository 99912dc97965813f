import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moeopt.readers.parquet import Parquet, encode
from moeopt.recording import read_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from tests.strategies import same

GOOD = Trace(
    np.array([[[0, 1], [2, 3]], [[2, 1], [3, 0]], [[3, 0], [0, 1]]]),
    4,
    layer_ids=np.array([3, 7], np.int32),
    families=("code", "math"),
    family=np.array([0, 1, 1], np.uint8),
    request=np.array([5, 5, 6], np.int32),
    position=np.array([0, 1, 0], np.int32),
    phase=np.array([0, 1, 1], np.uint8),
    model="tiny",
)
Change = Callable[[Any], Any]


@pytest.fixture
def good(tmp_path: Path) -> Any:
    (tmp_path / "good").write_bytes(encode(GOOD))
    return pq.read_table(tmp_path / "good")


def saved(table: Any, folder: Path, **options: Any) -> Path:
    path = folder / "trace.parquet"
    pq.write_table(table, path, **options)
    return path


def about(table: Any, **changes: Any) -> Any:
    """The table with other metadata."""
    document = json.loads(table.schema.metadata[b"moeopt"]) | changes
    return table.replace_schema_metadata({"moeopt": json.dumps(document)})


def column(name: str, values: Any) -> Change:
    """The table with one column changed or added."""

    def change(table: Any) -> Any:
        if name in table.column_names:
            return table.set_column(table.column_names.index(name), name, values)
        return table.append_column(name, values)

    return change


LISTS = [[0, 1], [2, 1], [3, 0]]


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.uint16()), pa.list_(pa.int8(), 2)])
def test_any_lists_of_integers_will_do(good: Any, tmp_path: Path, kind: Any) -> None:
    for name in ("layer_3", "layer_7"):
        good = column(name, good[name].cast(kind))(good)
    path = saved(good, tmp_path, row_group_size=2)
    assert same(read_trace(path), GOOD)


def test_absent_token_columns_mean_the_defaults(good: Any, tmp_path: Path) -> None:
    path = saved(good.drop_columns(["request", "position", "phase", "family"]), tmp_path)
    expected = Trace(GOOD.experts, 4, layer_ids=GOOD.layer_ids, families=GOOD.families, model="tiny")
    assert same(read_trace(path), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["layer_7"]), "column 'layer_7' is missing, found .*'layer_3'"),
        (lambda t: about(t, layer_ids=[3]), r"column 'layer_7' is neither .* in the metadata: \[3\]"),
        (lambda t: about(t, layer_ids=[3, 8]), "column 'layer_8' is missing"),
        (lambda t: about(t, layer_ids=[7, 3]), r"layer_ids must ascend, found \[7, 3\]"),
        (lambda t: about(t, layer_ids=[3, True]), "metadata 'layer_ids' must list int, found True"),
        (lambda t: about(t, n_experts=3), "expert id 3 out of range 0..2, token 0, layer index 1"),
        (lambda t: about(t, n_experts="4"), "field 'n_experts' must be int, found '4'"),
        (lambda t: about(t, n_experts=0), "n_experts must be between 1 and 65536, found 0"),
        (lambda t: about(t, n_experts=10**30), "n_experts must be between 1 and 65536, found 1000"),
        (lambda t: about(t, version=2), "version of moeopt-trace must be 1, found 2"),
        (lambda t: about(t, format="other"), "format must be 'moeopt-trace', found 'other'"),
        (lambda t: about(t, families=["code"]), "family 1 out of range, there are 1 families"),
        (lambda t: about(t, families=["code", 7]), "metadata 'families' must list str, found 7"),
        (lambda t: about(t, families={}), "field 'families' must be list, found {}"),
        (lambda t: t.replace_schema_metadata({"moeopt": "{"}), "schema metadata 'moeopt' must be JSON"),
        (lambda t: t.replace_schema_metadata({"moeopt": "[1]"}), "expected a JSON object .* found list"),
        (lambda t: t.replace_schema_metadata({"moeopt": b"\xff"}), "schema metadata 'moeopt' must be JSON"),
        (lambda t: t.replace_schema_metadata({"pandas": "{}"}), "must have the key 'moeopt', found .*pandas"),
        (lambda t: t.replace_schema_metadata(None), r"must have the key 'moeopt', found \[\]"),
        (lambda t: t.slice(0, 0), "empty trace: 0 rows"),
        (
            lambda t: about(t.select(["phase"]), layer_ids=[]),
            "empty trace: metadata lists no layers",
        ),
        (
            column("layer_3", pa.array(LISTS, pa.list_(pa.float32()))),
            "'layer_3' must hold lists of integers, found",
        ),
        (column("layer_3", pa.array([0, 1, 2])), "column 'layer_3' must hold lists of integers, found int64"),
        (
            column("layer_7", pa.array(LISTS, pa.list_(pa.int64()))),
            "column 'layer_7' must have the type of 'layer_3'",
        ),
        (
            column("layer_3", pa.array([[0], [1], [2]], pa.list_(pa.uint8()))),
            "'layer_7' must hold lists of 1, found 2",
        ),
        (
            column("layer_3", pa.array([[0], [1, 2], [2]], pa.list_(pa.uint8()))),
            "lists of one length, found 1..2",
        ),
        (
            column("layer_3", pa.array([[0, 1], None, [2, 1]], pa.list_(pa.uint8()))),
            "'layer_3' must have no nulls",
        ),
        (
            column("layer_3", pa.array([[0, 1], [0, None], [2, 1]], pa.list_(pa.uint8()))),
            "'layer_3' must have no nulls, found 1",
        ),
        (
            column("layer_3", pa.array([[0, 1], [2, 2], [2, 1]], pa.list_(pa.uint8()))),
            r"expert repeated within token 1, layer index 0: \[2, 2\]",
        ),
        (column("request", pa.array([0.5, 1.0, 2.0])), "column 'request' must hold integers, found double"),
        (column("phase", pa.array([0, 3, 1])), r"phase must be 0 \(prefill\) or 1 \(decode\), found 3"),
        (column("position", pa.array([0, None, 1])), "column 'position' must have no nulls, found 1"),
        (column("request", pa.array([0, -4, 1])), "request must lie between 0 and 2147483647, found -4..1"),
        (
            lambda t: about(
                t.rename_columns({"family": "famliy"}).replace_schema_metadata(t.schema.metadata)
            ),
            "column 'famliy' is neither one of request, position",
        ),
        (lambda t: t.append_column("phase", t["phase"]), "column 'phase' must be there once, found 2"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(
    good: Any, tmp_path: Path, change: Change, message: str
) -> None:
    path = saved(change(good), tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        read_trace(path)
    assert str(error.value).startswith(f"{path}: ")


def test_negative_ids_are_refused(good: Any, tmp_path: Path) -> None:
    for name in ("layer_3", "layer_7"):
        good = column(name, pa.array([[0, 1], [2, -1], [3, 0]], pa.list_(pa.int16())))(good)
    with pytest.raises(ValueError, match=r"expert id -1 out of range 0\.\.3, token 1, layer index 0"):
        read_trace(saved(good, tmp_path))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content, path = encode(GOOD), tmp_path / "cut.parquet"
    for length in range(4, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.parquet: damaged or truncated Parquet file"):
            read_trace(path)


def test_a_changed_byte_never_gives_another_trace(tmp_path: Path) -> None:
    content, path = encode(GOOD), tmp_path / "trace.parquet"
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # the footer has no checksum
    for place in range(4, pages, 13):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            found = read_trace(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either outcome is right
        else:
            assert same(found, GOOD)


@pytest.mark.parametrize("limit", [50, 200])
def test_sizes_past_the_limit_are_refused(tmp_path: Path, limit: int) -> None:
    """Whether the footer declares them, or runs of equal values hide them from the footer."""
    experts = np.broadcast_to(np.array([[0, 1]], np.uint8), (5_000, 1, 2))
    path = tmp_path / "trace.parquet"
    path.write_bytes(encode(Trace(experts, 2)))
    table = pq.read_table(path).select(["layer_0"])
    pq.write_table(table, path, compression="zstd", use_dictionary=True)
    declared = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    with pytest.raises(ValueError, match=f"columns must unpack to at most {limit} bytes, found"):
        Parquet(limit=limit).read(path, Supplement())
    with pytest.raises(ValueError, match=f"at most {declared} bytes, found 10000"):
        Parquet(limit=declared).read(path, Supplement())
    assert Parquet(limit=10_000).read(path, Supplement()).n_tokens == 5_000


def with_footer(footer: bytes, pages: bytes = b"") -> bytes:
    return b"PAR1" + pages + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    "footer",
    [
        b"\x19\xf7\x80\x80\x80\x80\x80\x80\x01\x00",  # a list of 2^42 doubles
        b"\x19\xf8\x80\x80\x80\x80\x80\x80\x01\x00",  # of 2^42 texts
        b"\x19" * 5_000,  # lists in lists
        b"\x1c" * 5_000,  # structures in structures
        b"\x17\x00",  # a double behind the end
        b"\x18\xff\xff\xff\xff\x7f\x00",  # a text behind the end
    ],
    ids=["doubles", "texts", "lists", "structures", "double", "text"],
)
def test_what_a_footer_declares_is_held_against_the_file(tmp_path: Path, footer: bytes) -> None:
    path = tmp_path / "trace.parquet"
    path.write_bytes(with_footer(footer))
    with pytest.raises(ValueError, match="damaged or truncated Parquet file: footer or page header"):
        read_trace(path)


def test_columns_may_not_share_pages(tmp_path: Path) -> None:
    page = b"\x15\x00\x15\x02\x15\x02\x2c\x15\x02\x00\x00" + b"x"  # a value in a byte
    chunk = b"\x3c\x56\x02\x46\x08\x00\x00"  # metadata {5: 1 value, 9: at 4}
    footer = b"\x49\x1c\x19\xfc\x64" + chunk * 100 + b"\x00\x00"
    path = tmp_path / "trace.parquet"
    path.write_bytes(with_footer(footer, page))
    with pytest.raises(ValueError, match="pages of two columns overlap"):
        read_trace(path)
