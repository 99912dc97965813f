"""A bound for plans with copies: prices of serving each member of each set, and of each activation of a GPU.

Lagrangian of "every member of every token is served somewhere" and of the load caps. What is left parts by GPU: the
content that is worth most to the tokens at these prices. All contents of a full GPU are listed, their worths come from
tables over small subsets. The prices climb by a smoothed subgradient (Nesterov, Mathematical Programming 103, 2005):
contents share in proportion to exp(- worth / temperature), steps as of Adam (Kingma and Ba, 2015), averaged.
"""

from dataclasses import dataclass
from math import comb
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.columns import contents
from moeopt.problem import Problem
from moeopt.stop import Clock

__all__ = ["Usage", "usage_proof"]

MOST_CONTENTS, MOST_MEMBERS = 1_000_000, 8
ROUNDS = 500
STEP, STEP_DECAY = 0.1, 0.993
TEMPERATURE, TEMPERATURE_DECAY, COLDEST = 0.02, 0.99, 1e-3  # of the worth of the best content
AVERAGE = 0.97  # of the earlier average in the next one
LOOK = 10  # rounds from one look at the average to the next
ACTIVATIONS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.6)  # prices tried, in units of a token's mean weight
LARGEST = 1 << 61


@dataclass(frozen=True, eq=False)
class Usage:
    """Demands of a layer, and the contents that GPUs with m slots may have.

    | field | holds |
    |---|---|
    | members | int64 [demands, k]: an expert set, once for each distinct multiplier among its families |
    | tokens, weights | int64 [demands]: its tokens, and what touching one more GPU costs them all |
    | contents | for each distinct number of slots, ascending, int16 [contents, slots] |
    | gpus | how many GPUs have so many slots |
    | cap | largest load of a GPU; 0 without a load tolerance |
    """

    members: NDArray[np.int64]
    tokens: NDArray[np.int64]
    weights: NDArray[np.int64]
    contents: tuple[NDArray[np.int16], ...]
    gpus: tuple[int, ...]
    cap: int
    n_experts: int

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Of a problem of one layer; ValueError says why it is not treated."""
        (sets,) = problem.workload.layers
        cluster, experts = problem.cluster, sets.n_experts
        if problem.objective != "fan-out" or problem.risk is not None:
            raise ValueError("usage prices bound the mean fan-out")
        if problem.load_tolerance is not None and not isinstance(cluster.speeds, int):
            raise ValueError("usage prices need GPUs of one speed under a load tolerance")
        if sets.top_k > MOST_MEMBERS:
            raise ValueError(f"usage prices treat sets of up to {MOST_MEMBERS}, found {sets.top_k}")
        slots, gpus = np.unique(cluster.slots_of, return_counts=True)
        if (count := max(comb(experts, min(int(m), experts)) for m in slots)) > MOST_CONTENTS:
            raise ValueError(f"{count:,} contents of a GPU, usage prices end at {MOST_CONTENTS:,}")
        groups = [(int(q), problem.multipliers == q) for q in np.unique(problem.multipliers)]
        tokens = np.stack([sets.counts[:, own].sum(axis=1) for _, own in groups], axis=1)
        row, group = np.nonzero(tokens)
        count_of = tokens[row, group]
        price = np.array([q * cluster.further_gpu for q, _ in groups], np.int64)[group]
        return cls(
            sets.members[row].astype(np.int64),
            count_of,
            count_of * price,
            tuple(contents(experts, [min(int(m), experts)])[0] for m in slots),
            tuple(gpus.tolist()),
            problem.load_cap or 0,
            experts,
        )

    @property
    def tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Binomial coefficients, and where the subsets of each size begin."""
        largest = min(self.members.shape[1], max(part.shape[1] for part in self.contents))
        binomial = [[comb(e, r) for r in range(largest + 2)] for e in range(self.n_experts + 1)]
        starts = np.cumsum([0] + [comb(self.n_experts, size) for size in range(1, largest + 1)])
        return np.array(binomial, np.int64), starts.astype(np.int64)

    def worth(
        self,
        prices: NDArray[np.float64] | NDArray[np.int64],
        *,
        weights: NDArray[np.int64],
        activation: float,
    ) -> list[NDArray[np.float64]]:
        """For each number of slots [contents]: what each is worth at a price of an activation, load cap paid for."""
        from moeopt.usage_kernels import gathered, worths

        binomial, starts = self.tables
        table = worths(
            self.members,
            self.tokens.astype(prices.dtype),
            weights.astype(prices.dtype),
            prices,
            prices.dtype.type(activation),
            binomial,
            starts,
        )
        paid = prices.dtype.type(activation) * prices.dtype.type(self.cap)
        return [gathered(part, table, binomial, starts) - paid for part in self.contents]


def usage_proof(problem: Problem, *, clock: Clock, seed: int, cost: int | None) -> Proof | None:
    """The best bound that the clock allows, proved, for a layer with copies; None where it does not apply.

    A round counts as a candidate of the clock. The same at every seed. `cost` is that of the placement it goes with.
    """
    try:
        usage = Usage.of(problem)
    except ValueError:
        return None
    prices = climbed(usage, clock)
    whole = int(usage.weights.sum())
    scale = 1
    while scale < 1 << 16 and (4 * scale * whole) << usage.members.shape[1] < LARGEST // 8:
        scale *= 2
    if (2 * scale * whole) << usage.members.shape[1] >= LARGEST:
        return None
    paid = np.rint(np.minimum(prices, 8.0) * usage.weights[:, None] * scale).astype(np.int64)
    loads = sorted({int(price * scale) for price in activation_prices(usage)})
    floors = [
        int(np.max(parts, axis=0).min())
        for parts in zip(
            *(usage.worth(paid, weights=usage.weights * scale, activation=price) for price in loads),
            strict=True,
        )
    ]
    total = int(paid.sum()) - scale * whole + sum(g * f for g, f in zip(usage.gpus, floors, strict=True))
    bound = -(-total // scale)
    return Proof(
        layer_id=problem.workload.layer_ids[0],
        digest=problem.workload.digest,
        kind="usage",
        bound=bound,
        cost=cost,
        optimal=cost == bound,
        numbers={"scale": scale, "prices": paid.tolist(), "load_prices": loads, "floors": floors},
    )


def activation_prices(usage: Usage) -> list[float]:
    """Prices of one activation that a GPU may choose from; 0 alone without a load cap."""
    mean = float(usage.weights.sum()) / max(int(usage.tokens.sum()), 1)
    return [share * mean for share in (ACTIVATIONS if usage.cap else ACTIVATIONS[:1])]


def climbed(usage: Usage, clock: Clock) -> NDArray[np.float64]:
    """float [demands, k]: prices in units of a demand's weight, the best met."""
    x = np.ones(usage.members.shape)
    mean, square, average, best = np.zeros_like(x), np.zeros_like(x), x, x
    value = -np.inf
    for turn in range(ROUNDS):
        heat = max(TEMPERATURE * TEMPERATURE_DECAY**turn, COLDEST)
        found, coverage = _value(usage, x, heat=heat)
        if found > value:
            value, best = found, x
        if clock.expired:
            break
        clock.candidates += 1
        slope = 1 - coverage
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope**2
        step = mean / (1 - 0.9 ** (turn + 1)) / (np.sqrt(square / (1 - 0.99 ** (turn + 1))) + 1e-3)
        x = np.maximum(0.0, x + STEP * STEP_DECAY**turn * step)
        average = AVERAGE * average + (1 - AVERAGE) * x
        if turn % LOOK == LOOK - 1:
            found, _ = _value(usage, average, heat=0.0)
            if found > value:
                value, best = found, average
    return best


def _value(usage: Usage, x: NDArray[np.float64], *, heat: float) -> tuple[float, NDArray[np.float64]]:
    """The bound at these prices, in reals, and how often each member of a demand would be served."""
    from moeopt.usage_kernels import holdings, served

    weights = usage.weights.astype(float)
    prices, coverage = x * weights[:, None], np.zeros_like(x)
    levels = activation_prices(usage)
    worth = [usage.worth(prices, weights=usage.weights, activation=level) for level in levels]
    total = float(prices.sum() - weights.sum())
    binomial, starts = usage.tables
    for at, (part, gpus) in enumerate(zip(usage.contents, usage.gpus, strict=True)):
        every = np.stack([one[at] for one in worth])
        chosen, least = every.argmax(axis=0), every.max(axis=0)
        total += gpus * float(least.min())
        if not heat:
            continue
        shares = np.exp(-(least - least.min()) / max(heat * abs(float(least.min())), 1e-9))
        shares *= gpus / shares.sum()
        for number, level in enumerate(levels):
            own = np.where(chosen == number, shares, 0.0)
            if own.any():
                holding = holdings(part, own, binomial, starts)
                served(
                    usage.members,
                    usage.tokens.astype(float),
                    weights,
                    prices,
                    level,
                    holding,
                    binomial,
                    starts,
                    coverage,
                )
    return total, coverage
