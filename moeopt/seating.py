"""Experts seated on GPUs, with the tables that the swap kernels keep."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.swaps import descend, exchange
from moeopt.workload import ExpertSets


@dataclass(frozen=True, eq=False)
class Seating:
    """Experts in the slots of the GPUs, and what every swap would change; one with an empty slot is a move.

    | field | holds |
    |---|---|
    | labels | int32 [levels, seats]: GPU (level 0) and node of each seat; seats beyond E are empty slots |
    | prices | float [levels]: cost of a further GPU, of a further node |
    | load, cap, penalty | float [experts]; float [labels]: load of a GPU above its cap costs `penalty` each |
    | members, weights | the sets: int32 [sets, k], float [sets] |
    | starts, of_expert | [experts + 1] and set indices: the sets of each expert, ascending |
    | count | uint8 [levels, sets, labels]: members of a set on a GPU or node |
    | arrive | float [levels, experts, labels]: weight of the sets that would newly touch the label |
    | leave | float [levels, experts]: weight of the sets that would cease to touch the present label |
    | carried | float [labels]: load of each GPU |
    """

    labels: NDArray[np.int32]
    prices: NDArray[np.float64]
    load: NDArray[np.float64]
    cap: NDArray[np.float64]
    penalty: float
    members: NDArray[np.int32]
    weights: NDArray[np.float64]
    starts: NDArray[np.int64]
    of_expert: NDArray[np.int32]
    count: NDArray[np.uint8]
    arrive: NDArray[np.float64]
    leave: NDArray[np.float64]
    carried: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        sets: ExpertSets,
        *,
        weights: NDArray[np.float64],
        labels: NDArray[np.int32],
        prices: NDArray[np.float64],
        load: NDArray[np.float64],
        cap: float | NDArray[np.float64],
        penalty: float,
    ) -> Self:
        """Count from scratch; `cap` is one for all GPUs, or float [gpus]."""
        flat = sets.members.ravel()
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(sets.n_experts + 1)).astype(np.int64)
        of_expert = (order // sets.top_k).astype(np.int32)
        levels, width = len(labels), int(labels.max()) + 1
        count = np.zeros((levels, len(sets), width), np.uint8)
        arrive = np.zeros((levels, sets.n_experts, width))
        leave = np.zeros((levels, sets.n_experts))
        rows = np.arange(len(sets))
        for level in range(levels):
            held = labels[level][sets.members]
            for column in held.T:
                count[level, rows, column] += 1
            absent = np.where(count[level] == 0, weights[:, None], 0.0)
            alone = np.where(np.take_along_axis(count[level], held, axis=1) == 1, weights[:, None], 0.0)
            for place, column in enumerate(sets.members.T):
                np.add.at(arrive[level], column, absent)
                np.add.at(leave[level], column, alone[:, place])
        carried = np.bincount(labels[0, : sets.n_experts], weights=load, minlength=width).astype(float)
        return cls(
            labels,
            prices,
            load,
            np.full(width, cap) if np.ndim(cap) == 0 else np.asarray(cap)[:width].astype(float),
            penalty,
            sets.members,
            weights,
            starts,
            of_expert,
            count,
            arrive,
            leave,
            carried,
        )

    def exchange(self, pairs: NDArray[np.int64]) -> float:
        """Swap the seats of each pair [swaps, 2], in order; the change of cost. Seats of one label stay."""
        return float(exchange(pairs, *self._state()))

    def descend(self, order: NDArray[np.int64]) -> tuple[float, NDArray[np.int64]]:
        """Visit seats in `order`, take the best swap of each while one helps; change of cost, and the swaps."""
        change, made = descend(order, *self._state())
        return float(change), made

    def _state(self) -> tuple[Any, ...]:
        return (
            self.labels,
            self.prices,
            self.load,
            self.cap,
            self.penalty,
            self.members,
            self.weights,
            self.starts,
            self.of_expert,
            self.count,
            self.arrive,
            self.leave,
            self.carried,
        )
