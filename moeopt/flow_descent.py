"""Experts of several layers seated for the way of tokens between layers: one layer after the other, exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moeopt.stop import Clock

__all__ = ["bisected", "descended", "kicked", "moved", "shuffled"]

Counts = NDArray[np.int64]


def moved(flow: Counts, gpu_of: Counts, *, distances: Counts) -> int:
    """Price of all transfers int64 [layers - 1, experts, experts] for `gpu_of` int64 [layers, experts]."""
    return int((flow * distances[gpu_of[:-1, :, None], gpu_of[1:, None, :]]).sum())


def descended(flow: Counts, gpu_of: Counts, *, sizes: Counts, distances: Counts, clock: Clock) -> Counts:
    """`gpu_of` int64 [layers, experts] improved layer by layer, forward and backward, until no layer gains alone.

    With the other layers fixed, the transfers of a layer cost a sum over its experts of what each pays on its GPU, so
    that its best seats, `sizes` int64 [gpus] of them, are an assignment problem; it is solved exactly. A layer is
    changed only where that lowers the price, so the price never rises. Ends early when the clock does.
    """
    from scipy.optimize import linear_sum_assignment

    gpu_of, layers = gpu_of.copy(), len(gpu_of)
    seats, experts = np.repeat(np.arange(len(sizes)), sizes), np.arange(gpu_of.shape[1])
    idle = 0  # layers looked at since the last gain
    order = [*range(layers), *range(layers - 2, 0, -1)]
    while True:
        for layer in order:
            pay = _pay(flow, gpu_of, layer, distances)
            seated = seats[linear_sum_assignment(pay[:, seats])[1]]
            gain = int(pay[experts, gpu_of[layer]].sum() - pay[experts, seated].sum())
            idle = 0 if gain > 0 else idle + 1
            if gain > 0:
                gpu_of[layer] = seated
            if idle > len(order) or clock.expired:
                return gpu_of


def _pay(flow: Counts, gpu_of: Counts, layer: int, distances: Counts) -> Counts:
    """int64 [experts, gpus]: what the transfers of each expert of a layer cost on each GPU."""
    pay = np.zeros((gpu_of.shape[1], len(distances)), np.int64)
    if layer:
        pay += flow[layer - 1].T @ distances[gpu_of[layer - 1]]
    if layer < len(gpu_of) - 1:
        pay += flow[layer] @ distances[gpu_of[layer + 1]]
    return pay


def shuffled(sizes: Counts, *, layers: int, rng: np.random.Generator) -> Counts:
    """int64 [layers, experts]: experts on GPUs of `sizes` int64 [gpus], drawn evenly."""
    seats = np.repeat(np.arange(len(sizes)), sizes)
    return rng.permuted(np.tile(seats, (layers, 1)), axis=1)


def kicked(gpu_of: Counts, *, gpus: int, rng: np.random.Generator) -> Counts:
    """`gpu_of` int64 [layers, experts] with the experts of three GPUs shuffled, in up to eight consecutive layers."""
    gpu_of = gpu_of.copy()
    chosen, first = rng.choice(gpus, min(3, gpus), replace=False), int(rng.integers(len(gpu_of)))
    for layer in gpu_of[first : first + 8]:
        own = np.flatnonzero(np.isin(layer, chosen))
        layer[own] = rng.permutation(layer[own])
    return gpu_of


def bisected(
    flow: Counts, *, sizes: Counts, gpus_per_node: int, clock: Clock, rng: np.random.Generator
) -> Counts:
    """int64 [layers, experts]: recursive bisection, nodes parted before their GPUs, each cut by `descended`.

    Every part has the same number of experts in each layer: the `sizes` int64 [gpus] of its GPUs.
    """
    layers, experts = len(flow) + 1, int(sizes.sum())
    gpu_of = np.zeros((layers, experts), np.int64)
    todo = [(np.tile(np.arange(experts), (layers, 1)), np.arange(len(sizes)))]
    while todo:
        members, gpus = todo.pop()
        if len(gpus) == 1:
            np.put_along_axis(gpu_of, members, gpus[0], axis=1)
            continue
        half = len(gpus) // 2
        if len(gpus) > gpus_per_node:
            half -= half % gpus_per_node  # at least one node, for the parts are whole nodes here
        parts = gpus[:half], gpus[half:]
        two = np.array([sizes[part].sum() for part in parts])
        inside = flow[np.arange(layers - 1)[:, None, None], members[:-1, :, None], members[1:, None, :]]
        side = shuffled(two, layers=layers, rng=rng)
        side = descended(inside, side, sizes=two, distances=1 - np.eye(2, dtype=np.int64), clock=clock)
        for number, part in enumerate(parts):
            own = members[side == number].reshape(layers, -1)
            todo.append((own, part))
    return gpu_of
