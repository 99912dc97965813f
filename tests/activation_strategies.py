"""Tiny activation problems, small enough for brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.activation import ActivationProblem
from tests.problem_strategies import clusters


@st.composite
def activation_problems(draw: st.DrawFn) -> ActivationProblem:
    """Free placements without and with copies, and given ones; some batches activate nothing."""
    experts, gpus = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    cluster = draw(clusters(experts=experts, gpus=gpus))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batches = rng.random((draw(st.integers(1, 4)), experts)) < draw(st.sampled_from([0.2, 0.5, 0.8]))
    spare = int(np.minimum(cluster.slots_of, experts).sum()) - experts
    replicas = draw(st.integers(0, min(spare, 2)))
    hosts = (
        _placed(rng, cluster.slots_of, experts=experts, replicas=replicas) if draw(st.booleans()) else None
    )
    return ActivationProblem(batches, cluster, replicas, hosts, worst=draw(st.booleans()))


def _placed(
    rng: np.random.Generator, slots: NDArray[np.int64], *, experts: int, replicas: int
) -> NDArray[np.bool_]:
    """bool [experts, gpus]: one copy each in a random order of the slots, then copies where they fit."""
    hosts = np.zeros((experts, len(slots)), bool)
    seats = rng.permutation(np.repeat(np.arange(len(slots)), slots))
    hosts[np.arange(experts), seats[:experts]] = True
    for gpu in seats[experts:]:
        absent = np.flatnonzero(~hosts[:, gpu])
        if replicas and absent.size:
            hosts[rng.choice(absent), gpu] = True
            replicas -= 1
    return hosts
