"""Placements as engines take them, drawn for tests of their files."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from moeopt.placement import Placement


def dealt(rng: np.random.Generator, *, layers: int, experts: int, gpus: int) -> Any:
    """bool [layers, experts, gpus]: every expert on one GPU, dealt in turn."""
    hosts = np.zeros((layers, experts, gpus), bool)
    for layer in hosts:
        layer[rng.permutation(experts), np.arange(experts) % gpus] = True
    return hosts


@st.composite
def filled(draw: st.DrawFn) -> Placement:
    """Every slot of every GPU holds an expert, no expert twice on a GPU; primaries are the first hosts.

    On one node or more, with layers of a model that has dense ones before and between them.
    """
    nodes, each, experts, layers = draw(
        st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 3))
    )
    gpus = nodes * each
    slots = draw(st.integers(-(-experts // gpus), experts))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hosts = dealt(rng, layers=layers, experts=experts, gpus=gpus)
    for layer in hosts:
        for gpu in layer.T:
            absent = np.flatnonzero(~gpu)
            gpu[rng.permutation(absent)[: slots - gpu.sum()]] = True
    ids = np.sort(rng.choice(12, layers, replace=False))
    model = draw(st.sampled_from(["", "model", "größer\n"]))
    return Placement(hosts, hosts.argmax(axis=2), nodes, slots, tuple(ids.tolist()), model)


@st.composite
def ragged(draw: st.DrawFn) -> Placement:
    """GPUs of one number of slots that hold different numbers of experts."""
    gpus, experts, layers = draw(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hosts = rng.random((layers, experts, gpus)) < 0.2
    hosts |= dealt(rng, layers=layers, experts=experts, gpus=gpus)
    slots = draw(st.integers(int(hosts.sum(axis=1).max()), experts))
    ids = np.sort(rng.choice(12, layers, replace=False))
    return Placement(hosts, hosts.argmax(axis=2), gpus, slots, tuple(ids.tolist()))


@st.composite
def shared_partitions(draw: st.DrawFn) -> Placement:
    """One partition for all layers, equally many experts on every GPU."""
    gpus, slots, layers = draw(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hosts = np.tile(dealt(rng, layers=1, experts=gpus * slots, gpus=gpus), (layers, 1, 1))
    ids = np.sort(rng.choice(12, layers, replace=False))
    return Placement(hosts, hosts.argmax(axis=2), gpus, slots, tuple(ids.tolist()))
