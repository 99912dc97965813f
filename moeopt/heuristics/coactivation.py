"""Experts grouped greedily by co-activation."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeopt.affinity_groups import fitted, grown
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock

GROWTHS = ("together", "one-by-one")


@dataclass(frozen=True)
class Coactivation(Heuristic):
    """Groups opened by experts of large degree, which experts of largest affinity to them join.

    Affinity of two experts is the weight of the tokens that choose both, degree the sum of an expert's affinities.
    Sizes are as equal as the slots allow.

    | field | holds |
    |---|---|
    | growth | "together": all GPUs opened, then the best fit joins first; "one-by-one": each filled before the next |

    Groups are opened by the free experts of largest degree, ties by the lowest id.

    Source: the baseline "Coact." of arXiv 2606.01007 (TACG), section B.5 and table 1, a "canonical statistical
    placement" without an algorithm: seeds and growth are our reading. Together keeps the hottest experts apart, as the
    load published there does, 0.23 to 0.62 above the mean on the fullest GPU; one by one saves more fan-out and gives
    the first GPU about twice the mean. Nodes and the tolerance of the problem are not known to it.
    """

    growth: str = "together"
    name = "coactivation"
    summary = "groups grown greedily by co-activation: the baseline Coact. of TACG"

    def __post_init__(self) -> None:
        if self.growth not in GROWTHS:
            raise ValueError(f"growth must be one of {', '.join(GROWTHS)}, found {self.growth!r}")

    def supports(self, problem: Problem) -> str:
        """One copy of each expert."""
        return f"places single copies, replicas are {problem.replicas}" if problem.replicas else ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement."""
        (sets,) = problem.workload.layers
        sizes = equal_sizes(sets.n_experts, problem.cluster.slots_of)
        affinity = sets.affinity(problem.set_weights(sets))
        if self.growth == "one-by-one":
            yield problem.partition(grown(affinity, sizes))
            return
        opened = np.flatnonzero(sizes)
        gpu_of = np.full(len(affinity), -1)
        gpu_of[np.argsort(-affinity.sum(axis=1), kind="stable")[: len(opened)]] = opened
        yield problem.partition(fitted(affinity, gpu_of, least=sizes, most=sizes))
