"""Every kernel against the least that the machine needs for its work: figures of one core, nothing is asserted."""

import time
from typing import Any

import pytest

from benchmarks.kernels import FULL, KERNELS, ROUNDS, SMALL, Kernel
from benchmarks.machine_limits import limit_of


@pytest.mark.benchmark(
    timer=time.process_time
)  # kernels are serial: what else runs takes none of these seconds
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_kernel(kernel: Kernel, benchmark: Any, request: pytest.FixtureRequest) -> None:
    prepared = kernel.prepare(SMALL if request.config.getoption("--small") else FULL)
    prepared.call()  # compiles
    benchmark.pedantic(prepared.call, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.stats is None:  # timing is switched off
        return
    need, seconds = limit_of(prepared.needs)
    benchmark.extra_info.update(
        unit=kernel.unit,
        units=prepared.units,
        limit=str(need),
        limit_seconds=seconds,
        times_limit=benchmark.stats.stats.min / seconds,
    )
