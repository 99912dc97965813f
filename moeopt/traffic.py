"""What a placement does to a workload: GPUs and nodes touched, and loads. The one traffic count."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import Plan, touched
from moeopt.hop_counts import partition_touches
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.rules import served_loads


@dataclass(frozen=True, eq=False)
class Traffic:
    """Counts of a plan on recorded traffic, layer by layer.

    | field | holds |
    |---|---|
    | layer_ids | absolute layer indices |
    | families | names |
    | tokens | int64 [families] |
    | gpus_touched | int64 [layers, families]: sum over tokens of GPUs touched |
    | nodes_touched | int64 [layers, families]: sum over tokens of nodes touched |
    | loads | int64 [layers, gpus]: expert activations served |
    """

    layer_ids: tuple[int, ...]
    families: tuple[str, ...]
    tokens: NDArray[np.int64]
    gpus_touched: NDArray[np.int64]
    nodes_touched: NDArray[np.int64]
    loads: NDArray[np.int64]

    @classmethod
    def of(cls, problem: Problem, plan: Plan) -> "Traffic":
        """Count `plan` on the problem's workload."""
        node_of = problem.cluster.node_of
        gpus = [touched(part.gpus) @ part.tokens for part in plan.dispatches]
        nodes = [touched(node_of[part.gpus]) @ part.tokens for part in plan.dispatches]
        loads = [part.gpu_loads(problem.cluster.gpus) for part in plan.dispatches]
        workload = problem.workload
        return cls(
            workload.layer_ids,
            workload.families,
            workload.tokens,
            np.stack(gpus),
            np.stack(nodes),
            np.stack(loads),
        )

    @classmethod
    def of_placement(cls, problem: Problem, placement: Placement) -> "Traffic":
        """Count the problem's own plan of a placement; where no expert has copies, without listing it."""
        if not placement.is_partition:
            return cls.of(problem, problem.plan(placement))
        workload, cluster = problem.workload, problem.cluster
        pairs = zip(workload.layers, placement.primary, strict=True)
        touches = [partition_touches(sets, gpu_of, cluster=cluster) for sets, gpu_of in pairs]
        loads = served_loads(problem, placement)
        gpus, nodes = (np.stack(part) for part in zip(*touches, strict=True))
        return cls(workload.layer_ids, workload.families, workload.tokens, gpus, nodes, loads)

    @property
    def fan_out(self) -> float:
        """Mean further GPUs a token touches in a layer, every token alike."""
        return float(self.gpus_touched.sum() / (self.tokens.sum() * len(self.layer_ids)) - 1)

    @property
    def layer_fan_out(self) -> NDArray[np.float64]:
        """float [layers]."""
        return np.asarray(self.gpus_touched.sum(axis=1) / self.tokens.sum() - 1)

    @property
    def family_fan_out(self) -> dict[str, float]:
        """Mean over layers, by family; families without tokens are left out."""
        mean = self.gpus_touched.sum(axis=0)
        layers = len(self.layer_ids)
        present = [(i, name) for i, name in enumerate(self.families) if self.tokens[i]]
        return {name: float(mean[i] / (self.tokens[i] * layers) - 1) for i, name in present}

    @property
    def node_fan_out(self) -> float:
        """Mean further nodes a token touches in a layer."""
        return float(self.nodes_touched.sum() / (self.tokens.sum() * len(self.layer_ids)) - 1)

    @property
    def max_over_mean(self) -> NDArray[np.float64]:
        """float [layers]: load of the busiest GPU over the mean."""
        return np.asarray(self.loads.max(axis=1) / self.loads.mean(axis=1))

    @property
    def summed(self) -> NDArray[np.int64]:
        """int64 [gpus]: loads summed over layers, where the imbalance of single layers can hide."""
        return np.asarray(self.loads.sum(axis=0))


def max_violation(loads: NDArray[np.int64]) -> float:
    """MaxVio = max / mean - 1."""
    return float(loads.max() / loads.mean() - 1)


def jain(loads: NDArray[np.int64]) -> float:
    """Jain's index (sum)^2 / (n sum of squares): 1 for equal loads, 1/n for one busy GPU."""
    values = loads.astype(float)
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))


def variation(loads: NDArray[np.int64]) -> float:
    """Coefficient of variation, population standard deviation over mean."""
    return float(loads.std() / loads.mean())
