"""Even loads in every layer, then GPUs for the groups: MoETuner's two integer programmes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeopt.balance import balanced, levelled
from moeopt.flow import FlowProblem
from moeopt.labelling import chained, is_level, relabelled
from moeopt.labels import LabelProblem
from moeopt.loads import LoadProblem
from moeopt.model_method import ModelMethod
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.statements import named_formulation
from moeopt.stop import Clock, Stop
from moeopt.trace import Trace


@dataclass(frozen=True)
class MoeTuner(ModelMethod):
    """Groups of even load, layer by layer; then GPUs for the groups of all layers, so that the way onward is short.

    First programme, for each layer: sum over GPUs of |load - mean|, the formulation "balance" of
    `moeopt.loads.LoadProblem`. HiGHS starts from the heaviest expert first (LPT) with swaps, which stands where the
    time ends before anything better. Second programme, groups given: sum over steps between layers of the dearest pair
    of GPUs, tokens x price, the formulation "cluster-to-gpu" of `moeopt.labels.LabelProblem`. Where any two GPUs are
    equally far apart its optimum is computed without a solver, by a bottleneck assignment for each step; with a price
    on nodes a layer-by-layer assignment is improved by HiGHS, if the model is not too large for it.

    | field | holds |
    |---|---|
    | seconds | of HiGHS for each layer, and as much for each layer in the second programme; None: no limit |
    | gap | relative gap at which HiGHS ends |
    | equal_sizes | GPUs hold equally many experts of a layer, as engines need; False: up to their slots |
    | columns | largest model of the second programme that HiGHS is given |

    Changed from the source. Sizes: the source leaves them free within a layer and limits the experts of a GPU over all
    layers; here slots limit each layer, and are made equal by default. That no GPU is empty follows from equal sizes,
    and is not stated without them. Solver: HiGHS instead of Gurobi, at the same gap. Tokens from expert to expert are
    counted as in `ExFlow`: k x k pairs for top-k. Bandwidths are the prices of the cluster; loads count relative to
    GPU speeds. Among labellings of equal tail, the least total traffic is taken, of which the source says nothing.

    Which experts share a GPU follows from loads alone, so that the fan-out is not what it saves.
    Source: S. Go, D. Mahajan, MoETuner, arXiv 2502.06643: both programmes, gap tolerance 0.025.
    """

    seconds: float | None = 1.0
    gap: float = 0.025
    equal_sizes: bool = True
    columns: int = 20_000
    name = "moetuner"
    summary = "all layers: even loads, then GPUs for the groups so that the dearest way is short (MoETuner)"

    def __post_init__(self) -> None:
        Stop(seconds=self.seconds, gap=self.gap)
        if self.columns < 0:
            raise ValueError(f"columns must be at least 0, found {self.columns}")

    def supports(self, problem: Problem) -> str:
        """Several layers, for the second programme; single copies."""
        if problem.replicas:
            return f"places single copies, MoETuner has none: replicas are {problem.replicas}"
        return super().supports(problem)

    def propose(
        self, problem: Problem, trace: Trace, *, clock: Clock, rng: np.random.Generator
    ) -> Iterator[Placement]:
        """The placement of the heuristic groups, then that of HiGHS where it found better groups or GPUs."""
        cluster = problem.cluster
        sizes = equal_sizes(problem.workload.n_experts, cluster.slots_of)
        if self.equal_sizes:
            cluster = replace(cluster, slots=tuple(sizes.tolist()))
        flow = FlowProblem.from_trace(trace, cluster, returning=False)
        loads = [
            LoadProblem.from_workload(
                problem.workload.layer(layer),
                cluster,
                speeds=None if cluster.speeds == 1 else cluster.speeds_of.tolist(),
                measure="deviation",
            )
            for layer in range(flow.n_layers)
        ]
        openings = [_opening(one) for one in loads]
        # Groups move to GPUs of the problem's slots, which may be equal where sizes are not.
        labels = self._labels(problem, flow, openings)
        yield (best := self._labelled(labels, clock))
        groups = self._balanced(loads, openings, clock)
        if any((one != other).any() for one, other in zip(groups, openings, strict=True)):
            labels = self._labels(problem, flow, groups)
            yield (best := self._labelled(labels, clock))
        if not is_level(labels.cluster) and _columns(labels) <= self.columns and not clock.expired:
            better = self._searched(labels, best, clock)
            if better != best:
                yield better

    def _balanced(
        self, loads: list[LoadProblem], openings: list[NDArray[np.int64]], clock: Clock
    ) -> list[NDArray[np.int64]]:
        """int64 [experts] of each layer: the first programme."""
        from moeopt.rows import solve_model
        from moeopt.solvers.scaled import ScaledSession

        formulation, groups = named_formulation("balance"), list(openings)
        with ScaledSession() as session:
            for layer, problem in enumerate(loads):
                if clock.expired:
                    break
                start, stop = problem.partition(openings[layer]), self._stop(clock, layers=1)
                found = solve_model(formulation, problem, stop=stop, start=start, session=session).answer
                groups[layer] = found.primary[0].astype(np.int64)
        return groups

    def _labels(self, problem: Problem, flow: FlowProblem, groups: list[NDArray[np.int64]]) -> LabelProblem:
        cluster = problem.cluster
        return LabelProblem(
            flow.flow, np.stack(groups), cluster, layer_ids=flow.layer_ids, model=problem.workload.model
        )

    def _labelled(self, labels: LabelProblem, clock: Clock) -> Placement:
        gpu_of = chained(labels)
        if not is_level(labels.cluster):
            gpu_of = relabelled(labels, gpu_of, clock=clock)
        return labels.labelled(gpu_of)

    def _searched(self, labels: LabelProblem, start: Placement, clock: Clock) -> Placement:
        """The second programme by HiGHS."""
        from moeopt.rows import solve_model

        stop = self._stop(clock, layers=labels.n_layers)
        found = solve_model(named_formulation("cluster-to-gpu"), labels, stop=stop, start=start)
        answer: Placement = found.answer
        return start if found.cost == labels.cost(start) else answer

    def _stop(self, clock: Clock, *, layers: int) -> Stop:
        """The setting's limit for so many layers, or what is left of the clock."""
        limits = [
            limit for limit in (clock.left, self.seconds and self.seconds * layers) if limit is not None
        ]
        return Stop(seconds=max(min(limits), 1e-3) if limits else None, gap=self.gap)


def _opening(problem: LoadProblem) -> NDArray[np.int64]:
    """int64 [experts]: heaviest first, then swaps away from the fullest GPU."""
    slots, speeds = problem.cluster.slots_of, problem.speed_of
    packed = balanced(problem.load, slots, speeds=speeds)
    best = min(
        (packed, levelled(problem.load, packed, slots=slots, speeds=speeds)),
        key=lambda groups: problem.cost(problem.partition(groups)),
    )
    return np.asarray(best, np.int64)


def _columns(labels: LabelProblem) -> int:
    """Columns of the second programme, about: where a group is, and which groups share a GPU or a node."""
    gpus, steps = labels.cluster.gpus, labels.n_layers - 1
    return labels.n_layers * gpus**2 + steps * gpus**2 * (gpus + labels.cluster.nodes)
