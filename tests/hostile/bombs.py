"""Small files that unpack to much more than memory should give them."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np

from tests.hostile.cases import Folder
from tests.hostile.contents import DEEP, MANY, header, npy, zipped
from tests.hostile.tiny import ARRAYS, CHOSEN, GIVEN

BULK = 700 << 20  # bytes that members unpack to
STEP = 1 << 20


def add_archives(folder: Folder) -> None:
    """Archives whose members go on with zeros, or are many."""
    rows = BULK // 4
    experts = _vast((rows, 2, 2), "|u1")
    others = {f"{name}.npy": npy(np.asarray(value)) for name, value in ARRAYS.items() if name != "experts"}

    def with_others(content: bytes) -> bytes:
        sink = io.BytesIO(content)
        with zipfile.ZipFile(sink, "a") as archive:
            for name, held in others.items():
                archive.writestr(name, held)
        return sink.getvalue()

    zeros = _bomb({"experts.npy": experts})
    folder.add("npz: a trace of 700 MiB of zeros", "traffic", with_others(zeros))
    folder.add(
        "npz: 700 MiB behind a small header", "traffic", with_others(_bomb({"experts.npy": npy(CHOSEN)}))
    )
    folder.add(
        "npz: 700 MiB told as 100 bytes", "traffic", with_others(_bomb({"experts.npy": experts}, told=100))
    )
    folder.add(
        "npz: 700 MiB of header", "traffic", with_others(_bomb({"experts.npy": header("(", version=2)}))
    )
    matrix = _vast((2, BULK // 16), "<i8")
    folder.add("loads: 700 MiB of zeros", "traffic", _bomb({"code.npy": matrix}))
    folder.add(
        "loads: 40 times 20 MiB of zeros",
        "traffic",
        _bomb({f"f{i}.npy": _vast((2, (20 << 20) // 16), "<i8") for i in range(40)}, size=20 << 20),
    )
    folder.add(
        "logits: 700 MiB of zeros",
        "traffic",
        _bomb({"router_logits.npy": _vast((2, BULK // 32, 4), "<f4")}),
        GIVEN,
    )
    column = _vast((BULK // 8,), "<i8")
    folder.add(
        "routes: columns of 700 MiB of zeros", "traffic", _bomb({"layer.npy": column, "expert.npy": column})
    )
    folder.add(
        "moe-balance: 700 MiB of zeros",
        "traffic",
        _bomb({"routed_experts.npy": _vast((BULK // 4, 2, 2), "|u1")}),
        GIVEN,
    )
    folder.add(
        "eplb: 700 MiB of zeros", "running", _bomb({"physical_to_logical_map.npy": matrix}), {"gpus": 2}
    )
    folder.add("partial: 700 MiB of header", "partial", _bomb({"header.npy": _vast((BULK,), "|u1")}))
    folder.add(
        "torch archive: 700 MiB deflated",
        "traffic",
        _bomb({"a/data.pkl": b"\x80\x02}X\x0d\0\0\0logical_count"}),
    )
    folder.add(
        "npz: bzip2",
        "traffic",
        zipped({"experts.npy": npy(np.zeros((1 << 22, 2, 2)))}, method=zipfile.ZIP_BZIP2),
    )
    folder.add(
        "npz: 50,000 members",
        "traffic",
        zipped({f"{i}": b"" for i in range(50_000)}, method=zipfile.ZIP_STORED),
    )


def add_tables(folder: Folder) -> None:
    """Parquet: lists of zeros, and metadata that are long, wide or of another size than told."""
    folder.add("parquet: pages of zeros", "traffic", _vast_lists(4096, 1000, 4, use_dictionary=False))
    folder.add("parquet: a dictionary of one value for 10^7", "traffic", _vast_lists(4096, 1000, 4))
    folder.add("parquet: one list of 10^7", "traffic", _vast_lists(1, 2 * 10**7, 1))
    folder.add(
        "parquet: metadata of many brackets", "traffic", _parquet({"layer_0": [[0, 1]]}, text="[" * DEEP)
    )
    families = {"families": [str(i) for i in range(DEEP)]}
    folder.add("parquet: 10^6 families", "traffic", _parquet({"layer_0": [[0, 1]]}, document=families))
    folder.add(
        "parquet: 10^4 columns",
        "traffic",
        _parquet({f"layer_{i}": [[0, 1]] for i in range(MANY)}, document={"layer_ids": [1]}),
    )
    good = _parquet({"layer_0": [[0, 1]] * 9})
    size = int.from_bytes(good[-8:-4], "little")
    for told in (0, size - 1, len(good), (1 << 32) - 1):
        folder.add(
            f"parquet: a footer of {told} bytes", "traffic", good[:-8] + told.to_bytes(4, "little") + b"PAR1"
        )


def _zeros(size: int) -> bytes:
    """So many zeros, a multiple of 1 MiB, deflated without unpacking them here: one flushed block repeats."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = packer.compress(bytes(STEP)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(STEP)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (size // STEP - 1) + packer.flush()


def _bomb(members: dict[str, bytes], *, size: int = BULK, told: int | None = None) -> bytes:
    """A zip archive whose members, each a beginning given here, go on with zeros; `told`: the size that it declares."""
    sink, listed = io.BytesIO(), b""
    for name, start in members.items():
        packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = packed.compress(start) + packed.flush(zlib.Z_FULL_FLUSH) + _zeros(size)
        check = 0  # which is wrong: to see it, somebody must unpack everything
        sizes = [len(data), len(start) + size if told is None else told]
        fields = b"".join(number.to_bytes(4, "little") for number in (check, *sizes))
        about = b"\x14\0\0\0\x08\0" + bytes(4) + fields + len(name).to_bytes(2, "little") + b"\0\0"
        where = sink.tell().to_bytes(4, "little")
        sink.write(b"PK\3\4" + about + name.encode() + data)
        listed += b"PK\1\2\x14\0" + about + bytes(10) + where + name.encode()
    count = len(members).to_bytes(2, "little")
    ends = len(listed).to_bytes(4, "little") + sink.tell().to_bytes(4, "little")
    return sink.getvalue() + listed + b"PK\5\6" + bytes(4) + count * 2 + ends + bytes(2)


def _vast(shape: tuple[int, ...], descr: str, start: bytes = b"") -> bytes:
    """The start of a `.npy` content whose array goes on with zeros."""
    return header(repr(shape), f"'{descr}'", content=start)


def _parquet(columns: dict[str, Any], **about: Any) -> bytes:
    """A table as Parquet with the metadata of a trace."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    document = {
        "format": "moeopt-trace",
        "version": 1,
        "model": "",
        "n_experts": 4,
        "families": ["all"],
        "layer_ids": [int(name[6:]) for name in columns if name.startswith("layer_")],
    } | about.pop("document", {})
    table = pa.table(columns).replace_schema_metadata({"moeopt": about.pop("text", json.dumps(document))})
    sink = io.BytesIO()
    pq.write_table(table, sink, **{"compression": "zstd", "write_statistics": False} | about)
    return sink.getvalue()


def _vast_lists(rows: int, k: int, columns: int, **options: Any) -> bytes:
    """Lists of zeros, which take no room in the file and much in memory."""
    import pyarrow as pa

    values = pa.array(np.zeros(rows * k, np.int64))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * k), values)
    return _parquet({f"layer_{layer}": lists for layer in range(columns)}, **options)
