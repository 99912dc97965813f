"""Compiled kernels of the replay: copies taken in turn, copies near a rank, and the counts of every batch."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def copies_in_turn(
    experts: NDArray[np.int32], starts: NDArray[np.int64], copies: NDArray[np.int32], turns: NDArray[np.int64]
) -> NDArray[Any]:
    """int32 [tokens, k]: the tokens of an expert go round its copies; `turns` [experts] is moved on.

    Expert e is on copies[starts[e]:starts[e + 1]].
    """
    tokens, k = experts.shape
    served = np.empty((tokens, k), np.int32)
    for t in range(tokens):
        for j in range(k):
            e = experts[t, j]
            served[t, j] = copies[starts[e] + turns[e] % (starts[e + 1] - starts[e])]
            turns[e] += 1
    return served


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def nearest_copies(
    experts: NDArray[np.int32],
    starts: NDArray[np.int64],
    copies: NDArray[np.int32],
    source: NDArray[np.int32],
    gpus_per_node: int,
    turns: NDArray[np.int64],
) -> NDArray[Any]:
    """int32 [tokens, k]: the copy on the source GPU, else those of its node in turn, else all in turn.

    `source` [tokens]; `turns` [gpus, experts] counts what each rank sent away, and is moved on.
    """
    tokens, k = experts.shape
    served = np.empty((tokens, k), np.int32)
    for t in range(tokens):
        home = source[t]
        for j in range(k):
            e = experts[t, j]
            here, near = False, 0
            for i in range(starts[e], starts[e + 1]):
                here = here or copies[i] == home
                near += copies[i] // gpus_per_node == home // gpus_per_node
            if here:
                served[t, j] = home
                continue
            turn = turns[home, e]
            turns[home, e] += 1
            if near == 0:
                served[t, j] = copies[starts[e] + turn % (starts[e + 1] - starts[e])]
                continue
            turn %= near
            for i in range(starts[e], starts[e + 1]):
                if copies[i] // gpus_per_node == home // gpus_per_node:
                    if turn == 0:
                        served[t, j] = copies[i]
                    turn -= 1
    return served


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fixed_copies(
    starts: NDArray[np.int64], copies: NDArray[np.int32], gpus: int, gpus_per_node: int
) -> NDArray[Any]:
    """int32 [gpus, experts]: the copy that each rank always uses.

    Its own, else the lowest of its node; the ranks without either take the copies in turn.
    """
    experts = len(starts) - 1
    table = np.empty((gpus, experts), np.int32)
    for e in range(experts):
        far = 0
        for rank in range(gpus):
            chosen = -1
            for i in range(starts[e + 1] - 1, starts[e] - 1, -1):
                if chosen != rank and copies[i] // gpus_per_node == rank // gpus_per_node:
                    chosen = copies[i]
            if chosen < 0:
                chosen = copies[starts[e] + far % (starts[e + 1] - starts[e])]
                far += 1
            table[rank, e] = chosen
    return table


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def tally(
    experts: NDArray[np.int32],
    served: NDArray[np.int32],
    source: NDArray[np.int32],
    family: NDArray[np.uint8],
    batch: int,
    sizes: tuple[int, int, int],
    touched: NDArray[np.int64],
) -> Any:
    """(loads, activated: int32 [batches, gpus]; messages, volumes: int64 [batches, ...]) of one layer.

    `experts`, `served` [tokens, k]: the GPU that serves each activation; `source`, `family` [tokens];
    `sizes` = (GPUs, GPUs of a node, experts). Adds to `touched` [families, 2] the GPUs and nodes touched.
    Volumes: vectors sent, in the order of `moeopt.replay_layers.VOLUMES`. Messages: the largest from one GPU to
    another, then the most that one GPU sends or receives within its node and beyond it; a token is one vector for
    each GPU that serves it.
    """
    tokens, k = experts.shape
    gpus, per_node, n_experts = sizes
    batches = -(-tokens // batch)
    loads = np.zeros((batches, gpus), np.int32)
    activated = np.zeros((batches, gpus), np.int32)
    messages = np.zeros((batches, 3), np.int64)
    volumes = np.zeros((batches, 9), np.int64)
    sent = np.zeros((gpus, gpus), np.int32)  # of the open batch: from, to
    seen = np.full((gpus, n_experts), -1, np.int32)  # last batch that used the copy
    at_gpu = np.full(gpus, -1, np.int32)  # last token there
    at_node = np.full(gpus // per_node, -1, np.int32)
    for t in range(tokens):
        b = t // batch
        home = source[t]
        home_node = home // per_node
        f = family[t]
        volumes[b, 0] += k
        for j in range(k):
            e, g = experts[t, j], served[t, j]
            node = g // per_node
            loads[b, g] += 1
            if seen[g, e] != b:
                seen[g, e] = b
                activated[b, g] += 1
            if g != home:
                volumes[b, 3] += 1
            if node != home_node:
                volumes[b, 6] += 1
            if at_gpu[g] != t:
                at_gpu[g] = t
                touched[f, 0] += 1
                volumes[b, 1] += 1
                if g != home:
                    volumes[b, 4] += 1
                    sent[home, g] += 1
                if node != home_node:
                    volumes[b, 7] += 1
            if at_node[node] != t:
                at_node[node] = t
                touched[f, 1] += 1
                volumes[b, 2] += 1
                if node != home_node:
                    volumes[b, 5] += 1
        if t + 1 == tokens or (t + 1) % batch == 0:
            close_batch(sent, per_node, messages[b])
            volumes[b, 8] = gpus * (gpus - 1) * messages[b, 0]
    return loads, activated, messages, volumes


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def close_batch(sent: NDArray[np.int32], per_node: int, message: NDArray[np.int64]) -> None:
    """Write the message sizes of `sent` [from, to] as `tally` gives them, and clear it."""
    gpus = len(sent)
    for g in range(gpus):
        out, into, out_near, into_near = 0, 0, 0, 0
        node = g // per_node
        for other in range(gpus):
            out += sent[g, other]
            into += sent[other, g]
            message[0] = max(message[0], sent[g, other])
        for other in range(node * per_node, (node + 1) * per_node):
            out_near += sent[g, other]
            into_near += sent[other, g]
        message[1] = max(message[1], out_near, into_near)
        message[2] = max(message[2], out - out_near, into - into_near)
    sent[:] = 0
