"""The semidefinite relaxation of requests and experts grouped together, all layers at once, by ADMM.

max sum over layers of activations x Y over the Y that `moeopt.grouping_checker` describes. Every layer has its own Y
over R requests and E experts, and the part between requests is common. As in `moeopt.semidefinite` a step projects X
= J/G + Z, layer by layer, to psd Z that vanish on the two vectors of ones, with trace (q + m) (G - 1) and no
eigenvalue above q + m: Y is the sum over groups of vv', v orthogonal with q + m ones. Then Y >= 0 with a unit
diagonal and the cuts, common where it is common. No experts of different layers are compared: a matrix over all of
them whose other parts are free can be completed to a psd one, so that only Y >= 0 between layers is given up.

The multipliers of every step prove a bound on the local activations, summed over the layers:

    <C, Y> / 2  <=  sum of (trace(S) - sum of t (least(b) - b'b) - 1'S1 / G - (q + m) w) / 2

with w the sum of the G - 1 least eigenvalues of S where x sums to 0 over the requests and over the experts.
"""

import numpy as np
from numpy.typing import NDArray

from moeopt.grouping_kernels import relax_layer
from moeopt.hypermetric import WIDTH, broken_cuts, broken_triples, least_square, press
from moeopt.semidefinite import pressed

__all__ = ["GroupRelaxation", "eigen_of_sums_zero"]

SWEEPS = 3  # over the cuts in a step
EARLY = 100  # steps in which the penalty follows the residuals closely
ADAPT, SELDOM = 10, 50  # steps between changes of the penalty, early and later
TRIANGLES = 20_000  # new ones of a layer at once
LARGEST = 8  # seats of a cut that is searched for
STARTS = 5  # local searches for cuts, per seat


class GroupRelaxation:
    """The relaxation for activations float [layers, requests, experts], both multiples of `groups`.

    | field | holds |
    |---|---|
    | y | float [layers, seats, seats], requests before experts: unit diagonal, y >= 0; nearly psd |
    | multipliers | float [layers, seats, seats] of X = Y, in units of `unit` |
    | cuts, forces | of each layer: int16 [cuts, WIDTH] as in `moeopt.hypermetric`; float [cuts] >= 0 |
    | unit | typical difference between activations: all inner numbers are near 1 |
    | distance, change | of X and Y; of Y in the last step; both relative |
    """

    def __init__(self, activations: NDArray[np.float64], groups: int) -> None:
        layers, requests, experts = activations.shape
        seats = requests + experts
        self.groups, self.requests, self.most = groups, requests, seats // groups
        self.weights = np.zeros((layers, seats, seats))
        self.weights[:, :requests, requests:] = activations
        self.weights += self.weights.transpose(0, 2, 1).copy()
        self.unit = float(activations.std()) or float(activations.mean()) or 1.0
        y = np.full((seats, seats), 1 / groups)
        y[:requests, :requests] = (requests / groups - 1) / max(requests - 1, 1)
        y[requests:, requests:] = (experts / groups - 1) / max(experts - 1, 1)
        np.fill_diagonal(y, 1.0)
        self.y = np.repeat(y[None], layers, axis=0)
        self.multipliers = np.zeros_like(self.y)
        self.cuts = [np.zeros((0, WIDTH), np.int16) for _ in range(layers)]
        self.forces = [np.zeros(0) for _ in range(layers)]
        self.distance = self.change = 1.0
        self.steps = 0
        self._penalty = 4.0

    def step(self) -> None:
        """One step: an eigendecomposition of every layer."""
        penalty, groups = self._penalty, self.groups
        x, y = np.empty_like(self.y), np.empty_like(self.y)
        forces = [force / penalty for force in self.forces]
        for layer, (cuts, force) in enumerate(zip(self.cuts, forces, strict=True)):
            point = self.y[layer] + self.multipliers[layer] / penalty
            values, vectors = eigen_of_sums_zero(point, requests=self.requests)
            values = _capped(values, most=self.most, total=self.most * (groups - 1))
            used = values > 0
            x[layer] = 1 / groups + (vectors[:, used] * values[used]) @ vectors[:, used].T
            y[layer] = x[layer] + (self.weights[layer] / self.unit - self.multipliers[layer]) / penalty
            press(y[layer], cuts, force)
        common, share = y[:, : self.requests, : self.requests].mean(axis=0), 1 / len(y)
        for _ in range(SWEEPS if any(map(len, forces)) else 0):
            for square, cuts, force in zip(y, self.cuts, forces, strict=True):
                square[: self.requests, : self.requests] = common
                relax_layer(square, cuts, force, groups, self.requests, share)
                common[:] = square[: self.requests, : self.requests]
        y[:, : self.requests, : self.requests] = common
        y = np.maximum(np.triu(y, 1), 0.0)
        y += y.transpose(0, 2, 1).copy()
        seats = np.arange(y.shape[1])
        y[:, seats, seats] = 1.0
        self.forces = [force * penalty for force in forces]
        self.multipliers += penalty * (y - x)
        size = float(np.linalg.norm(self.multipliers)) or 1.0
        self.distance = float(np.linalg.norm(y - x) / np.linalg.norm(y))
        self.change = float(penalty * np.linalg.norm(y - self.y) / size)
        self.y = y
        self.steps += 1
        if self.steps % (ADAPT if self.steps <= EARLY else SELDOM) == 0:
            if self.distance > 2 * self.change:
                self._penalty *= 1.25
            elif self.change > 2 * self.distance:
                self._penalty /= 1.25

    def refine(self, *, rng: np.random.Generator, larger: bool) -> None:
        """Drop cuts without force and add broken ones: triangles, and `larger` ones by local search."""
        for layer, y in enumerate(self.y):
            found = [broken_triples(y, TRIANGLES)]
            if larger:
                i, j = np.triu_indices(len(y), 1)
                open_pairs = np.clip(np.minimum(y[i, j], 1 - y[i, j]), 0, None) + 1e-9
                count = min(i.size, STARTS * len(y))
                chosen = rng.choice(i.size, count, replace=False, p=open_pairs / open_pairs.sum())
                starts = np.stack([i[chosen], j[chosen]], axis=1).astype(np.int64)
                found.append(broken_cuts(y, starts, self.groups, LARGEST))
            used = self.forces[layer] > 0
            cuts, forces = self.cuts[layer][used], self.forces[layer][used]
            known = {cut.tobytes() for cut in cuts}
            fresh = {cut.tobytes(): cut for cut in np.concatenate(found)}
            new = [cut for content, cut in fresh.items() if content not in known]
            if layer:  # those of requests alone are the first layer's
                new = [cut for cut in new if np.abs(cut).max() > self.requests]
            self.cuts[layer] = np.concatenate([cuts, np.array(new, np.int16).reshape(-1, WIDTH)])
            self.forces[layer] = np.concatenate([forces, np.zeros(len(new))])

    def bound(self) -> float:
        """No grouping has more local activations; up to rounding errors."""
        twice = 0.0
        for slack, cuts, forces in zip(self.slack(), self.cuts, self.forces, strict=True):
            signs = np.sign(cuts)
            least = np.array([least_square(int(total), self.groups) for total in signs.sum(axis=1)])
            tied = float(forces @ (least - np.abs(signs).sum(axis=1))) if least.size else 0.0
            values, _ = eigen_of_sums_zero(slack, requests=self.requests)
            lowest = float(values[: self.groups - 1].sum())
            twice += np.trace(slack) - tied - slack.sum() / self.groups - self.most * lowest
        return float(self.unit * twice / 2)

    def slack(self) -> NDArray[np.float64]:
        """S [layers, seats, seats] of the present multipliers, in units of `unit`.

        N takes S to -multipliers or below; between requests where its sum over the layers would be negative.
        """
        base = np.stack(
            [
                -pressed(weights / self.unit, cuts, forces=forces)
                for weights, cuts, forces in zip(self.weights, self.cuts, self.forces, strict=True)
            ]
        )
        slack: NDArray[np.float64] = np.minimum(base, -self.multipliers)
        common = slice(None), slice(self.requests), slice(self.requests)
        above = np.maximum(-(self.multipliers[common] + base[common]).sum(axis=0), 0.0)
        slack[common] = -self.multipliers[common] - above / len(slack)
        seats = np.arange(slack.shape[1])
        slack[:, seats, seats] = -self.multipliers[:, seats, seats]
        return slack


def eigen_of_sums_zero(
    square: NDArray[np.float64], *, requests: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues [n - 2], ascending, and eigenvectors [n, n - 2] where x sums to 0 before and from `requests` on."""
    centred = square.copy()
    parts = slice(requests), slice(requests, len(square))
    for part in parts:
        centred[part] -= centred[part].mean(axis=0)
    for part in parts:
        centred[:, part] -= centred[:, part].mean(axis=1)[:, None]
    # The two vectors of ones, eigenvalue 0, are moved below all others.
    below = 1.0 + 2.0 * float(np.linalg.norm(centred))
    for part in parts:
        centred[part, part] -= below / centred[part, part].shape[0]
    values, vectors = np.linalg.eigh(centred)
    return values[2:], vectors[:, 2:]


def _capped(values: NDArray[np.float64], *, most: float, total: float) -> NDArray[np.float64]:
    """The nearest numbers in [0, most] with this sum, up to rounding: values minus a constant, cut off."""
    low, high = float(values.min()) - most, float(values.max())
    for _ in range(60):
        middle = (low + high) / 2
        if np.clip(values - middle, 0.0, most).sum() > total:
            low = middle
        else:
            high = middle
    return np.asarray(np.clip(values - high, 0.0, most))
