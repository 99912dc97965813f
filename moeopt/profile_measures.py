"""Loads in numbers: how even they are, how alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["correlations", "entropy", "generality", "gini", "known", "mean_of", "successive"]


def gini(loads: NDArray[np.int64]) -> float:
    """Gini coefficient of loads [experts], not all 0: 0 for equal loads, 1 - 1/experts for one busy expert."""
    ordered = np.sort(loads).astype(float)
    rank = np.arange(1, len(ordered) + 1)
    return float(max(0.0, ((2 * rank - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum())))


def entropy(loads: NDArray[np.int64]) -> float:
    """Shannon entropy of the shares of loads [experts], not all 0, over that of equal loads: 1 even, 0 one expert."""
    if len(loads) == 1:
        return 1.0
    shares = loads[loads > 0] / loads.sum()
    return float(min(1.0, max(0.0, -(shares * np.log(shares)).sum() / np.log(len(loads)))))


def correlations(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """float [rows, rows]: Pearson correlations of loads [rows, experts]; NaN where a row is constant."""
    scaled = _standardised(rows)
    return np.asarray(np.clip(scaled @ scaled.T, -1.0, 1.0))


def successive(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """float [rows - 1]: Pearson correlation of each row of loads [rows, experts] with the next; NaN as above."""
    scaled = _standardised(rows)
    return np.asarray(np.clip((scaled[1:] * scaled[:-1]).sum(axis=1), -1.0, 1.0))


def generality(families: NDArray[np.int64]) -> NDArray[np.float64]:
    """float [experts]: the share of families [families, experts] of which an expert is in the busiest quarter.

    A quarter is rounded up; experts that tie at its edge are outside, so that equal loads make nobody general. The
    measure is ours: the score of arXiv 2606.01007, GESR, mixes usage with it and leaves its norm open.
    """
    experts = families.shape[1]
    quarter = -(-experts // 4)
    edge = (
        np.sort(families, axis=1)[:, experts - quarter - 1] if quarter < experts else np.zeros(len(families))
    )
    return np.asarray((families > edge[:, None]).mean(axis=0))


def known(value: float | np.floating) -> float | None:
    """None for what is not a number."""
    return float(value) if np.isfinite(value) else None


def mean_of(values: NDArray[np.float64]) -> float | None:
    """Mean of the numbers among them; None when there are none."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else None


def _standardised(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows of mean 0 and length 1; constant ones of NaN."""
    values = rows.astype(float)
    values -= values.mean(axis=1, keepdims=True)
    length = np.sqrt((values**2).sum(axis=1, keepdims=True))
    varies = (rows.max(axis=1) > rows.min(axis=1))[:, None] & (length > 0)
    return np.asarray(np.divide(values, length, out=np.full_like(values, np.nan), where=varies))
