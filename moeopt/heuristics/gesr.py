"""GESR: second copies of generic experts, on top of any placement of single copies."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moeopt.balance import levelled
from moeopt.family_graphs import NORMALISERS, POOLINGS, FamilyGraphs
from moeopt.heuristics.tacg import Tacg
from moeopt.method import Heuristic, Method
from moeopt.news import silence
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock, is_interrupt

SCORERS = ("generality", "centrality", "frequency", "hot", "random")
SECONDARIES = ("affinity", "lightest", "random")


@dataclass(frozen=True)
class Gesr(Heuristic):
    """Copies of the best scored experts, arXiv 2606.01007, GESR, on top of what `base` places: equal memory for all.

    The base solves `single_copies` of the problem by its own search, within the clock. Then the first `n_rep` experts
    by score, ties to the lower id, each get copies on `k_sec` further GPUs with room. Copies end with the problem's
    replicas or with the slots, so that fewer replicas mean fewer experts, and more than n_rep x k_sec are left unused;
    neither cap is in the source, which counts copies only. A copy that finds no room is not made: for equal numbers of
    copies under every base, slots need some to spare. Where the load tolerance is broken, the same copies follow
    on the base's placement after swaps away from the fullest GPU, which are not part of the source. Tokens are judged
    at the problem's own dispatch; the published one is `moeopt.load_guard`.

    | field | holds |
    |---|---|
    | base | method that places single copies; published: `Tacg` |
    | scorer | "generality", published; "centrality", "frequency", "hot" or "random", its comparisons: see `scores` |
    | secondary | GPUs of the copies: "affinity", "lightest" or "random", see below |
    | n_rep | experts that get copies, in every layer |
    | k_sec | copies of each beyond its primary one |
    | lambda1, lambda2 | weights of consistency and of specificity in generality; published 0 and 0 |
    | normaliser, pooling | of the graph that scores and affinity are of: see `FamilyGraphs.of` |

    "affinity", published: GPUs whose primary experts the expert is most co-activated with, by the pooled graph.
    "lightest": GPUs of least load for their speed, the tokens of every expert split evenly over its copies so far.
    "random": any with room. Ties go to the lower id.

    The ablations of table 2 there: without co-activation, base `Tacg` with normaliser "uniform" (here as well, all
    experts score alike and the lowest ids get the copies; the source does not say which it means); without task
    preference, base `Spectral`, or `Tacg` with alpha 0; without GESR, the base alone; without the guard,
    `LoadGuard(theta=inf)` at the dispatch.
    """

    base: Method = field(default_factory=Tacg)
    scorer: str = "generality"
    secondary: str = "affinity"
    n_rep: int = 8
    k_sec: int = 2
    lambda1: float = 0.0
    lambda2: float = 0.0
    normaliser: str = "frequency"
    pooling: str = "families"
    name = "gesr"
    summary = "copies of generic experts (GESR) on top of any method's single copies"

    def __post_init__(self) -> None:
        if not isinstance(self.base, Method):
            raise ValueError(f"base must be a method, found {self.base!r:.60}")
        for name, allowed in (
            ("scorer", SCORERS),
            ("secondary", SECONDARIES),
            ("normaliser", NORMALISERS),
            ("pooling", POOLINGS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, found {getattr(self, name)!r:.60}"
                )
        for name in ("n_rep", "k_sec"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        for name in ("lambda1", "lambda2"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, found {getattr(self, name)}")

    def supports(self, problem: Problem) -> str:
        """Needs expert sets, copies that can be judged, and a base that treats the problem of single copies."""
        if not problem.workload.complete:
            return "needs expert sets, the workload has pair counts only"
        if problem.replicas and problem.workload.top_k > 16:
            return f"top-k must be at most 16 with replicas, found {problem.workload.top_k}"
        reason = self.base.supports(single_copies(problem))
        return f"base {self.base.name}: {reason}" if reason else ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The base's placement with copies, then the levelled one with copies if the first is too uneven.

        A base without an admissible placement has its first proposal judged, with copies where there is room; one
        without a proposal leaves nothing to judge. `start` plays no part.
        """
        graphs = FamilyGraphs.of(problem, normaliser=self.normaliser, pooling=self.pooling)
        found, interrupted = self._based(problem, clock, rng)
        if found is not None:
            yield from self._served(problem, graphs, found.primary[0].astype(np.int64), rng)
        if interrupted:
            raise KeyboardInterrupt  # the base kept what it had; the run ends here

    def _served(
        self, problem: Problem, graphs: FamilyGraphs, gpu_of: NDArray[np.int64], rng: np.random.Generator
    ) -> Iterator[Placement]:
        ranked = np.argsort(-self._scores(problem, graphs, rng), kind="stable")[: self.n_rep]
        proposal = self._copied(problem, graphs, gpu_of, ranked, rng)
        yield proposal
        if problem.load_caps is not None and problem.violation(proposal):
            (sets,), cluster = problem.workload.layers, problem.cluster
            even = levelled(sets.load, gpu_of, slots=cluster.slots_of, speeds=cluster.speeds_of)
            yield self._copied(problem, graphs, even, ranked, rng)

    def _based(
        self, problem: Problem, clock: Clock, rng: np.random.Generator
    ) -> tuple[Placement | None, bool]:
        """(the base's placement, None where it has none; whether Ctrl-C ended it)."""
        single = single_copies(problem)
        stop = replace(clock.part(1.0).stop, candidates=clock.stop.candidates)
        with silence():  # its costs and bounds are of another problem
            if isinstance(self.base, Heuristic):
                return _cheapest(self.base, single, stop.start(), rng)
            result = self.base.solve(single, stop=stop, seed=int(rng.integers(1 << 31)))
            return result.placement, result.status == "interrupted"

    def _scores(
        self, problem: Problem, graphs: FamilyGraphs, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        if self.scorer == "random":
            return rng.permutation(problem.workload.n_experts).astype(float)
        if self.scorer == "generality":
            return generality(graphs, lambda1=self.lambda1, lambda2=self.lambda2)
        return scores(problem, graphs, scorer=self.scorer)

    def _copied(
        self,
        problem: Problem,
        graphs: FamilyGraphs,
        gpu_of: NDArray[np.int64],
        ranked: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Placement:
        """The placement whose primary copies are on `gpu_of`, with secondary ones of the experts `ranked`."""
        cluster, workload = problem.cluster, problem.workload
        gpus = np.arange(cluster.gpus)
        hosts = gpu_of[:, None] == gpus
        affinity = graphs.pooled @ hosts  # [experts, gpus]
        room = np.minimum(cluster.slots_of, len(hosts)) - hosts.sum(axis=0)
        left = problem.replicas
        for expert in ranked:
            open_gpus = gpus[(room > 0) & (gpus != gpu_of[expert])]
            if self.secondary == "affinity":
                merit = affinity[expert, open_gpus]
            elif self.secondary == "lightest":
                carried = (workload.layers[0].load / hosts.sum(axis=1)) @ hosts
                merit = -(carried / cluster.speeds_of)[open_gpus]
            else:
                merit = rng.random(len(open_gpus))
            chosen = open_gpus[np.argsort(-merit, kind="stable")][: min(self.k_sec, left)]
            hosts[expert, chosen] = True
            room[chosen] -= 1
            left -= len(chosen)
        primary = gpu_of[None].astype(np.int32)
        return Placement(
            hosts[None], primary, cluster.nodes, cluster.slots, workload.layer_ids, workload.model
        )


@dataclass(frozen=True)
class TacgGesr(Tacg):
    """`Gesr` on top of `Tacg`, one graph for both: the placement of arXiv 2606.01007.

    | field | holds |
    |---|---|
    | normaliser, pooling, jitter, seeds, unit_rows, alpha, tau | as of `Tacg` |
    | n_rep, k_sec, lambda1, lambda2 | as of `Gesr` |
    """

    n_rep: int = 8
    k_sec: int = 2
    lambda1: float = 0.0
    lambda2: float = 0.0
    name = "tacg-gesr"
    summary = "TACG and copies of the most central experts (GESR)"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.copying  # checks the rest

    @property
    def copying(self) -> Gesr:
        """The same, with the copies apart from the placement below them."""
        return Gesr(
            Tacg(
                self.normaliser, self.pooling, self.jitter, self.seeds, self.unit_rows, self.alpha, self.tau
            ),
            n_rep=self.n_rep,
            k_sec=self.k_sec,
            lambda1=self.lambda1,
            lambda2=self.lambda2,
            normaliser=self.normaliser,
            pooling=self.pooling,
        )

    def supports(self, problem: Problem) -> str:
        """As `Gesr`."""
        return self.copying.supports(problem)

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """As `Gesr`."""
        yield from self.copying.search(problem, clock=clock, rng=rng, start=start)


def single_copies(problem: Problem) -> Problem:
    """The problem of one copy each that leaves room for the copies: groups as equal as the slots allow.

    Slots are those of `equal_sizes`; there is no budget of copies, no load tolerance and no incumbent. Families, tail,
    costs and objective stay.
    """
    sizes = equal_sizes(problem.workload.n_experts, problem.cluster.slots_of)
    cluster = replace(problem.cluster, slots=tuple(sizes.tolist()))
    return replace(
        problem,
        cluster=cluster,
        replicas=0,
        load_tolerance=None,
        incumbent=None,
        max_moves=None,
        total_replicas=None,
    )


def scores(problem: Problem, graphs: FamilyGraphs, *, scorer: str) -> NDArray[np.float64]:
    """float [experts]: the replica scorers that figure 4 of arXiv 2606.01007 compares with generality.

    "centrality" (Coact-Cent): degree in the pooled graph, which is generality with both lambdas 0. "frequency"
    (Freq-TopK): recorded tokens that choose the expert, of all families. "hot" (Hot): the largest share of the tokens
    of one family that choose it; the source names it without a definition, and this one is inferred from the setting,
    streams of one family each. Normalised by "frequency", degrees are usage times k - 1: then centrality and frequency
    differ only in how families are weighed, and agree where all have the same number of tokens. Raises ValueError for
    another scorer.
    """
    if scorer == "centrality":
        return np.asarray(graphs.pooled.sum(axis=1))
    if scorer == "frequency":
        return np.asarray(problem.workload.layers[0].load, float)
    if scorer == "hot":
        return np.asarray(graphs.usage.max(axis=0))
    raise ValueError(f"scorer must be one of centrality, frequency, hot, found {scorer!r:.60}")


def generality(graphs: FamilyGraphs, *, lambda1: float, lambda2: float) -> NDArray[np.float64]:
    """float [experts]: centrality + lambda1 x consistency - lambda2 x specificity.

    Centrality: degree in the pooled graph. Consistency: mean over the families of the cosine between the expert's row
    of the family's graph and its pooled row; 0 where either is empty. Specificity: largest Euclidean distance between
    the two rows; the source does not name the norm.
    """
    lengths = np.linalg.norm(graphs.affinity, axis=2) * np.linalg.norm(graphs.pooled, axis=1)
    products = (graphs.affinity * graphs.pooled).sum(axis=2)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    apart = np.linalg.norm(graphs.affinity - graphs.pooled, axis=2)
    return np.asarray(
        graphs.pooled.sum(axis=1) + lambda1 * cosines.mean(axis=0) - lambda2 * apart.max(axis=0)
    )


def _cheapest(
    base: Heuristic, problem: Problem, clock: Clock, rng: np.random.Generator
) -> tuple[Placement | None, bool]:
    """The cheapest admissible proposal, or the first where none is; and whether Ctrl-C ended the search."""
    first, best, least = None, None, 0
    interrupted = False
    try:
        for placement in base.search(problem, clock=clock, rng=rng, start=None):
            clock.candidates += 1
            first = placement if first is None else first
            if not problem.violation(placement):
                cost = problem.cost(placement)
                if best is None or cost < least:
                    best, least = placement, cost
            if clock.expired:
                break
    except (KeyboardInterrupt, SystemError) as error:
        if not is_interrupt(error):
            raise
        interrupted = True
    return first if best is None else best, interrupted
