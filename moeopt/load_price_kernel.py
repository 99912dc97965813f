"""Compiled kernel of load-priced serving: tokens one by one, each at least cost, loads decaying."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.serving import Desk, Service, Traffic, serve


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def serve_in_turn(
    traffic: Traffic,
    service: Service,
    desk: Desk,
    further: NDArray[np.float64],
    earlier: int,
    theta: float,
    rho: float,
    batch: int,
    width: float,
) -> None:
    """The rule of `moeopt.load_priced.LoadPriced`, written to service.served.

    `service.loads` [gpus] are the decayed loads and `further` [gpus] what the open batch has added, `earlier` the
    tokens before these. Prices see both.
    """
    gpus, soft, loads = len(further), traffic.soft, service.loads
    which = np.empty(1, np.int32)
    before = np.empty(gpus)
    for t in range(len(traffic.tokens)):
        if earlier + t and (earlier + t) % batch == 0:
            for g in range(gpus):
                loads[g] = rho * (loads[g] - further[g]) + further[g]
                further[g] = 0.0
        total = 0.0
        for g in range(gpus):
            total += loads[g]
            before[g] = loads[g]
        mean = (total + traffic.members.shape[1]) / gpus
        for g in range(gpus):
            soft[g] = (1.0 + theta) * mean
        slope = traffic.costs[0] / (width * mean)
        which[0] = t
        serve(which, traffic, service, desk, slope)
        for g in range(gpus):
            further[g] += loads[g] - before[g]
