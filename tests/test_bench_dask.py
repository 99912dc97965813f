"""Sweeps on a Dask cluster: as on any executor, and one worker's death costs no row."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moeopt.bench_rows import Row
from moeopt.bench_store import Store
from moeopt.bench_sweep import sweep
from tests.bench_tasks import task

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
TRIED, WORKERS = "made-up", 3


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


def test_a_sweep_on_a_cluster_stores_what_one_here_does(client: Any, tmp_path: Path) -> None:
    cases = [f"case {number}" for number in range(6)]
    far, near = Store(tmp_path / "far.sqlite"), Store(tmp_path / "near.sqlite")
    with client.get_executor(pure=False) as executor:
        assert sweep([task(one) for one in cases], far, experiment=TRIED, executor=executor) == 6
        assert sweep([task(one) for one in cases], far, experiment=TRIED, executor=executor) == 0
    sweep([task(one) for one in cases], near, experiment=TRIED, limits=None)
    told = [
        {(row["case"], row["layer"], row["outcome"], row["found"]["cost"]) for row in store.rows(TRIED)}
        for store in (far, near)
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 12


def test_a_worker_killed_in_the_middle_loses_and_doubles_no_row(client: Any, tmp_path: Path) -> None:
    store, killed = Store(tmp_path / "rows.sqlite"), list[int]()
    numbers = client.run(os.getpid)

    def follow(rows: list[Row]) -> None:
        if not killed:
            killed.append(next(iter(numbers.values())))
            os.kill(killed[0], signal.SIGKILL)

    cases = [f"case {number}" for number in range(12)]
    with client.get_executor(pure=False) as executor:
        sweep([task(one) for one in cases], store, experiment=TRIED, executor=executor, follow=follow)
    rows = store.rows(TRIED)
    assert killed
    assert [row["outcome"] for row in rows] == ["done"] * 24
    assert sorted({row["case"] for row in rows}) == sorted(cases)
    client.wait_for_workers(WORKERS, timeout=60)
    ends = time.monotonic() + 60
    while killed[0] in client.run(os.getpid).values():
        assert time.monotonic() < ends
        time.sleep(0.2)
