"""Kernels at a small size against plain counts, the machine's limits, and pages of pytest-benchmark as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import machine_limits
from benchmarks.kernels import FULL, KERNELS, SMALL, Kernel, Prepared, measure_kernel, row_of
from benchmarks.machine_limits import Need, combine_rate, limit_of, lookup_rate, read_rate
from benchmarks.micro.local_cuts import sought
from benchmarks.micro.preparing import spread_trace
from benchmarks.report import table
from moeopt.bench_files import write_rows
from moeopt.bench_rows import Key
from moeopt.block_search import BlockSearch
from moeopt.workload import Workload

KEY = Key("cost of a partition", None, "of_cost", 0, "few rounds")


def prepared(name: str) -> Prepared:
    (kernel,) = (kernel for kernel in KERNELS if kernel.name == name)
    return kernel.prepare(SMALL)


def inside(call: Callable[[], Any], name: str) -> Any:
    """What a prepared call holds under a name."""
    assert call.__closure__ is not None
    return dict(
        zip(call.__code__.co_freevars, (cell.cell_contents for cell in call.__closure__), strict=True)
    )[name]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_kernel_does_some_work_that_needs_something(kernel: Kernel) -> None:
    found = kernel.prepare(SMALL)
    assert found.units > 0
    assert found.needs
    assert all(need.amount > 0 for need in found.needs)


def test_sets_hardly_repeat_and_the_cost_has_two_million_token_layers() -> None:
    assert FULL.layers * FULL.tokens >= 2_000_000
    trace = spread_trace(replace(FULL, tokens=2_000), layers=1)
    ids = np.sort(trace.experts[:, 0], axis=1)
    assert (np.diff(ids.astype(int), axis=1) > 0).all()
    assert len(np.unique(ids, axis=0)) > 1_990


def test_a_cost_is_that_of_every_token() -> None:
    one = prepared("cost of a partition")
    gpu_of = inside(one.call, "placement").primary
    experts = spread_trace(SMALL, layers=SMALL.layers).experts
    plain = sum(
        len({int(gpu_of[layer, expert]) for expert in row}) - 1
        for token in experts
        for layer, row in enumerate(token.tolist())
    )
    assert one.call() == plain > 0
    assert one.units == experts.shape[0] * experts.shape[1]


def test_all_workloads_are_plain_counts_of_the_sets() -> None:
    trace = spread_trace(SMALL, layers=SMALL.counted)
    by_numpy: Workload = prepared("workload by NumPy").call()
    others = [prepared(name).call() for name in ("workload, compiled", "workload of a stream")]
    for layer, (first, *rest) in enumerate(zip(by_numpy.layers, *others, strict=True)):
        assert {sets.digest for sets in rest} == {first.digest}
        plain = Counter(
            (tuple(sorted(row)), int(family))
            for row, family in zip(trace.experts[:, layer].tolist(), trace.family, strict=True)
        )
        found = {
            (tuple(members), family): count
            for members, counts in zip(first.members.tolist(), first.counts.tolist(), strict=True)
            for family, count in enumerate(counts)
            if count
        }
        assert found == plain


def test_at_a_local_optimum_every_swap_is_looked_at_and_none_is_made() -> None:
    one = prepared("swaps looked at")
    seating = inside(one.call, "seating")
    labels = seating.labels[0]
    assert one.units == sum(int(a != b) for a in labels for b in labels)
    change, made = one.call()
    assert change == 0
    assert len(made) == 0


def test_swaps_made_and_unmade_leave_everything_as_it_was() -> None:
    one = prepared("swaps made")
    seating, pairs = inside(one.call, "seating"), inside(one.call, "there_and_back")
    before, held = seating.labels.copy(), seating.tally.held.copy()
    assert one.call() == 0
    assert (seating.labels == before).all()
    assert (seating.tally.held == held).all()
    assert one.units == len(pairs)
    plain = sum(int((seating.room.members == expert).any(axis=1).sum()) for expert in pairs.ravel())
    assert one.needs[0].amount == plain
    labels, changes = before[0].copy(), 0
    for pair in pairs:
        for mover, target in zip(pair, labels[pair[::-1]].copy(), strict=True):
            for row in seating.room.members[(seating.room.members == mover).any(axis=1)]:
                gpus = labels[row].tolist()
                changes += len(row) * (gpus.count(labels[mover]) == 1) + len(row) * (target not in gpus)
            labels[mover] = target
    assert one.needs[1].amount == changes
    first, second = pairs[0]
    assert seating.exchange(pairs[:1]) >= 0  # it was a local optimum
    assert (seating.labels[0, [first, second]] == before[0, [second, first]]).all()


def test_contents_priced_are_those_that_a_plain_list_finds() -> None:
    one = prepared("contents priced")
    search: BlockSearch = one.call()
    blocks, prices = inside(one.call, "blocks"), inside(one.call, "prices")
    rows = np.array(list(combinations(range(blocks.n_experts), blocks.slots)), np.int16)
    values = blocks.costs(rows) * inside(one.call, "scale") - prices[rows].sum(axis=1)
    assert blocks.full
    assert sorted(search.values.tolist()) == sorted(values[values <= inside(one.call, "threshold")].tolist())
    assert one.units == search.looks > 0


def test_triangles_are_those_of_a_plain_loop() -> None:
    one = prepared("triangles sought")
    y = inside(one.call, "y")
    broken = 0
    for i, j, k in combinations(range(len(y)), 3):
        near = sorted((y[i, j], y[j, k], y[i, k]))
        broken += 2 * (near[2] + near[1] - near[0] - 1) > 1e-3
    assert one.units == comb(len(y), 3)
    assert len(one.call()) == broken


def test_cuts_are_those_of_the_search_step_by_step() -> None:
    one = prepared("cuts sought")
    cuts, looked = sought(
        inside(one.call, "y"), inside(one.call, "starts"), groups=SMALL.swapped_gpus, largest=8
    )
    assert [[sign for sign in cut if sign] for cut in one.call().tolist()] == cuts
    assert one.units == looked


def test_the_rates_of_the_machine_are_positive() -> None:
    assert read_rate(1 << 22) > 1e6
    assert combine_rate() > 1e6
    assert lookup_rate(1 << 10) > 1e6


def test_the_longest_need_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_limits, "read_rate", lambda: 1e9)
    monkeypatch.setattr(machine_limits, "lookup_rate", lambda table: 1e12 / table)
    monkeypatch.setattr(machine_limits, "combine_rate", lambda: 1e10)
    needs = [Need("move", 10**9), Need("lookup", 10**9, table=4_000), Need("combine", 10**9)]
    assert limit_of(needs) == (needs[1], 4.0)
    assert limit_of(needs[::2]) == (needs[0], 1.0)
    assert [str(need) for need in needs] == [
        "1 G bytes moved",
        "1 G lookups in 4 k bytes",
        "1 G pairs combined",
    ]
    assert str(Need("move", 999_600)) == "1 M bytes moved"


@pytest.mark.parametrize(
    ("kind", "amount", "size", "wrong"),
    [
        ("read", 1, 0, "one of move, lookup, combine, found 'read'"),
        ("move", 0, 0, "at least 1, found 0"),
        ("move", 1, 8, "move with 8 bytes"),
        ("lookup", 1, 0, "lookup with 0 bytes"),
    ],
)
def test_a_need_that_says_nothing_is_refused(kind: str, amount: int, size: int, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Need(kind, amount, size)


def test_no_need_is_no_limit() -> None:
    with pytest.raises(ValueError, match="found none"):
        limit_of([])


def test_a_brief_run_of_pytest_becomes_a_row_and_a_line_of_the_table(tmp_path: Path) -> None:
    (row,) = measure_kernel(KEY.case, KEY, "--small")
    found = row["found"]
    assert found["units"] == SMALL.tokens * SMALL.layers
    assert 0 < found["seconds"] <= found["median_seconds"]
    assert found["times_limit"] == pytest.approx(found["seconds"] / found["limit_seconds"])
    assert found["rate"] == pytest.approx(found["units"] / found["seconds"])
    write_rows([row], tmp_path / "kernels.parquet")
    text = table("kernels", folder=tmp_path)
    assert "| cost of a partition | token-layers | " in text
    assert found["limit"] in text


def test_what_pytest_says_is_in_the_error() -> None:
    with pytest.raises(RuntimeError, match=r"pytest ended with exit code 4: (.|\n)*--larger"):
        measure_kernel(KEY.case, KEY, "--larger")


def test_an_unknown_kernel_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'sorting'; known are cost of a partition, workload by"):
        measure_kernel("sorting", KEY)


def test_a_page_of_several_kernels_is_no_row() -> None:
    with pytest.raises(ValueError, match="found 2"):
        row_of({"benchmarks": [{}, {}]}, KEY)
