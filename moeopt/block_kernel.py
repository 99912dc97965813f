"""Compiled kernel: all contents of a GPU below a reduced cost, by branch and bound over partial contents.

`moeopt.block_bounds` says what completions cost at least. Experts enter in a fixed order, the dearest first: the others
have more to do with each other than with them.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.block_bounds import fitting, pair_fits, saving, tightened

DONE, PAUSED, FULL = 0, 1, 2


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def descend(
    sets: NDArray[np.int32],
    starts: NDArray[np.int64],
    members: NDArray[np.int16],
    weights: NDArray[np.int64],
    load: NDArray[np.int64],
    cap: int,
    fewest: int,
    threshold: int,
    touched: NDArray[np.int8],
    names: NDArray[np.int64],
    alone: NDArray[np.int64],
    pairs: NDArray[np.int64],
    orders: NDArray[np.int64],
    shared: NDArray[np.int64],
    numbers: NDArray[np.int64],
    chosen: NDArray[np.int64],
    found: NDArray[np.int16],
    values: NDArray[np.int64],
    state: NDArray[np.int64],
    looks: int,
) -> int:
    """Go on from `state` = depth, entering, blocks found, nodes, looks; see `moeopt.block_search` for the arrays.

    numbers[depth] = experts at hand, those not yet ruled out, place of the next one, cost so far, load so far.
    """
    slots = len(names)
    k = members.shape[1] if len(members) else 0
    place = np.full(len(load), -1, np.int64)  # of an expert in the arrays of the next depth
    later = np.zeros(len(load), np.int64)
    own = np.zeros(len(load), np.int64)
    low = np.zeros(len(load), np.int64)
    spare = np.zeros(len(load), np.int64)
    inside = np.zeros(max(k, 1), np.int64)
    depth, entering, count = state[0], state[1], state[2]
    looked = np.int64(0)
    code = DONE
    while depth >= 0:
        room = slots - depth
        cost, held = numbers[depth, 3], numbers[depth, 4]
        need = max(1, fewest - depth)
        if entering:
            size = numbers[depth, 0]
            if looked >= looks:
                code = PAUSED
                break
            if count + 1 + size * (size + 1) // 2 > len(values):
                code = FULL
                break
            entering = 0
            state[3] += 1
            looked += 1 + size * size
            numbers[depth, 1] = numbers[depth, 2] = 0
            if room == 2:
                for i in range(size):
                    e = names[depth, i]
                    single = cost + alone[depth, i]
                    if held + load[e] > cap:
                        continue
                    if depth + 1 >= fewest and single <= threshold:
                        _keep(found, values, count, chosen, depth, e, -1, single)
                        count += 1
                    for j in range(i + 1, size):
                        value = single + alone[depth, j] - pairs[depth, i, j]
                        if value <= threshold and held + load[e] + load[names[depth, j]] <= cap:
                            _keep(found, values, count, chosen, depth, e, names[depth, j], value)
                            count += 1
            else:
                for i in range(size):
                    orders[depth, i] = i
                numbers[depth, 1] = tightened(
                    orders[depth],
                    size,
                    alone[depth],
                    pairs[depth],
                    shared[depth],
                    low,
                    room,
                    need,
                    k,
                    threshold - cost,
                )
        order, alive, at = orders[depth], numbers[depth, 1], numbers[depth, 2]
        if alive - at < need:
            depth -= 1
            if depth >= 0 and k:
                x = chosen[depth]
                for i in range(starts[x], starts[x + 1]):
                    if touched[sets[i]] == depth + 1:
                        touched[sets[i]] = 0
            continue
        numbers[depth, 2] = at + 1
        x = order[at]
        expert = names[depth, x]
        start, loaded = cost + alone[depth, x], held + load[expert]
        if loaded > cap:
            continue
        if depth + 1 >= fewest and start <= threshold:
            if count >= len(values):
                numbers[depth, 2] = at
                code = FULL
                break
            chosen[depth] = expert
            _keep(found, values, count, chosen, depth + 1, -1, -1, start)
            count += 1
        # What the others cost once x is in, as far as can be told before a set is looked at.
        looked += alive - at
        size = 0
        for i in range(at + 1, alive):
            e = order[i]
            if loaded + load[names[depth, e]] > cap:
                continue
            own[e] = alone[depth, e] - pairs[depth, x, e]
            untouched = pairs[depth, e, e] - pairs[depth, x, e]
            low[size] = own[e] - saving(shared[depth, e], untouched, room - 1, k)
            later[size] = e
            size += 1
        size = fitting(later, size, low, room - 1, max(1, need - 1), threshold - start)
        looked += size * size
        if room == 3:
            if need > 2 and not pair_fits(later, size, own, pairs[depth], threshold - start):
                continue
        elif size:
            size = tightened(
                later, size, own, pairs[depth], spare, low, room - 1, max(1, need - 1), k, threshold - start
            )
        if size < max(1, need - 1):
            continue
        for i in range(size):
            e = later[i]
            names[depth + 1, i] = names[depth, e]
            alone[depth + 1, i] = own[e]
            for j in range(size):
                pairs[depth + 1, i, j] = pairs[depth, e, later[j]]
        if k:
            for i in range(size):
                place[names[depth + 1, i]] = i
            looked += starts[expert + 1] - starts[expert]
            for i in range(starts[expert], starts[expert + 1]):
                s = sets[i]
                if touched[s]:
                    continue
                touched[s] = depth + 1
                n = 0
                for j in range(k):
                    inside[n] = place[members[i, j]]
                    n += inside[n] >= 0
                for a in range(n):
                    for b in range(n):
                        pairs[depth + 1, inside[a], inside[b]] -= weights[i]
            for i in range(size):
                place[names[depth + 1, i]] = -1
        chosen[depth] = expert
        depth += 1
        numbers[depth, 0], numbers[depth, 3], numbers[depth, 4] = size, start, loaded
        entering = 1
    state[0], state[1], state[2] = depth, entering, count
    state[4] += looked
    return code


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _keep(
    found: NDArray[np.int16],
    values: NDArray[np.int64],
    at: int,
    chosen: NDArray[np.int64],
    depth: int,
    first: int,
    second: int,
    value: int,
) -> None:
    for i in range(depth):
        found[at, i] = chosen[i]
    size = depth
    if first >= 0:
        found[at, size] = first
        size += 1
    if second >= 0:
        found[at, size] = second
        size += 1
    found[at, :size] = np.sort(found[at, :size])
    found[at, size:] = -1
    values[at] = value
