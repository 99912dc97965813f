"""Data sets as workloads: the same as a trace in memory, in one pass, by shards that merge, with errors stated."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.parallel import Processes
from moeopt.recording import write_trace
from moeopt.set_kernels import level_of, token_draw
from moeopt.stop import interrupt_when
from moeopt.streamed import Streamed
from moeopt.streaming import LEAST_SETS, _salt, stream_workload
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.strategies import traces


def recorded(
    tokens: int = 900, *, seed: int = 0, families: tuple[str, ...] = ("code", "math", "chat")
) -> Trace:
    """Three layers of 24 experts, top-3, nearly every set its own."""
    rng = np.random.default_rng(seed)
    return Trace(
        np.argsort(rng.random((tokens, 3, 24)), axis=2)[:, :, :3],
        24,
        layer_ids=np.array([1, 4, 9], np.int32),
        families=families,
        family=rng.integers(len(families), size=tokens).astype(np.uint8),
        model="tiny",
    )


@pytest.fixture
def trace() -> Trace:
    return recorded()


@pytest.fixture
def file(trace: Trace, tmp_path: Path) -> Path:
    write_trace(trace, tmp_path / "trace.parquet")
    return tmp_path / "trace.parquet"


@pytest.fixture
def folder(trace: Trace, tmp_path: Path) -> Path:
    """Four shards of the trace."""
    shards = tmp_path / "shards"
    shards.mkdir()
    for index in range(4):
        rows = np.arange(trace.n_tokens) // 225 == index
        write_trace(trace.take(rows), shards / f"part-{index}.parquet")
    (shards / "_SUCCESS").touch()
    return shards


def change(file: Path, edit: Callable[[Any], Any]) -> None:
    pq.write_table(edit(pq.read_table(file)), file)


def alike(a: Streamed, b: Streamed) -> bool:
    """Whether two passes found the same."""
    return (
        a.workload.digest == b.workload.digest
        and a.families == b.families
        and bool((a.loads == b.loads).all() and (a.tokens == b.tokens).all())
        and (a.exact, a.sample, a.model) == (b.exact, b.sample, b.model)
    )


@settings(max_examples=25, deadline=None)
@given(trace=traces(max_tokens=60), cuts=st.lists(st.integers(0, 60), max_size=3))
def test_batches_of_a_trace_count_as_the_trace(trace: Trace, cuts: list[int]) -> None:
    ends = [0, *sorted({min(cut, trace.n_tokens) for cut in cuts}), trace.n_tokens]
    parts = [np.arange(a, b) for a, b in pairwise(ends) if b > a]
    found = stream_workload(trace.take(part) for part in parts)
    expected = Workload.from_trace(trace)
    assert found.exact
    assert found.workload.digest == expected.digest
    assert found.workload.model == trace.model
    assert (found.loads.sum(axis=2) == np.stack([sets.load for sets in expected.layers])).all()


def test_a_file_counts_as_the_trace_it_holds(trace: Trace, file: Path) -> None:
    found = stream_workload(file)
    assert found.exact
    assert found.sample.exact
    assert found.workload.digest == Workload.from_trace(trace).digest
    assert (found.tokens == np.bincount(trace.family)).all()
    assert stream_workload(str(file)).workload.digest == found.workload.digest
    assert stream_workload(trace).workload.digest == found.workload.digest


def test_chosen_layers_and_families_are_counted_alone(trace: Trace, file: Path) -> None:
    found = stream_workload(file, layer_ids=[9, 1], families=["chat", "code"])
    kept = trace.take(trace.family != 1).layers([1, 9])
    renamed = Trace(
        kept.experts,
        24,
        layer_ids=kept.layer_ids,
        families=("chat", "code"),
        family=(kept.family == 0).astype(np.uint8),
    )
    assert found.workload.digest == Workload.from_trace(renamed).digest
    both = stream_workload([trace], layer_ids=[9, 1], families=["chat", "code"])
    assert both.workload.digest == found.workload.digest


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.uint16()), pa.list_(pa.int8(), 3)])
def test_any_lists_and_no_family_column_will_do(trace: Trace, file: Path, kind: Any) -> None:
    def edit(table: Any) -> Any:
        for name in ("layer_1", "layer_4", "layer_9"):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
        return table.drop_columns(["family", "request"])

    change(file, edit)
    plain = Trace(trace.experts, 24, layer_ids=trace.layer_ids, families=trace.families)
    assert stream_workload(file).workload.digest == Workload.from_trace(plain).digest


@pytest.mark.parametrize("most_sets", [None, 100])
def test_shards_counted_apart_add_to_one_pass_in_any_order(folder: Path, most_sets: int | None) -> None:
    whole = stream_workload(folder, most_sets=most_sets)
    assert whole.exact == (most_sets is None)
    parts = [stream_workload(path, most_sets=most_sets) for path in sorted(folder.glob("*.parquet"))]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        total = parts[order[0]]
        for index in order[1:]:
            total = total + parts[index]
        assert alike(total, whole)
    pairs = (parts[0] + parts[1]) + (parts[2] + parts[3])
    assert alike(pairs, whole)
    assert alike(stream_workload(sorted(folder.glob("*.parquet"), reverse=True), most_sets=most_sets), whole)


def test_exact_parts_add_as_their_workloads(folder: Path, trace: Trace) -> None:
    parts = [stream_workload(path).workload for path in sorted(folder.glob("*.parquet"))]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert total.digest == stream_workload(folder).workload.digest == Workload.from_trace(trace).digest


def test_the_sample_does_not_depend_on_how_a_trace_is_cut_into_batches(trace: Trace) -> None:
    whole = stream_workload(trace, most_sets=50)
    cut = stream_workload((trace.take(np.arange(a, a + 90)) for a in range(0, 900, 90)), most_sets=50)
    assert alike(whole, cut)
    assert not alike(whole, stream_workload(trace, most_sets=50, sample_seed=1))


def test_the_sampled_workload_is_that_of_the_same_tokens_in_every_layer(trace: Trace) -> None:
    found = stream_workload(trace, most_sets=200)
    levels = np.array([level_of(np.uint64(token_draw(_salt(0, 0), row))) for row in range(trace.n_tokens)])
    chosen = trace.take(levels >= found.tallies[0].least)
    assert found.sample.taken == chosen.n_tokens <= 200
    assert found.workload.digest == Workload.from_trace(chosen).digest
    again = Workload.from_dict(found.workload.to_dict())
    assert again.digest == found.workload.digest


def test_what_is_exact_and_what_is_not_is_said(trace: Trace, file: Path) -> None:
    exact = stream_workload(file)
    assert exact.statement() == ["900 tokens x 3 layers, top-3 of 24 experts: every expert set counted"]
    assert not exact.load_errors.any()
    found = stream_workload(file, most_sets=300)
    assert (found.loads == exact.loads).all()
    assert (found.tokens == exact.tokens).all()
    assert found.load_counts.digest == exact.load_counts.digest
    assert found.load_errors.max() > 0
    first, second = found.statement(confidence=0.9)
    assert f"expert sets of {found.sample.taken} drawn at random" in first
    assert f"within {found.sample.bound(span=2, confidence=0.9):.2g} GPUs a token with 90 %" in second
    assert sum(part.taken for part in found.family_samples.values()) == found.sample.taken
    assert [part.of for part in found.family_samples.values()] == found.tokens.tolist()


def test_loads_of_the_sample_err_as_found(trace: Trace) -> None:
    found = stream_workload(trace, most_sets=100)
    estimate = found.workload.layers[1].load / found.sample.share
    worst = np.abs(estimate - found.loads[1].sum(axis=1)).max() / (900 * 3 / 24)
    assert found.load_errors[1] == pytest.approx(worst)


def executors() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads
    with Processes(2) as spawned:
        yield spawned


def test_every_executor_counts_the_same(folder: Path) -> None:
    expected, steps = stream_workload(folder, most_sets=100), []

    def follow(text: str, total: int) -> Callable[[], None]:
        assert (text, total) == ("900 tokens, 3 layers", 3)
        return lambda: steps.append(1)

    for executor in executors():
        assert alike(stream_workload(folder, most_sets=100, executor=executor, follow=follow), expected)
    assert len(steps) == 6


def test_each_batch_is_a_step(trace: Trace) -> None:
    steps: list[int] = []
    stream_workload([trace, trace], follow=lambda text, total: lambda: steps.append(total))
    assert steps == [0, 0]


def test_ctrl_c_leaves_nothing_behind(file: Path, trace: Trace) -> None:
    interrupt_when(lambda: True)
    try:
        with pytest.raises(KeyboardInterrupt):
            stream_workload(file)
    finally:
        interrupt_when(bool)

    def batches() -> Iterator[Trace]:
        yield trace
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_workload(batches())
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_more_memory_keeps_more_sets_and_too_little_is_refused(file: Path) -> None:
    limits = [stream_workload(file, memory=memory << 20).limit for memory in (400, 800, 2048)]
    assert LEAST_SETS < limits[0] < limits[1] < limits[2]
    with pytest.raises(ValueError, match=r"3 layers of 3 families need at least (\d+) bytes of memory"):
        stream_workload(file, memory=100 << 20)
    with pytest.raises(ValueError, match="must be at least 1, found 0"):
        stream_workload(file, memory=0)


def test_the_limit_reproduces_a_sample_whatever_the_memory(file: Path) -> None:
    first = stream_workload(file, most_sets=123)
    assert f"most_sets={first.limit} draws them again" in first.statement()[0]
    assert alike(stream_workload(file, most_sets=first.limit, memory=1), first)


def test_partial_results_survive_their_file(folder: Path, tmp_path: Path) -> None:
    whole = stream_workload(folder, most_sets=100)
    parts = sorted(folder.glob("*.parquet"))
    for most_sets in (None, 100):
        for index, part in enumerate((parts[:2], parts[2:])):
            stream_workload(part, most_sets=most_sets).write(tmp_path / f"{index}.npz")
        total = Streamed.read(tmp_path / "0.npz") + Streamed.read(tmp_path / "1.npz")
        assert alike(total, whole if most_sets else stream_workload(folder))


def test_families_of_parts_are_united_by_name(tmp_path: Path) -> None:
    a, b = recorded(families=("code", "math")), recorded(seed=1, families=("math", "law"))
    total = stream_workload(a) + stream_workload(b)
    assert total.families == ("code", "math", "law")
    assert total.workload.digest == (Workload.from_trace(a) + Workload.from_trace(b)).digest
    for name, one in (("a", a), ("b", b)):
        write_trace(one, tmp_path / f"{name}.parquet")
    assert stream_workload(tmp_path).workload.digest == total.workload.digest
    with pytest.raises(ValueError, match="data sets differ in layer_ids"):
        total + stream_workload(a, layer_ids=[1])


def rewritten(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    with np.load(path) as archive:
        arrays = dict(archive)
    edit(arrays)
    np.savez(path, **arrays)


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def edit(arrays: dict[str, Any]) -> None:
        arrays[name] = change(arrays[name].copy())

    return edit


def header(old: bytes, new: bytes) -> Callable[[dict[str, Any]], None]:
    return edited("header", lambda text: np.frombuffer(text.tobytes().replace(old, new), np.uint8))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda arrays: arrays.pop("loads"), "array 'loads' is missing"),
        (edited("loads", lambda loads: loads.astype(float)), "'loads' must be int64"),
        (edited("loads", lambda loads: loads + 1), "loads must be those of the sets"),
        (edited("loads", lambda loads: -loads), "loads must not be negative"),
        (edited("keys_1", lambda keys: keys[::-1]), "sets must be distinct and ascend"),
        (edited("keys_1", lambda keys: keys | np.uint64(31 << 10)), "sets must"),
        (edited("counts_2", lambda counts: counts[:-1]), "array 'counts_2' must be uint32 of shape"),
        (edited("sample_0", lambda keys: keys[:-1]), "array 'sample_0' must be uint64 of shape"),
        (edited("sample_0", lambda keys: keys | np.uint64(31)), "sets must be of ascending ids below 24"),
        (edited("family", lambda codes: codes + np.uint8(3)), "family .* out of range"),
        (edited("family", lambda codes: codes[:-1]), "a sample has at most"),
        (edited("header", lambda text: text[:-3]), "no readable header"),
        (header(b"moeopt-streamed", b"moeopt-trace"), "format must be 'moeopt-streamed'"),
        (header(b'"top_k": 3', b'"top_k": 99'), "make no sense: 99"),
        (header(b"[1, 4, 9]", b"[1, 9, 4]"), "layer_ids must be ascending"),
        (header(b'"code"', b'"math"'), "families must be 1 to 256 distinct names"),
    ],
)
def test_a_partial_result_that_makes_no_sense_is_refused(
    trace: Trace, tmp_path: Path, edit: Callable[[dict[str, Any]], None], words: str
) -> None:
    path = tmp_path / "part.npz"
    stream_workload(trace).write(path)
    rewritten(path, edit)
    with pytest.raises(ValueError, match=rf"part\.npz: .*{words}"):
        Streamed.read(path)


def test_a_damaged_partial_result_is_named(trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "part.npz"
    stream_workload(trace, most_sets=40).write(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        at = int(rng.integers(len(content)))
        path.write_bytes(content[:at])
        with pytest.raises(ValueError, match=r"part\.npz"):
            Streamed.read(path)
    with pytest.raises(ValueError, match=r"nowhere\.npz: cannot be read"):
        Streamed.read(tmp_path / "nowhere.npz")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w") as archive, archive.open("header.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)}
        )
    path.write_bytes(bomb.getvalue())
    with pytest.raises(ValueError, match=r"part\.npz: array 'header' of shape"):
        Streamed.read(path)


def shards_of(*traces: Trace) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for index, one in enumerate(traces):
            write_trace(one, folder / f"{index}.parquet")

    return make


def wide(tokens: int = 5) -> Trace:
    return Trace(np.tile(np.arange(3), (tokens, 3, 1)), 30, layer_ids=np.array([1, 4, 9]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "must hold Parquet files, found none"),
        (
            lambda folder: (folder / "notes.txt").write_text("hello"),
            "notes.txt: damaged or truncated Parquet",
        ),
        (lambda folder: (folder / "inner").mkdir(), "inner: a folder of shards holds regular files alone"),
        (
            lambda folder: (folder / "link").symlink_to("/etc/hostname"),
            "link: a folder of shards holds regular",
        ),
        (shards_of(recorded(5), wide()), r"1.parquet: n_experts must be that of .*0.parquet, 24, found 30"),
        (shards_of(recorded(5), recorded(5).layers([1])), r"1.parquet: layer_ids must be that of"),
        (
            shards_of(Trace(np.array([[[0, 1]]]), 4), Trace(np.array([[[0]]]), 4)),
            "1.parquet: top-k must be 2, found 1",
        ),
    ],
)
def test_shards_that_do_not_belong_together_are_named(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=words):
        stream_workload(tmp_path)


def column(name: str, values: Any) -> Callable[[Any], Any]:
    return lambda table: table.set_column(table.column_names.index(name), name, values)


def lists(first: list[Any]) -> Any:
    return pa.array([first] + [[0, 1, 2]] * 899)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            column("layer_4", lists([0, 1, 24]).cast(pa.list_(pa.uint8()))),
            "layer 4: .*between 0 and 23, found 24",
        ),
        (
            column("layer_4", lists([0, 1, 1]).cast(pa.list_(pa.uint8()))),
            "layer 4: token 0: experts must be distinct",
        ),
        (column("layer_4", lists([0, 1]).cast(pa.list_(pa.uint8()))), "lists of one length, found 2..3"),
        (column("layer_4", lists([0, 1, None]).cast(pa.list_(pa.uint8()))), "no nulls"),
        (column("family", pa.array([3] * 900)), "family must lie between 0 and 2, found 3"),
        (lambda table: table.drop_columns(["layer_9"]), "column 'layer_9' is missing"),
        (lambda table: table.slice(0, 0), "empty trace"),
    ],
)
def test_a_file_with_wrong_content_is_named(file: Path, edit: Callable[[Any], Any], words: str) -> None:
    schema = pq.read_schema(file)

    def kept(table: Any) -> Any:
        changed = edit(table)
        kind = schema.field("layer_4").type
        for name in ("layer_1", "layer_9"):
            if name in changed.column_names and changed["layer_4"].type != kind:
                index = changed.column_names.index(name)
                changed = changed.set_column(index, name, changed[name].cast(changed["layer_4"].type))
        return changed.replace_schema_metadata(schema.metadata)

    change(file, kept)
    with pytest.raises(ValueError, match=rf"trace\.parquet: .*{words}"):
        stream_workload(file)


def test_a_truncated_file_is_named(file: Path) -> None:
    content = file.read_bytes()
    for cut in (1, 100, len(content) // 2):
        file.write_bytes(content[:-cut])
        with pytest.raises(ValueError, match=r"trace\.parquet: damaged or truncated"):
            stream_workload(file)
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(ValueError, match=r"trace\.parquet: "):
        stream_workload(file)


def test_flipped_bytes_are_refused_or_change_no_count(file: Path) -> None:
    content, digest = file.read_bytes(), stream_workload(file).workload.digest
    rng = np.random.default_rng(0)
    refused: list[str] = []
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.integers(len(content) * 3 // 4)] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            assert stream_workload(file).workload.digest == digest
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 40
    assert all(reason.startswith(str(file)) for reason in refused)


@pytest.mark.parametrize(
    ("source", "choice", "words"),
    [
        ([], {}, "at least one batch or file, found none"),
        (None, {}, "a data set is of files or of traces, found NoneType"),
        ([3], {}, "a data set is of files or of traces, found int"),
        ([recorded(9), "b.parquet"], {}, "batch 1: a trace is wanted like the first, found str"),
        ("nowhere.parquet", {}, "nowhere.parquet: a Parquet file is wanted"),
        ([recorded(9)], {"layer_ids": [2]}, r"layer 2 is not recorded, the layers are \[1, 4, 9\]"),
        ([recorded(9)], {"layer_ids": []}, "at least one layer"),
        ([recorded(9)], {"families": []}, "families must be distinct names"),
        ([recorded(9)], {"families": ["law"]}, "family 'law' is not recorded"),
        ([recorded(9)], {"most_sets": 0}, "at least 1"),
        ([recorded(9), wide()], {}, "batch 1: experts, top-k and layers must be"),
        (
            [recorded(9), recorded(9, families=("law",))],
            {},
            "batch 1: family 'law' is not in the first batch",
        ),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused(source: Any, choice: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stream_workload(source, **choice)


def test_a_family_without_tokens_is_no_data_set(trace: Trace) -> None:
    only = trace.take(trace.family == 0)
    with pytest.raises(ValueError, match="1 to 4294967295 tokens of the families chosen, found 0"):
        stream_workload(only, families=["math"])


def test_importing_the_pass_loads_neither_numba_nor_pyarrow() -> None:
    code = (
        "import sys, moeopt.streaming; print([name for name in ('numba', 'pyarrow') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
