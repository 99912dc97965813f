"""Copies where they even out loads most, over all layers under one budget: CRAFT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.eplb_packing import Packing, copied, packed
from moeopt.knapsack import split_budget
from moeopt.model_method import ModelMethod
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock
from moeopt.trace import Trace

UNIT = 1 << 30  # balance 1 in the table of gains: the knapsack adds whole numbers
COUNTS = ("powers", "all")


@dataclass(frozen=True)
class Craft(ModelMethod):
    """Every layer gets the copies that the knapsack of balance gains gives it, then heaviest first on GPUs.

    Gain T[r, l] of r copies in layer l: mean over maximum of the GPU loads of a greedy placement with r copies, less
    that without. The greedy one gives a copy, one after the other, to the expert of largest load over copies, and
    packs copies, heaviest first, on the least loaded GPU with room. One r for each layer is chosen, sum of gains
    largest, sum of r within the budget: a multiple-choice knapsack, solved exactly by dynamic programming; of equal
    sums the one with fewest copies.

    | field | holds |
    |---|---|
    | counts | "powers": r is 0, 1, 2, 4, ... up to the number of GPUs, as in the source; "all": any number up to it |
    | even_totals | GPUs hold equally many copies over all layers, as far as slots permit; False: in each layer alone |

    With `Problem.total_replicas` that is the budget, and no layer gets more than `replicas`. Without it the budget is
    `replicas` x layers: it never binds, and every layer takes the r of its largest gain up to `replicas`. The slots of
    a layer are those of the cluster, in every layer; in a layer sizes are as equal as they allow, and with
    `even_totals` the larger ones go to the GPUs that hold fewest copies so far.

    Left open by the source, and settled here: loads are those of the recorded tokens together, a copy serves an equal
    share, and a copy that meets another of its expert on a GPU changes places or is dropped (`Packing.mended`).
    Co-activation, nodes and GPU speeds are not known to it.
    Source: CRAFT, arXiv 2603.28768 (gain table, knapsack by dynamic programming, capacity-aware placement).
    """

    counts: str = "powers"
    even_totals: bool = True
    shares_budget: ClassVar[bool] = True
    name = "craft"
    summary = "all layers: copies where they even out loads most, one budget, exact knapsack (CRAFT)"

    def __post_init__(self) -> None:
        if self.counts not in COUNTS:
            raise ValueError(f"counts must be one of {', '.join(COUNTS)}, found {self.counts!r}")

    def supports(self, problem: Problem) -> str:
        """Copies can be judged for top-k up to 16."""
        if problem.replicas and problem.workload.top_k > 16:
            return f"top-k must be at most 16 with replicas, found {problem.workload.top_k}"
        return super().supports(problem)

    def propose(
        self, problem: Problem, trace: Trace, *, clock: Clock, rng: np.random.Generator
    ) -> Iterator[Placement]:
        """The one placement."""
        chosen = self.replicas_of(problem)
        cluster, workload = problem.cluster, problem.workload
        slots = np.minimum(cluster.slots_of, workload.n_experts)
        held = np.zeros(cluster.gpus, np.int64)
        hosts = []
        for sets, copies in zip(workload.layers, chosen, strict=True):
            sizes = _sizes(workload.n_experts + copies, slots, held=held if self.even_totals else 0 * held)
            hosts.append(_packing(sets.load, sizes).hosts(problem))
            held += hosts[-1].sum(axis=0)
        stacked = np.stack(hosts)
        primary = stacked.argmax(axis=2)
        yield Placement(stacked, primary, cluster.nodes, cluster.slots, workload.layer_ids, workload.model)

    def replicas_of(self, problem: Problem) -> tuple[int, ...]:
        """Copies beyond the first that the knapsack gives each layer."""
        layers = len(problem.workload.layers)
        total = problem.replicas * layers if problem.total_replicas is None else problem.total_replicas
        offered = self._offered(min(problem.replicas, problem.cluster.gpus, total))
        gains = gains_of(problem, offered)
        # By copies spent: what is not offered buys the next smaller offer.
        bought = np.searchsorted(offered, np.arange(offered[-1] + 1), side="right") - 1
        spent, _ = split_budget((-gains[:, bought]).tolist(), total)
        return tuple(offered[bought[copies]] for copies in spent)

    def _offered(self, most: int) -> list[int]:
        """The numbers of copies a layer may get, ascending."""
        return [r for r in range(most + 1) if self.counts == "all" or r & (r - 1) == 0]


def gains_of(problem: Problem, offered: Sequence[int]) -> NDArray[np.int64]:
    """int64 [layers, offers]: balance gain of so many copies in each layer, in units of 2^-30; see `Craft`."""
    slots = np.minimum(problem.cluster.slots_of, problem.workload.n_experts)
    balance = [
        [
            _balance(_packing(sets.load, equal_sizes(sets.n_experts + copies, slots)), gpus=len(slots))
            for copies in offered
        ]
        for sets in problem.workload.layers
    ]
    table = np.array(balance, np.int64)
    return np.asarray(table - table[:, :1])


def _balance(packing: Packing, *, gpus: int) -> int:
    """Mean over maximum of the GPU loads, in units of 2^-30."""
    loads = np.bincount(packing.gpu, weights=packing.load, minlength=gpus)
    return round(UNIT * float(loads.mean() / loads.max()))


def _packing(load: NDArray[np.int64], sizes: NDArray[np.int64]) -> Packing:
    """Copies of the experts, as many as the `sizes` int64 [gpus] hold together, heaviest first on GPUs, mended."""
    which = copied(load, int(sizes.sum()))
    share = load[which] / np.bincount(which)[which]
    return Packing(which, packed(share, sizes), share).mended()


def _sizes(copies: int, slots: NDArray[np.int64], *, held: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [gpus]: as equal as the slots allow; the larger ones where least is `held` so far, then first."""
    sizes = np.zeros_like(slots)
    for _ in range(copies):
        free = np.flatnonzero(sizes < slots)
        sizes[free[np.lexsort([(held + sizes)[free], sizes[free]])[0]]] += 1
    return sizes
