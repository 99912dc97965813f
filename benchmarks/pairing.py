"""Statistics of methods over seeds: means with intervals, differences paired by seed, and ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
COVERAGE = 0.95
FEWEST_SIGNED = 6  # differences: with fewer, no signed-rank test can fall below 0.05
ROUNDING = 1e-12  # of the largest value: smaller differences are none

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Some values of one quantity.

    | field | holds |
    |---|---|
    | count, mean | of the values |
    | deviation | sample standard deviation; None of fewer than two values |
    | low, high | ends of the percentile bootstrap interval of the mean, 95 %; None of fewer than two values |
    """

    count: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """One list of values against another, paired.

    A p-value is two-sided and None where its test says nothing: of lists that are equal up to rounding, of fewer than
    two pairs or differences that are all the same (t tests), of fewer than six differences other than zero (Wilcoxon).

    | field | holds |
    |---|---|
    | pairs, above, below | pairs, and how many of them have the first value above, below the second |
    | difference | mean of first minus second; None without pairs |
    | student | p of the paired t-test |
    | resampled | p of the t-test with the variance of overlapping splits; None unless `held_out` is given |
    | wilcoxon | p of the signed-rank test, exact; zero differences are dropped, ties share their ranks |
    """

    pairs: int
    above: int
    below: int
    difference: float | None
    student: float | None
    resampled: float | None
    wilcoxon: float | None


def described(values: Sequence[float]) -> Sample:
    """Mean, deviation and interval of at least one value; the same values give the same interval.

    Source of the interval: Efron, 1979, percentile bootstrap, from a fixed seed. Raises ValueError without values or
    for values that are not finite.
    """
    numbers = _numbers(values)
    if not len(numbers):
        raise ValueError("a mean needs at least 1 value, found 0")
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Sample(1, mean, None, None, None)
    drawn = np.random.default_rng(0).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(numbers[drawn].mean(axis=1), [tail, 1 - tail])
    return Sample(len(numbers), mean, float(numbers.std(ddof=1)), float(low), float(high))


def compared(first: Sequence[float], second: Sequence[float], *, held_out: float | None = None) -> Comparison:
    """Paired comparison of two lists of equal length.

    `held_out`: share of the data that each random split sets aside, in (0, 1). Splits of the same data overlap, which
    the ordinary t-test does not know; with a share the variance of the mean is also taken as (1/n + share/(1 - share))
    times that of a difference. Source: Nadeau and Bengio, Inference for the generalization error, Machine Learning 52,
    2003, section 4. Raises ValueError for lists of different lengths, values that are not finite, or another share.
    """
    left, right = _numbers(first), _numbers(second)
    if len(left) != len(right):
        raise ValueError(f"pairs need two lists of one length, found {len(left)} and {len(right)}")
    if held_out is not None and not 0 < held_out < 1:
        raise ValueError(f"held_out must lie between 0 and 1, found {held_out}")
    count = len(left)
    if not count:
        return Comparison(0, 0, 0, None, None, None, None)
    scale = max(float(np.abs(left).max()), float(np.abs(right).max())) or 1.0
    apart = np.round((left - right) / scale / ROUNDING)  # in multiples of what rounding may do
    signed = apart[apart != 0]
    return Comparison(
        pairs=count,
        above=int((apart > 0).sum()),
        below=int((apart < 0).sum()),
        difference=float((left - right).mean()) if len(signed) else 0.0,
        student=_student(apart, shared=0.0),
        resampled=None if held_out is None else _student(apart, shared=held_out / (1 - held_out)),
        wilcoxon=_signed_rank(signed) if len(signed) >= FEWEST_SIGNED else None,
    )


def paired(
    first: Mapping[int, float], second: Mapping[int, float], *, held_out: float | None = None
) -> Comparison:
    """The comparison over the seeds that both have, as `compared`."""
    seeds = sorted(first.keys() & second.keys())
    return compared([first[seed] for seed in seeds], [second[seed] for seed in seeds], held_out=held_out)


def mean_ranks(values: Mapping[str, Mapping[int, float]], *, largest_first: bool = True) -> dict[str, float]:
    """Mean rank of each name over the seeds that all of them have, 1 the best; ties share the mean of their ranks.

    `values[name][seed]`. Empty where no seed is common to all.
    """
    from scipy.stats import rankdata

    common = sorted(set.intersection(*(set(own) for own in values.values()))) if values else []
    if not common:
        return {}
    table = np.array([[own[seed] for seed in common] for own in values.values()])
    ranks = rankdata(-table if largest_first else table, axis=0).mean(axis=1)
    return dict(zip(values, map(float, ranks), strict=True))


def _student(apart: Numbers, *, shared: float) -> float | None:
    """p of a mean difference of zero, its variance (1/n + shared) times that of one difference."""
    from scipy.stats import t

    count = len(apart)
    if count < 2 or np.ptp(apart) <= 4:
        return None
    statistic = abs(apart.mean()) / (apart.std(ddof=1) * sqrt(1 / count + shared))
    return float(2 * t.sf(statistic, count - 1))


def _signed_rank(signed: Numbers) -> float:
    """p of signs that are as likely plus as minus: all sums of ranks counted, ranks doubled to be whole.

    As `scipy.stats.wilcoxon`, which goes through all signs one by one, or approximates, where ranks are tied.
    """
    from scipy.stats import rankdata

    ranks = np.round(2 * rankdata(np.abs(signed))).astype(np.int64)
    chances = np.ones(1)
    for rank in ranks:
        chances = np.pad(chances, (0, rank)) / 2 + np.pad(chances, (rank, 0)) / 2
    positive = int(ranks[signed > 0].sum())
    return min(1.0, 2 * float(min(chances[: positive + 1].sum(), chances[positive:].sum())))


def _numbers(values: Sequence[float]) -> Numbers:
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"values must be finite, found {numbers[~np.isfinite(numbers)][0]}")
    return numbers
