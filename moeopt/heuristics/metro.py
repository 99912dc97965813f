"""Experts placed so that no GPU activates many of them in a decode batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.expert_sets import ExpertSets
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock


@dataclass(frozen=True)
class Metro(Heuristic):
    """Greedy on the most activated experts of a GPU, summed over sample batches of tokens.

    Experts, those that most batches activate first, each go to the GPU with room where that sum grows least; of equals
    where the squares of all GPUs' numbers of activated experts do, then to the first. Sizes are as equal as the slots
    allow. Batches are drawn from the recorded tokens, by count, without regard to requests.

    | field | holds |
    |---|---|
    | batch | tokens of a batch |
    | batches | batches drawn |

    Decoding reads every activated expert from memory, so the GPU that activates most of them is the slowest. That is
    not the fan-out, which judges the answer as it does all others; the exact problem is
    `moeopt.activation.ActivationProblem`.

    Source: Y. Yu et al., Efficient MoE serving in the memory-bound regime: Balance activated experts, not tokens
    (METRO), arXiv 2512.09277. METRO chooses, batch by batch, among the copies that EPLB has placed, and places none
    itself: the greedy placement on its objective is ours, and with replicas its placement is `eplb`.
    """

    batch: int = 32
    batches: int = 64
    name = "metro"
    summary = "few activated experts on the fullest GPU of a decode batch: METRO's objective, greedy"

    def __post_init__(self) -> None:
        for name in ("batch", "batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")

    def supports(self, problem: Problem) -> str:
        """One copy of each expert; tokens are needed."""
        if problem.replicas:
            return f"places single copies, METRO's copies are those of eplb: replicas are {problem.replicas}"
        if not problem.workload.layers[0].complete:
            return "draws batches of tokens: the workload has pair counts only"
        return ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement."""
        (sets,) = problem.workload.layers
        active = drawn_batches(sets, batch=self.batch, batches=self.batches, rng=rng)
        yield problem.partition(
            spread_activations(active, equal_sizes(sets.n_experts, problem.cluster.slots_of))
        )


def drawn_batches(
    sets: ExpertSets, *, batch: int, batches: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """bool [batches, experts]: experts that each batch of tokens, drawn by their counts with return, activates."""
    counts = sets.counts.sum(axis=1)
    tokens = rng.choice(len(sets), size=(batches, batch), p=counts / counts.sum())
    active = np.zeros((batches, sets.n_experts), bool)
    np.put_along_axis(active, sets.members[tokens].reshape(batches, -1).astype(np.int64), True, axis=1)
    return active


def spread_activations(active: NDArray[np.bool_], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [experts]: greedy placement for batches bool [batches, experts] on GPUs of `sizes` int64 [gpus] experts."""
    held = np.zeros((len(active), len(sizes)), np.int64)  # activated experts of each batch on each GPU
    room, gpu_of = sizes.copy(), np.empty(active.shape[1], np.int64)
    for expert in np.argsort(-active.sum(axis=0), kind="stable"):
        after = held + active[:, expert, None]
        most = np.maximum(after, held.max(axis=1, keepdims=True)).sum(axis=0)
        squares = (after * after - held * held).sum(axis=0)
        open_gpus = np.flatnonzero(room)
        gpu = open_gpus[np.lexsort([squares[open_gpus], most[open_gpus]])[0]]
        gpu_of[expert] = gpu
        held[:, gpu] += active[:, expert]
        room[gpu] -= 1
    return gpu_of
