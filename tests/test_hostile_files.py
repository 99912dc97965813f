"""Damaged and hostile files end in one line that names the file: soon, in little memory, and without running code."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moeopt.engines.eplb import Eplb
from moeopt.parquet_columns import _unpacked
from moeopt.readers.loads import Loads
from moeopt.readers.moe_balance import MoeBalance
from moeopt.readers.route_table import RouteTable
from moeopt.recording import Reader, read_trace, write_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from tests.command_line import Run, refused
from tests.hostile.cases import Case, text_of
from tests.hostile.contents import npz, zipped
from tests.hostile.damage import malformed
from tests.hostile.malice import hostile
from tests.hostile.programs import pickles
from tests.hostile.readers import READERS
from tests.hostile.tiny import TRACE
from tests.hostile.valid import valid_files

ROOT = Path(__file__).parents[1]
MALFORMED, HOSTILE = 300, 40  # cases at least
WORKERS = 2
SPACE, SECONDS = 512 << 20, 5.0
LONGEST = 600  # letters of a message beside the name of the file
Found = dict[str, Any]


def read_apart(cases: Sequence[Case], folder: Path) -> list[Found]:
    """What came of each case, read in processes of their own; one that dies leaves the rest to another."""
    parts = [list(cases[first::WORKERS]) for first in range(WORKERS)]
    found: list[Found] = []
    while any(parts):
        running = [_started(part, folder / f"part-{index}") for index, part in enumerate(parts) if part]
        parts = [part for part in parts if part]
        for index, process in enumerate(running):
            out, err = process.communicate()
            answers = [json.loads(line) for line in out.splitlines()]
            found += answers
            rest = parts[index][len(answers) :]
            if rest:
                found.append(_died(rest[0], f"exit code {process.returncode}: {err[-300:]}"))
            parts[index] = rest[1:]
    return found


def _started(cases: list[Case], path: Path) -> subprocess.Popen[str]:
    path.write_text(text_of(cases))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.worker", str(path)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _died(case: Case, reason: str) -> Found:
    return {"name": case.name, "kind": reason, "message": "", "length": 0, "lines": 1, "named": False}


def wrong(found: Found) -> Iterator[str]:
    """Rules that a case breaks."""
    if found["kind"] != "ValueError":
        yield f"ends in {found['kind'] or 'an answer'}, not in a ValueError"
        return
    if not found["named"]:
        yield "the message does not start with the file"
    if found["lines"] > 1 or not 10 < found["length"] <= LONGEST:
        yield f"{found['lines']} lines, {found['length']} letters"
    if found["seconds"] > SECONDS:
        yield f"{found['seconds']:.1f} s"
    if found["grown"] > SPACE:
        yield f"{found['grown'] >> 20} MiB"


def complaints(found: Sequence[Found]) -> list[str]:
    """A line for each case that breaks a rule."""
    return [f"{one['name']}: {rule}: {one['message'][:200]}" for one in found for rule in wrong(one)]


def test_every_valid_file_is_read(tmp_path: Path) -> None:
    for name, valid in valid_files(tmp_path).items():
        path = tmp_path / name
        if isinstance(valid.content, bytes):
            path.write_bytes(valid.content)
        else:
            path.mkdir()
            for file, content in valid.content.items():
                (path / file).write_bytes(content)
            path = next((path / file for file in valid.content if file.startswith("m.")), path)
        READERS[valid.by](str(path), valid.given)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Valid files, damaged."""
    return malformed(tmp_path_factory.mktemp("malformed"))


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What code that runs would create."""
    return tmp_path_factory.mktemp("canary") / "canary"


@pytest.fixture(scope="module")
def malicious(canary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Case]]:
    """Files made with malice, half a gigabyte of them."""
    folder = tmp_path_factory.mktemp("hostile")
    yield hostile(folder, str(canary))
    shutil.rmtree(folder)


def test_malformed_files_are_refused_by_name(damaged: list[Case], tmp_path: Path) -> None:
    assert len(damaged) >= MALFORMED
    assert len({case.name for case in damaged}) == len(damaged)
    found = read_apart(damaged, tmp_path)
    assert len(found) == len(damaged)
    assert complaints(found) == []


def test_hostile_files_are_refused_by_name_without_running_code(
    malicious: list[Case], canary: Path, tmp_path: Path
) -> None:
    assert len(malicious) >= HOSTILE
    assert len({case.name for case in malicious}) == len(malicious)
    found = read_apart(malicious, tmp_path)
    assert len(found) == len(malicious)
    assert complaints(found) == []
    assert not canary.exists(), "a file ran code"


def test_the_code_of_these_files_runs_where_it_is_believed(tmp_path: Path) -> None:
    """The canary sings: Python's own unpickler creates it."""
    canary = tmp_path / "canary"
    for name in ("os.system", "posix.system", "eval", "exec by the stack", "a call within a call"):
        (tmp_path / "pickle").write_bytes(pickles(str(canary))[name])
        program = f"import pickle; pickle.load(open({str(tmp_path / 'pickle')!r}, 'rb'))"
        subprocess.run([sys.executable, "-c", program], check=True)
        assert canary.exists(), name
        canary.unlink()


@pytest.mark.parametrize("by", ["traffic", "running", "placement"])
def test_the_command_line_says_it_in_one_line(
    by: str, damaged: list[Case], malicious: list[Case], canary: Path, tmp_path: Path, run: Run
) -> None:
    trace, out = tmp_path / "trace.parquet", tmp_path / "out"
    write_trace(TRACE, trace)
    cases = [case for case in damaged if case.name.endswith("cut at 3/4")]
    cases += [case for case in malicious if case.name in SAMPLE]
    assert {case.name for case in cases} >= SAMPLE
    for case in (case for case in cases if case.by == by):
        words = {
            "traffic": ("convert", case.path, "-o", out, *_flags(case.given)),
            "running": ("replay", case.path, trace, "--gpus", 2),
            "placement": ("evaluate", case.path, trace),
        }[by]
        refused(run(*words), case.path)
    assert not out.exists()
    assert not canary.exists()


def _flags(given: dict[str, Any]) -> list[object]:
    """What `convert` calls the settings of a reader."""
    flags = {"n_experts": "--experts", "top_k": "--top-k", "hidden_layers": "--hidden-layers"}
    words: list[object] = [
        word for name, flag in flags.items() if name in given for word in (flag, given[name])
    ]
    return [*words, "--moe-layers", "0-1"] if "layer_ids" in given else words


SAMPLE = {
    "torch archive: os.system",
    "npz: an object that runs a command",
    "npz: a trace of 700 MiB of zeros",
    "parquet: a dictionary of one value for 10^7",
    "npy: 2^60 elements",
    "pair counts: 10^6 brackets",
    "YAML: aliases of 9^20",
    "manifest: file '../secret.npz'",
    "manifest: file 'loop'",
    "traffic: a FIFO",
    "traffic: a device",
    "running: a FIFO",
    "traffic: a link to itself",
}


def test_pages_are_counted_as_pyarrow_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    for options in ({}, {"data_page_version": "2.0"}, {"use_dictionary": False, "compression": "none"}):
        pq.write_table(pa.table({"a": [[1, 2], [3, 4]] * 5000, "b": range(10_000)}), path, **options)
        about = pq.read_metadata(path).row_group(0)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            values, unpacked = _unpacked(content)
        assert values == sum(about.column(index).num_values for index in range(2)) == 30_000
        assert 0 < unpacked <= about.total_byte_size  # which counts the headers too


def test_routes_that_are_all_alike_are_still_read(tmp_path: Path) -> None:
    """The densest honest trace: every token chooses the same experts."""
    trace = Trace(np.tile(np.arange(8, dtype=np.uint8), (60_000, 16, 1)), 8)
    write_trace(trace, tmp_path / "trace.parquet")
    assert read_trace(tmp_path / "trace.parquet").n_tokens == 60_000


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (Loads(), b"PK\3\4" + zipped({}), "an archive of loads holds arrays, found none"),
        (MoeBalance(), npz(other=[1]), "array 'routed_experts' is missing, found none"),
        (RouteTable(), b"weight\n1\n", "the table has no rows"),
        (RouteTable(), b"a,b\rc\n1\n", "line 1: new-line character"),
        (RouteTable(), b",".join(b"e%d" % i for i in range(1 << 15)), "may have 16384 columns, found 32768"),
    ],
)
def test_content_that_a_reader_does_not_accept_is_refused_all_the_same(
    reader: Reader, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        reader.read(tmp_path / "file", Supplement(n_experts=4, layer_ids=(0, 1)))


def test_an_archive_without_the_map_is_no_archive_of_eplb() -> None:
    with pytest.raises(ValueError, match="array 'physical_to_logical_map' is missing, found"):
        Eplb().read(npz(layer_ids=[0, 1]))
