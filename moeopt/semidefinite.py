"""The semidefinite relaxation of partitions into equal groups, by alternating projections with multipliers (ADMM).

max sum over pairs of weights x Y over the Y that `moeopt.semidefinite_checker` describes: Y = X, where X - J/G is
psd with rows that sum to 0, trace n - m and no eigenvalue above m, and Y >= 0 has a unit diagonal and keeps the cuts.
One step is one eigendecomposition and a few compiled sweeps over the cuts (the method: D. E. Oliveira, H. Wolkowicz,
Y. Xu, ADMM for the SDP relaxation of the QAP, Mathematical Programming Computation 10, 2018; for partitions into
equal groups: A. Wiegele, S. Zhao, SDP-based bounds for graph partition via extended ADMM, Computational Optimization
and Applications 82, 2022). The multipliers of every step prove a bound, whatever the accuracy reached:

    <C, Y>  <=  trace(S) - sum of t (least(b) - b'b) - 1'S1 / G - m w

with S = -C - N - sum of t bb' off the diagonal, anything on it, and w the sum of its G - 1 least eigenvalues on
1'x = 0: no Z with trace m (G - 1) and no eigenvalue above m has <S, Z> below m w. Pairs whose y is fixed, as in the
nodes of a tree of pairs, have an N_ij of any sign; those fixed to 1 add -<N, Y> to the bound.
"""

import numpy as np
from numpy.typing import NDArray

from moeopt.hypermetric import WIDTH, broken_cuts, broken_triples, least_square, press, relax

__all__ = ["Relaxation", "eigen_of_sum_zero", "pressed"]

SWEEPS = 3  # over the cuts in a step
EARLY = 100  # steps in which the penalty follows the residuals closely
ADAPT, SELDOM = 10, 50  # steps between changes of the penalty, early and later
TRIANGLES = 5_000  # new ones at once
LARGEST = 8  # experts of a cut that is searched for
STARTS = 20  # local searches for cuts, per expert
FAR = 1e6  # below 0: pairs fixed to 0 stay there during a sweep


class Relaxation:
    """The relaxation for n = groups x slots experts; keeps its state when weights or cuts change.

    | field | holds |
    |---|---|
    | weights | float [n, n], as given by `aim` |
    | y | float [n, n]: unit diagonal, y >= 0; nearly psd |
    | multipliers | float [n, n] of X = Y, in units of `unit` |
    | cuts, forces | int16 [cuts, WIDTH] as in `moeopt.hypermetric`; float [cuts] >= 0, in units of `unit` |
    | unit | typical difference between weights: all inner numbers are near 1 |
    | distance, change | of X and Y; of Y in the last step; both relative |
    | fixed | int8 [n, n], the y of pairs that are fixed, -1 of the others; None: all are open |
    """

    def __init__(self, groups: int, slots: int) -> None:
        n = groups * slots
        self.groups, self.slots = groups, slots
        self.y = np.full((n, n), (slots - 1) / (n - 1))
        np.fill_diagonal(self.y, 1.0)
        self.multipliers = np.zeros((n, n))
        self.weights = np.zeros((n, n))
        self.cuts = np.zeros((0, WIDTH), np.int16)
        self.forces = np.zeros(0)
        self.unit = 1.0
        self.distance = self.change = 1.0
        self.steps = 0
        self.fixed: NDArray[np.int8] | None = None
        self._penalty = 4.0

    def aim(self, weights: NDArray[np.float64]) -> None:
        """Change the weights [n, n], symmetric with zero diagonal."""
        upper = weights[np.triu_indices(len(weights), 1)]
        unit = float(upper.std()) or float(np.abs(upper).mean()) or 1.0
        self.multipliers *= self.unit / unit
        self.forces *= self.unit / unit
        self.unit, self.weights = unit, weights

    def fix(self, fixed: NDArray[np.int8]) -> None:
        """Give pairs [n, n] their y, 0 or 1; -1 leaves them open."""
        self.fixed = fixed
        self.y = np.where(fixed < 0, self.y, fixed).astype(float)

    def settle(self) -> None:
        """Multipliers that prove the weight of the partition that is left when all pairs are fixed."""
        self.multipliers = self.y / self.slots - np.eye(len(self.y))
        self.forces = np.zeros(len(self.cuts))

    def step(self, *, steady: bool = True) -> None:
        """One step; while the weights keep changing, not `steady`, the residuals say nothing about the penalty."""
        n, penalty = len(self.y), self._penalty
        values, vectors = eigen_of_sum_zero(self.y + self.multipliers / penalty)
        values = _capped(values, most=self.slots, total=n - self.slots)
        used = values > 0
        x = 1 / self.groups + (vectors[:, used] * values[used]) @ vectors[:, used].T
        y = x + (self.weights / self.unit - self.multipliers) / penalty
        forces = self.forces / penalty
        press(y, self.cuts, forces)
        y = self._nearest(y, forces)
        self.forces = forces * penalty
        self.multipliers += penalty * (y - x)
        size = float(np.linalg.norm(self.multipliers)) or 1.0
        self.distance = float(np.linalg.norm(y - x) / np.linalg.norm(y))
        self.change = float(penalty * np.linalg.norm(y - self.y) / size)
        self.y = y
        self.steps += 1
        if steady and self.steps % (ADAPT if self.steps <= EARLY else SELDOM) == 0:
            if self.distance > 2 * self.change:
                self._penalty *= 1.25
            elif self.change > 2 * self.distance:
                self._penalty /= 1.25

    def _nearest(self, square: NDArray[np.float64], forces: NDArray[np.float64]) -> NDArray[np.float64]:
        """Y from the pressed point, which is overwritten as the forces are."""
        if self.fixed is None:
            relax(square, self.cuts, forces, self.groups, SWEEPS)
        else:
            together, apart = self.fixed == 1, self.fixed == 0
            for _ in range(SWEEPS):  # what a sweep does to fixed pairs is undone
                square[together], square[apart] = 1.0, -FAR
                relax(square, self.cuts, forces, self.groups, 1)
            square[together], square[apart] = 1.0, 0.0
        y = np.maximum(np.triu(square, 1), 0.0)
        y += y.T
        np.fill_diagonal(y, 1.0)
        return np.asarray(y)

    def refine(self, *, rng: np.random.Generator, larger: bool) -> int:
        """Drop cuts without force and add broken ones: triangles, and `larger` ones by local search. How many new."""
        n = len(self.y)
        found = [broken_triples(self.y, TRIANGLES)]
        if larger:
            i, j = np.triu_indices(n, 1)
            open_pairs = np.clip(np.minimum(self.y[i, j], 1 - self.y[i, j]), 0, None) + 1e-9
            count = min(i.size, STARTS * n)
            chosen = rng.choice(i.size, count, replace=False, p=open_pairs / open_pairs.sum())
            starts = np.stack([i[chosen], j[chosen]], axis=1).astype(np.int64)
            found.append(broken_cuts(self.y, starts, self.groups, LARGEST))
        used = self.forces > 0
        self.cuts, self.forces = self.cuts[used], self.forces[used]
        known = {cut.tobytes() for cut in self.cuts}
        fresh = {cut.tobytes(): cut for cut in np.concatenate(found)}
        new = [cut for content, cut in fresh.items() if content not in known]
        self.cuts = np.concatenate([self.cuts, np.array(new, np.int16).reshape(-1, WIDTH)])
        self.forces = np.concatenate([self.forces, np.zeros(len(new))])
        return len(new)

    def bound(self) -> float:
        """No partition has more weight, summed over the pairs that share a group; up to rounding errors."""
        slack = self.slack()
        signs = np.sign(self.cuts)
        least = np.array([least_square(int(total), self.groups) for total in signs.sum(axis=1)])
        tied = float(self.forces @ (least - np.abs(signs).sum(axis=1))) if least.size else 0.0
        values, _ = eigen_of_sum_zero(slack)
        lowest = float(values[: self.groups - 1].sum())
        twice = np.trace(slack) - tied - slack.sum() / self.groups - self.slots * lowest
        if self.fixed is not None:
            together = np.triu(self.fixed == 1, 1)
            twice -= 2 * float((self._pressed() - slack)[together].sum())
        return float(self.unit * twice / 2)

    def slack(self) -> NDArray[np.float64]:
        """S of the present multipliers, in units of `unit`, with the least N that takes it to -multipliers or below."""
        slack = np.minimum(self._pressed(), -self.multipliers)
        if self.fixed is not None:
            slack = np.where(self.fixed < 0, slack, -self.multipliers)
        np.fill_diagonal(slack, -np.diag(self.multipliers))
        return slack

    def _pressed(self) -> NDArray[np.float64]:
        """-C - sum of t bb' off the diagonal: S without N."""
        return -pressed(self.weights / self.unit, self.cuts, forces=self.forces)


def pressed(
    weights: NDArray[np.float64], cuts: NDArray[np.int16], *, forces: NDArray[np.float64]
) -> NDArray[np.float64]:
    """weights + sum of forces x bb' off the diagonal, symmetric."""
    square = np.triu(weights, 1)
    press(square, cuts, forces)
    return np.asarray(square + square.T)


def eigen_of_sum_zero(square: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues [n - 1], ascending, and eigenvectors [n, n - 1] of a symmetric matrix where the x sum to 0."""
    n = len(square)
    mean = square.mean(axis=1)
    centred = square - mean - mean[:, None] + mean.mean()
    # The vector of ones, eigenvalue 0, is moved below all others.
    centred -= (1.0 + 2.0 * float(np.linalg.norm(centred))) / n
    values, vectors = np.linalg.eigh(centred)
    return values[1:], vectors[:, 1:]


def _capped(values: NDArray[np.float64], *, most: float, total: float) -> NDArray[np.float64]:
    """The nearest numbers in [0, most] with this sum: values minus a constant, cut off; `values` ascending."""
    breaks = np.sort(np.append(values, values - most))

    def kept(constant: float) -> float:
        return float(np.clip(values - constant, 0.0, most).sum())

    low, high = 0, breaks.size - 1
    while high - low > 1:  # the sum falls, linearly between breaks
        middle = (low + high) // 2
        low, high = (middle, high) if kept(breaks[middle]) > total else (low, middle)
    above, below = kept(breaks[low]), kept(breaks[high])
    share = (above - total) / (above - below) if above > below else 0.0
    constant = breaks[low] + share * (breaks[high] - breaks[low])
    return np.asarray(np.clip(values - constant, 0.0, most))
