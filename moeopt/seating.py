"""Experts seated on GPUs, with the tables that the swap kernels keep."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.expert_sets import ExpertSets
from moeopt.swaps import Room, Tally, descend, exchange, index, tallied


@dataclass(frozen=True, eq=False)
class Seating:
    """Experts in the slots of the GPUs, and what every swap would change; one with an empty slot is a move.

    | field | holds |
    |---|---|
    | room | what no swap changes: see `moeopt.swaps.Room` |
    | tally | what swaps keep up to date: see `moeopt.swaps.Tally` |
    | kept | the same as `keep` last found it |
    | cost | of the seats it was made with: fan-out at the prices, and the penalty of load above the caps |
    """

    room: Room
    tally: Tally
    kept: Tally
    cost: float

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
        """Count from scratch: `weights` [sets], `labels` int32 [levels, seats], `cap` one for all GPUs or [gpus]."""
        # Narrow ids stay in the cache.
        members = np.ascontiguousarray(sets.members, np.int16 if sets.n_experts < 1 << 15 else np.int32)
        caps = np.asarray(cap, float)
        caps = caps if caps.ndim else np.full(int(labels.max()) + 1, float(cap))
        room = Room(prices, load, caps, penalty, members, weights, *index(members, sets.n_experts))
        return cls._seated(room, labels)

    def reseated(self, labels: NDArray[np.int32]) -> Self:
        """The same sets with other seats, int32 [levels, seats]."""
        return self._seated(self.room, labels)

    @classmethod
    def _seated(cls, room: Room, labels: NDArray[np.int32]) -> Self:
        width = int(labels.max()) + 1
        cost, held, arrive, leave = tallied(labels, width, room)
        carried = np.bincount(labels[0, : len(room.load)], weights=room.load, minlength=width).astype(float)
        tally = Tally(labels, held, arrive, leave, carried)
        return cls(room, tally, deepcopy(tally), float(cost))

    def keep(self) -> None:
        """Remember the seats as they are."""
        _copy(self.tally, self.kept)

    def restore(self) -> None:
        """Seats as `keep` last found them: quicker than to take swaps back, and without their rounding."""
        _copy(self.kept, self.tally)

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 [levels, seats]: GPU and node of each seat, as it stands."""
        return self.tally.labels

    def exchange(self, pairs: NDArray[np.int64]) -> float:
        """Swap the seats of each pair [swaps, 2], in order; the change of cost. Seats of one label stay."""
        return float(exchange(pairs, self.room, self.tally))

    def descend(self, order: NDArray[np.int64]) -> tuple[float, NDArray[np.int64]]:
        """Visit seats in `order`, take the best swap of each while one helps; change of cost, and the swaps."""
        change, made = descend(order, self.room, self.tally)
        return float(change), made


def _copy(source: Tally, target: Tally) -> None:
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = list(zip(source, target, strict=True))
    for one, other in pairs:
        np.copyto(other, one)
