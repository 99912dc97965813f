"""Tiny problems of several layers, with the traces they are made from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.trace import Trace
from tests.flow_strategies import several_layers

Case = tuple[Problem, Trace]


@st.composite
def model_problems(draw: st.DrawFn, *, replicas: bool = False, nodes: bool = True) -> Case:
    """Two to four layers, two to four GPUs, unequal slots and prices on nodes now and then; copies when asked for."""
    gpus, layers = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    experts = draw(st.integers(2, 7))
    trace = draw(several_layers(layers=layers, experts=experts, most_tokens=20))
    least = -(-experts // gpus)
    more = int(replicas)
    slots: int | tuple[int, ...] = least + draw(st.integers(0, 1)) + more
    if draw(st.booleans()):
        slots = tuple(draw(st.permutations([least + 1 + more] + [least + more] * (gpus - 1))))
    on = draw(st.sampled_from([n for n in (1, 2, gpus) if gpus % n == 0])) if nodes else 1
    cluster = Cluster(
        on, gpus // on, slots, *draw(st.sampled_from([(1, 0), (1, 3), (0, 1)] if nodes else [(1, 0)]))
    )
    room = int(np.minimum(cluster.slots_of, experts).sum()) - experts
    copies = draw(st.integers(0, min(room, 6))) if replicas else 0
    total = draw(st.none() | st.integers(0, copies * layers)) if copies else None
    return Problem.from_trace(trace, cluster, replicas=copies, total_replicas=total), trace
