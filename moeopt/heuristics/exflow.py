"""Experts of all layers placed for the way of tokens from layer to layer: ExFlow's goal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from moeopt import links
from moeopt.flow import FlowProblem
from moeopt.flow_descent import bisected, descended, kicked, moved
from moeopt.model_method import ModelMethod
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock
from moeopt.trace import Trace


@dataclass(frozen=True)
class ExFlow(ModelMethod):
    """Few moves of tokens between GPUs from each layer to the next; sizes as equal as the slots allow.

    The goal is the one of the source: over sampled tokens and consecutive layers, the least number of moves to
    another GPU, with the same number of experts on every GPU in every layer. It is `FlowProblem.cost` of
    `FlowProblem.from_trace(trace, cluster, returning=False)` on those sizes: its integer programme, with binaries for
    (layer, expert, GPU), is the formulation "layers". Top-1 is the source's case. For top-k each of the k x k pairs of
    an expert of a token and one at its next layer is a transfer: cost / k^2 is the expected number of moves of a
    walker that follows one expert at each layer. The first of the k cannot be told, for a trace does not rank them.

    | field | holds |
    |---|---|
    | restarts | bisections, each from another draw |
    | kicks | descents from the best placement after its experts on three GPUs are shuffled in up to eight layers |
    | tokens | tokens sampled, evenly without return; None: all of them |

    The search is ours, for no solver closes the programme at real sizes. The source bisects recursively, or places on
    nodes and then on GPUs, 60 seconds of Gurobi for each bisection, with 5000 tokens more at a time. Here each
    bisection is a descent instead: with the other layers fixed, a layer is an assignment problem, solved exactly, and
    sweeps forward and backward end when no layer gains. The same descent over all GPUs follows, and starts again after
    kicks. Moves are priced as the cluster says, gpu_cost and node_cost: nodes are parted before their GPUs.
    Nothing is proved; on tiny instances a test compares with the optimum of the programme.

    Pairs within a layer, and loads, are not known to it: GPUs may be uneven, and a load tolerance may refuse it.
    Source: J. Yao et al., ExFlow, arXiv 2401.08383, its integer programme; the numbers above are those of the source.
    """

    restarts: int = 5
    kicks: int = 50
    tokens: int | None = None
    name = "exflow"
    summary = "all layers: few moves of tokens between GPUs from layer to layer, equal sizes (ExFlow)"

    def __post_init__(self) -> None:
        for name, least in (("restarts", 1), ("kicks", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, or None for all, found {self.tokens}")

    def supports(self, problem: Problem) -> str:
        """Several layers, for one has no moves; single copies."""
        if problem.replicas:
            return f"places single copies, ExFlow has none: replicas are {problem.replicas}"
        return super().supports(problem)

    def propose(
        self, problem: Problem, trace: Trace, *, clock: Clock, rng: np.random.Generator
    ) -> Iterator[Placement]:
        """The best placement so far, each time there is a better one."""
        if self.tokens is not None and self.tokens < trace.n_tokens:
            trace = trace.take(np.sort(rng.choice(trace.n_tokens, self.tokens, replace=False)))
        cluster = problem.cluster
        sizes = equal_sizes(problem.workload.n_experts, cluster.slots_of)
        exact = replace(cluster, slots=tuple(sizes.tolist()))
        flow = FlowProblem.from_trace(trace, exact, returning=False).flow
        distances, best, least = links.distances(cluster), None, None
        for turn in range(self.restarts + self.kicks):
            if best is None or turn < self.restarts:
                opening = bisected(
                    flow, sizes=sizes, gpus_per_node=cluster.gpus_per_node, clock=clock, rng=rng
                )
            else:
                opening = kicked(best, gpus=cluster.gpus, rng=rng)
            gpu_of = descended(flow, opening, sizes=sizes, distances=distances, clock=clock)
            price = moved(flow, gpu_of, distances=distances)
            if least is None or price < least:
                best, least = gpu_of, price
                yield problem.partition(gpu_of)
            if clock.expired:
                return
