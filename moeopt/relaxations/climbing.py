"""Prices of usage that climb by a smoothed subgradient (Nesterov, Mathematical Programming 103, 2005).

Contents and numbers of copies share in proportion to exp(- worth / heat); steps as of Adam (Kingma and Ba, 2015),
averaged. Between looks at all contents only those move the prices that were worth most at the last look.
"""

import numpy as np
from numpy.typing import NDArray

from moeopt.relaxations.copy_counts import chosen_counts
from moeopt.relaxations.usage import Listing, Prices, Usage
from moeopt.stop import Clock

__all__ = ["climbed"]

ROUNDS = 600
STEP, LAST_STEP = 0.1, 0.002
HEAT, COLDEST = 0.1, 0.003  # of the weight of all tokens, a GPU
COOLING = 0.6  # share of the climb after which it is coldest
COPY_HEAT = 3.0  # heat of numbers of copies, in units of the mean weight of an expert
AVERAGE = 0.97  # of the earlier average in the next one
LOOK = 20  # rounds from one look at all contents, and at the average, to the next
ACTIVE = 25_000  # contents that move the prices
START = 0.6  # first price of a member

Slopes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def climbed(usage: Usage, clock: Clock) -> Prices:
    """The best prices met: of members in units of a demand's weight, others in that of the weight of an expert."""
    experts = len(usage.told)
    x = Prices(np.full(usage.members.shape, START), np.full(experts, START), np.zeros(experts))
    average, best, value = x, x, -np.inf
    mean, square = [np.zeros_like(part) for part in _parts(x)], [np.zeros_like(part) for part in _parts(x)]
    active = usage.listings
    large = sum(len(part.rows) for part in active) > 2 * ACTIVE
    begun = clock.elapsed
    for turn in range(ROUNDS):
        if clock.expired:
            break
        clock.candidates += 1
        if turn % LOOK == 0:
            candidates = [average, x] if turn else [x]
            for point in candidates:  # the current one last: it says which contents are active
                found, worth = _value(usage, point, usage.listings)
                if found > value:
                    value, best = found, point
            if large:
                active = tuple(map(_worthy, usage.listings, worth))
        done = turn / ROUNDS
        if clock.stop.seconds is not None:
            done = max(done, (clock.elapsed - begun) / max(clock.stop.seconds - begun, 1e-3))
        heat = HEAT * (COLDEST / HEAT) ** min(1.0, done / COOLING)
        slopes = _slopes(usage, x, active, heat=heat)
        moved = []
        for number, (part, slope) in enumerate(zip(_parts(x), slopes, strict=True)):
            mean[number] = 0.9 * mean[number] + 0.1 * slope
            square[number] = 0.99 * square[number] + 0.01 * slope**2
            step = mean[number] / (1 - 0.9 ** (turn + 1))
            step /= np.sqrt(square[number] / (1 - 0.99 ** (turn + 1))) + 1e-3
            moved.append(part + STEP * (LAST_STEP / STEP) ** min(1.0, done) * step)
        x = Prices(
            np.maximum(0.0, moved[0]),
            moved[1],
            np.maximum(0.0, moved[2]) if usage.spare else moved[2],
        )
        average = Prices(
            *(AVERAGE * a + (1 - AVERAGE) * b for a, b in zip(_parts(average), _parts(x), strict=True))
        )
    for point in (average, x):
        found, _ = _value(usage, point, usage.listings)
        if found > value:
            value, best = found, point
    return best


def _parts(prices: Prices) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    return prices.members, prices.sole, prices.copies


def _paid(usage: Usage, x: Prices) -> Prices:
    """In units of the objective."""
    own = usage.expert_weights
    return Prices(x.members * usage.weights[:, None].astype(float), x.sole * own, x.copies * own)


def _worthy(part: Listing, worth: NDArray[np.float64]) -> Listing:
    """Those of a listing that are worth most."""
    if len(worth) <= ACTIVE:
        return part
    return part.only(np.argpartition(worth, ACTIVE)[:ACTIVE])


def _value(usage: Usage, x: Prices, listings: tuple[Listing, ...]) -> tuple[float, list[NDArray[np.float64]]]:
    """The bound at these prices, in reals, and what each content is worth, smallest most."""
    paid = _paid(usage, x)
    found = usage.worth(paid, weights=usage.weights, levels=usage.levels, listings=listings)
    worth = [own for own, _ in found]
    total = _cheapest(usage.count_costs(paid), usage.further) - float(usage.weights.sum())
    return total + sum(g * float(own.min()) for g, own in zip(usage.gpus, worth, strict=True)), worth


def _cheapest(costs: NDArray[np.float64], further: int) -> float:
    """As `cheapest_counts`, in reals."""
    best = np.append(0.0, np.full(further, np.inf))
    for row in costs:
        reached = np.full(further + 1, np.inf)
        for c, cost in enumerate(row[: further + 1]):
            reached[c:] = np.minimum(reached[c:], best[: further + 1 - c] + cost)
        best = reached
    return float(best[further])


def _slopes(usage: Usage, x: Prices, listings: tuple[Listing, ...], *, heat: float) -> Slopes:
    """What is wanted and not there: service of each member, sole copies and further copies of each expert."""
    from moeopt.usage_kernels import holdings, served

    paid = _paid(usage, x)
    weights, experts = usage.weights.astype(float), len(usage.told)
    binomial, starts = usage.tables
    every = usage.worth(paid, weights=usage.weights, levels=usage.levels, listings=listings)
    unit = heat * float(weights.sum()) / sum(usage.gpus)
    coverage, held = np.zeros_like(x.members), np.zeros((experts, 2))
    for part, gpus, (worth, chosen) in zip(listings, usage.gpus, every, strict=True):
        shares = np.exp(-(worth - worth.min()) / max(unit, 1e-9))
        shares *= gpus / shares.sum()
        for number, level in enumerate(usage.levels):
            own = np.where(chosen == number, shares, 0.0)
            if own.sum() > 1e-6:
                holding = holdings(part.contents, part.rows, part.marks, own, binomial, starts)
                held += holding[: starts[1]].reshape(-1, 2)
                served(
                    usage.members,
                    usage.tokens.astype(float),
                    weights,
                    paid.members,
                    level,
                    usage.told,
                    holding,
                    binomial,
                    starts,
                    coverage,
                )
    unit = max(heat * COPY_HEAT * float(usage.expert_weights.mean()), 1e-9)
    counts = chosen_counts(usage.count_costs(paid), usage.further, heat=unit)
    sole = np.where(usage.told, counts[:, 0], 0.0)
    copies = counts @ np.arange(1, usage.most + 2) - sole
    wanted = (1 - sole)[usage.members]
    return wanted - coverage, sole - held[:, 1], copies - held[:, 0]
