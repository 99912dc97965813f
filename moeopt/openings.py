"""What is known of a request before it is served, and what is served then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.trace import DECODE, PREFILL, Trace

__all__ = ["OPENING", "Openings", "request_counts"]

OPENING = 0.25  # of the tokens of a request that was recorded in one phase


@dataclass(frozen=True, eq=False)
class Openings:
    """Activations of every request, those that decide where it goes and those that go there.

    | field | holds |
    |---|---|
    | requests | int32 [requests]: ids, ascending |
    | first | int64 [requests, layers, experts]: activations of the prefill, or of the opening that stands for it |
    | rest | int64 [requests, layers, experts]: activations of the decode, or of what follows the opening |
    | served | bool [tokens]: whether a token belongs to `rest` |
    | opened | requests that were parted by an opening, for want of a phase |

    A request with both phases is parted by phase. Of any other the first `share` of its tokens, rounded up, in the
    order of their positions, is the opening; of a request with a single token nothing is left to serve.

    Source: arXiv 2604.23150, sections 4.3 and 5.1: the prefill decides the micro-batch of the decode. The opening is
    ours, for traces of one phase.
    """

    requests: NDArray[np.int32]
    first: NDArray[np.int64]
    rest: NDArray[np.int64]
    served: NDArray[np.bool_]
    opened: int

    @classmethod
    def of(cls, trace: Trace, *, share: float = OPENING) -> Self:
        """Part every request of the trace. Raises ValueError for a share that is not between 0 and 1."""
        if not 0 < share < 1:
            raise ValueError(f"the opening must be a share of the tokens between 0 and 1, found {share}")
        requests, row, size = np.unique(trace.request, return_inverse=True, return_counts=True)
        decoded = np.bincount(row, weights=trace.phase == DECODE, minlength=len(requests))
        both = (decoded > 0) & (decoded < size)
        order = np.lexsort((trace.position, row))
        place = np.empty(len(row), np.int64)
        place[order] = np.arange(len(row)) - np.repeat(size.cumsum() - size, size)
        opening = np.where(both[row], trace.phase == PREFILL, place < np.ceil(np.round(share * size, 9))[row])
        return cls(
            requests,
            request_counts(trace, chosen=opening),
            request_counts(trace, chosen=~opening),
            ~opening,
            int((~both).sum()),
        )

    @property
    def decided_by(self) -> str:
        """In words: what decides."""
        if not self.opened:
            return "the prefill decides"
        if self.opened == len(self.requests):
            return "the opening decides"
        return f"the prefill decides, of {self.opened} requests with one phase the opening"


def request_counts(trace: Trace, *, chosen: NDArray[Any]) -> NDArray[np.int64]:
    """int64 [requests, layers, experts]: activations by the tokens `chosen` bool [tokens], for every request."""
    requests, row = np.unique(trace.request, return_inverse=True)
    experts = trace.n_experts
    counts = np.empty((len(requests), trace.n_layers, experts), np.int64)
    for layer in range(trace.n_layers):
        cell = row[chosen, None] * experts + trace.experts[chosen, layer].astype(np.int64)
        found = np.bincount(cell.ravel(), minlength=len(requests) * experts)
        counts[:, layer] = found.reshape(len(requests), experts)
    return counts
