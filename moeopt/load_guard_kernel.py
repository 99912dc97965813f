"""Compiled kernel of the load guard: tokens one by one, loads decaying."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def guarded_gpus(
    experts: NDArray[np.int64],
    starts: NDArray[np.int64],
    copies: NDArray[np.int32],
    primary: NDArray[np.int32],
    n_gpus: int,
    theta: float,
    rho: float,
    batch: int,
    single_first: bool,
    anchor_rule: int,
    primary_first: bool,
    state: NDArray[np.float64],
) -> NDArray[Any]:
    """int32 [tokens, k]: the rule of `moeopt.load_guard.LoadGuard`.

    The GPUs of expert e are copies[starts[e]:starts[e + 1]], ascending. Anchor rules: 0 none, 1 first, 2 most. `state`
    is what earlier tokens left and these leave: loads [gpus], activations of the batch [gpus], tokens so far.
    """
    tokens, k = experts.shape
    served = np.empty((tokens, k), np.int32)
    loads, further = state[:n_gpus], state[n_gpus : 2 * n_gpus]
    earlier = int(state[2 * n_gpus])
    touched = np.full(n_gpus, -1)  # the last token that did
    held = np.zeros(n_gpus, np.int64)
    limit = 0.0
    for t in range(tokens):
        if t == 0 or (earlier + t) % batch == 0:
            if earlier + t and (earlier + t) % batch == 0:
                for g in range(n_gpus):
                    loads[g] = rho * loads[g] + further[g]
                    further[g] = 0.0
            total = 0.0
            for g in range(n_gpus):
                total += loads[g]
            limit = np.inf if np.isinf(theta) else (1.0 + theta) * (total / n_gpus)
        anchor = -1
        if anchor_rule == 1:
            anchor = primary[experts[t, 0]]
        elif anchor_rule == 2:
            for j in range(k):
                for c in range(starts[experts[t, j]], starts[experts[t, j] + 1]):
                    held[copies[c]] = 0
            most = 0
            for j in range(k):
                for c in range(starts[experts[t, j]], starts[experts[t, j] + 1]):
                    g = copies[c]
                    held[g] += 1
                    if held[g] > most or (held[g] == most and g < anchor):
                        anchor, most = g, held[g]
        for turn in range(2):
            for j in range(k):
                first, last = starts[experts[t, j]], starts[experts[t, j] + 1]
                if (turn == 0) != (not single_first or last - first == 1):
                    continue
                feasible = False
                for c in range(first, last):
                    feasible = feasible or loads[copies[c]] <= limit
                best, rank, load = -1, -1, 0.0
                for c in range(first, last):
                    g = copies[c]
                    if feasible and loads[g] > limit:
                        continue
                    merit = 0
                    if touched[g] == t:
                        merit += 4
                    if g == anchor:
                        merit += 2
                    if primary_first and g == primary[experts[t, j]]:
                        merit += 1
                    if merit > rank or (merit == rank and loads[g] < load):
                        best, rank, load = g, merit, loads[g]
                served[t, j] = best
                touched[best] = t
                further[best] += 1.0
    state[2 * n_gpus] += tokens
    return served
