"""Compiled kernels: what a dispatch within the cap costs at least, shown by prices of the GPUs' activations."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["raised"]

NEVER = np.int64(1) << np.int64(60)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _relaxed(
    held: NDArray[np.int64],
    price: NDArray[np.int64],
    members: NDArray[np.int64],
    tokens: NDArray[np.int64],
    weights: NDArray[np.int64],
    scale: int,
    loads: NDArray[np.int64],
) -> Any:
    """Least of scale x objective + price x activations over dispatches without a cap; `loads` [gpus] of one of them."""
    groups, k = len(held), members.shape[1]
    loads[:] = 0
    total = np.int64(0)
    for d in range(len(tokens)):
        best, chosen = NEVER, 0
        for used in range(1, 1 << groups):
            size = 0
            for g in range(groups):
                size += used >> g & 1
            value = scale * weights[d] * (size - 1)
            if size > k or value >= best:
                continue
            for j in range(k):
                least = NEVER
                for g in range(groups):
                    if used >> g & 1 and held[g] >> members[d, j] & 1 and price[g] < least:
                        least = price[g]
                value += least
                if value >= best:
                    break
            if value < best:
                best, chosen = value, used
        total += tokens[d] * best
        for j in range(k):
            least, server = NEVER, 0
            for g in range(groups):
                if chosen >> g & 1 and held[g] >> members[d, j] & 1 and price[g] < least:
                    least, server = price[g], g
            loads[server] += tokens[d]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def raised(
    held: NDArray[np.int64],
    price: NDArray[np.int64],
    members: NDArray[np.int64],
    tokens: NDArray[np.int64],
    weights: NDArray[np.int64],
    scale: int,
    cap: int,
    ceiling: int,
    steps: int,
    highest: int,
) -> Any:
    """Raise `price` [gpus] until it shows that no dispatch within the cap costs less than the ceiling.

    Returns scale x what it shows. `held` [gpus] masks of experts; `members` [demands, k], `tokens` [demands], `weights`
    [demands] of one token on one further GPU. Subgradient steps towards the ceiling (Polyak 1969), up to `highest`.
    """
    groups = len(held)
    loads = np.zeros(groups, np.int64)
    best = -NEVER
    kept = price.copy()
    reach, failed = 1.0, 0
    for _ in range(steps):
        value = _relaxed(held, price, members, tokens, weights, scale, loads)
        norm = 0.0
        for g in range(groups):
            value -= price[g] * cap
            if loads[g] > cap or price[g] > 0:
                norm += float(loads[g] - cap) ** 2
        if value > best:
            best, failed = value, 0
            kept[:] = price
        else:
            failed += 1
            if failed == 3:
                reach, failed = 0.6 * reach, 0
        if best > scale * (ceiling - 1) or norm == 0.0:
            break
        step = reach * max(float(scale * ceiling - value), float(scale)) / norm
        for g in range(groups):
            price[g] = min(highest, max(0, price[g] + np.int64(np.rint(step * float(loads[g] - cap)))))
    price[:] = kept
    return best
