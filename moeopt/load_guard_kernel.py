"""Compiled kernel of the load guard: tokens one by one, loads decaying."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def load_limit(loads: NDArray[np.float64], theta: float) -> float:
    """(1 + theta) x mean load, the sum taken in the order of the ids; infinity without a guard."""
    total = 0.0
    for load in loads:
        total += load
    return np.inf if np.isinf(theta) else (1.0 + theta) * (total / len(loads))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fullest_host(
    chosen: NDArray[np.int64], starts: NDArray[np.int64], copies: NDArray[np.int32], held: NDArray[np.int64]
) -> int:
    """The GPU that holds most of the experts `chosen` [k], the lowest of several; `held` int64 [gpus] is scratch."""
    for expert in chosen:
        for c in range(starts[expert], starts[expert + 1]):
            held[copies[c]] = 0
    best, most = -1, 0
    for expert in chosen:
        for c in range(starts[expert], starts[expert + 1]):
            g = copies[c]
            held[g] += 1
            if held[g] > most or (held[g] == most and g < best):
                best, most = g, held[g]
    return best


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def decay(loads: NDArray[np.float64], further: NDArray[np.float64], factor: float) -> None:
    """Loads [gpus] become factor x loads + further; further becomes 0."""
    for g in range(len(loads)):
        loads[g] = factor * loads[g] + further[g]
        further[g] = 0.0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def guarded_gpus(
    experts: NDArray[np.int64],
    starts: NDArray[np.int64],
    copies: NDArray[np.int32],
    primary: NDArray[np.int32],
    family: NDArray[np.int64],
    family_of: NDArray[np.int64],
    source: NDArray[np.int64],
    theta: float,
    rho: float,
    rho_batch: float,
    batch: int,
    by_expert: bool,
    decay_by_token: bool,
    count_tokens: bool,
    single_first: bool,
    anchor_rule: int,
    worth: NDArray[np.int64],
    state: NDArray[np.float64],
) -> NDArray[Any]:
    """int32 [tokens, layers, k]: the rule of `moeopt.load_guard.LoadGuard`.

    `experts` [tokens, layers, k], `primary` [layers, experts]. The GPUs of expert e of layer l are
    copies[starts[l, e]:starts[l, e + 1]], ascending. `family` and `source` are [tokens], `family_of` [gpus]. Anchor
    rules: 0 none, 1 first, 2 most, 3 source. `worth` [4] is that of a GPU touched, anchor, of the family, primary.
    `rho_batch` is rho to the power of `batch`. A row of `state` is of one layer, or of all if there is one row: what
    earlier tokens left and these leave, loads [gpus], activations of the batch [gpus], tokens so far.
    """
    tokens, layers, k = experts.shape
    n_gpus, shared = len(family_of), len(state) < layers
    served = np.empty((tokens, layers, k), np.int32)
    earlier = int(state[0, 2 * n_gpus])
    touched = np.full(n_gpus, -1)  # the last token and layer that did
    held = np.zeros(n_gpus, np.int64)
    first = 0
    while first < tokens:
        last = min(tokens, first + batch - (earlier + first) % batch)
        for layer in range(layers):
            row = state[0 if shared else layer]
            loads, further = row[:n_gpus], row[n_gpus : 2 * n_gpus]
            own_starts, own_primary = starts[layer], primary[layer]
            over = not shared or layer == layers - 1  # these tokens bring these loads nothing more
            limit = load_limit(loads, theta)
            for t in range(first, last):
                now, chosen = t * layers + layer, experts[t, layer]
                anchor = -1
                if anchor_rule == 1:
                    anchor = own_primary[chosen[0]]
                elif anchor_rule == 2:
                    anchor = fullest_host(chosen, own_starts, copies, held)
                elif anchor_rule == 3:
                    anchor = source[t]
                for turn in range(2):
                    for j in range(k):
                        begin, end = own_starts[chosen[j]], own_starts[chosen[j] + 1]
                        if (turn == 0) != (not single_first or end - begin == 1):
                            continue
                        feasible = False
                        for c in range(begin, end):
                            feasible = feasible or loads[copies[c]] <= limit
                        best, rank, load = -1, -1, 0.0
                        for c in range(begin, end):
                            g = copies[c]
                            if feasible and loads[g] > limit:
                                continue
                            merit = 0
                            if touched[g] == now:
                                merit += worth[0]
                            if g == anchor:
                                merit += worth[1]
                            if family_of[g] == family[t]:
                                merit += worth[2]
                            if g == own_primary[chosen[j]]:
                                merit += worth[3]
                            if merit > rank or (merit == rank and loads[g] < load):
                                best, rank, load = g, merit, loads[g]
                        served[t, layer, j] = best
                        if not count_tokens or touched[best] != now:
                            further[best] += 1.0
                        touched[best] = now
                        if by_expert:
                            decay(loads, further, 1.0 if decay_by_token else rho)
                            limit = load_limit(loads, theta)
                if by_expert and decay_by_token and over:
                    decay(loads, further, rho)
                    limit = load_limit(loads, theta)
            if not by_expert and (earlier + last) % batch == 0:
                factor = rho
                if decay_by_token:
                    factor = rho_batch if over else 1.0
                decay(loads, further, factor)
        first = last
    for row in state:
        row[2 * n_gpus] += tokens
    return served
