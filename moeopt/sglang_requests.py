"""Requests of a recording that names none, followed through the batches of SGLang by the positions of their tokens.

SGLang 0.5.23 keeps the running batch in order (srt/managers/schedule_batch.py: `filter_batch` drops what has finished,
`merge_batch` appends what was just prefilled), so

- a row of a decode pass continues the next running request, in order, that stands at its position: where two do and one
  has finished, the recording cannot tell which; the later one is taken to go on, since few end at their first token;
- rows left over continue any running request at their position (a retraction reorders the batch), or else belong to a
  request that was prefilled before the recording, or elsewhere;
- a segment of a prefill is a request. The first one continues the last one of the prefill before if it starts where
  that ended, since a chunked prompt ends its batch and starts the next. Any other that starts behind 0 found its
  beginning in the cache: a request of its own;
- a segment of one token of a mixed pass that continues a running request is decoded;
- a request that a decode or mixed pass leaves out has finished. Batches that alternate (pipeline parallelism) are seen
  as many short requests.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moeopt.trace import DECODE, PREFILL

WIDEST = 65_536  # requests of a batch
Ints = NDArray[np.int64]


def _none() -> Ints:
    return np.empty(0, np.int64)


@dataclass
class Requests:
    """The running batch of one rank.

    | field | holds |
    |---|---|
    | known | requests seen so far; their ids count from 0 |
    | running | ids, in the order of the batch |
    | ahead | position of the next token of each |
    | chunked | id of the request whose prefill may go on, and the position where; -1 for none |
    """

    known: int = 0
    running: Ints = field(default_factory=_none)
    ahead: Ints = field(default_factory=_none)
    chunked: tuple[int, int] = (-1, -1)

    def decoded(self, positions: Ints) -> Ints:
        """Ids [tokens] of the requests of a decode pass, of one token each."""
        ids = self._continued(positions)
        if self.chunked[0] in ids:
            self.chunked = (-1, -1)
        new = ids < 0
        ids[new] = self._fresh(int(new.sum()))
        self.running, self.ahead = ids, positions + 1
        return ids

    def extended(self, positions: Ints, lengths: Ints, *, mixed: bool) -> tuple[Ints, Ints]:
        """Ids [tokens] and phases [tokens] of a prefill of segments of these lengths, or of a mixed pass."""
        if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= len(positions):
            raise ValueError(
                f"a segment of a prefill has from 1 to {len(positions)} tokens, "
                f"found {lengths.min()} to {lengths.max()}"
            )
        if int(lengths.sum()) != len(positions):
            raise ValueError(
                f"segments of {lengths.sum()} tokens in all, found {len(positions)} with experts"
            )
        ends = np.cumsum(lengths)
        starts = positions[ends - lengths]
        last = positions[ends - 1] + 1
        if (np.diff(positions)[np.isin(np.arange(1, len(positions)), ends, invert=True)] != 1).any():
            raise ValueError("positions within a segment of a prefill must ascend by one")
        ids = np.full(len(lengths), -1)
        if len(ids) and self.chunked[0] >= 0 and starts[0] == self.chunked[1]:
            ids[0] = self.chunked[0]
            self._leave(ids[:1])
        prefilled = np.ones(len(ids), bool)
        if mixed:
            single = np.flatnonzero((lengths == 1) & (ids < 0))
            ids[single] = self._continued(starts[single])
            prefilled[single] = ids[single] < 0
            self.running, self.ahead = _none(), _none()
        new = ids < 0
        ids[new] = self._fresh(int(new.sum()))
        self.running, self.ahead = np.append(self.running, ids), np.append(self.ahead, last)
        for index in np.flatnonzero(prefilled)[-1:]:
            self.chunked = (int(ids[index]), int(last[index]))
        return np.repeat(ids, lengths), np.repeat(np.where(prefilled, PREFILL, DECODE), lengths)

    def _fresh(self, count: int) -> Ints:
        self.known += count
        return np.arange(self.known - count, self.known)

    def _leave(self, ids: Ints) -> None:
        stays = ~np.isin(self.running, ids)
        self.running, self.ahead = self.running[stays], self.ahead[stays]

    def _continued(self, positions: Ints) -> Ints:
        """Ids of the running requests that the rows continue, -1 for none."""
        if len(positions) > WIDEST:
            raise ValueError(f"a batch may have {WIDEST} requests, found {len(positions)}")
        ids = np.full(len(positions), -1)
        rows, requests = _in_order(positions, self.ahead)
        ids[rows] = self.running[requests]
        left, open_ = np.flatnonzero(ids < 0), np.delete(np.arange(len(self.running)), requests)
        rows, requests = _anyhow(positions[left], self.ahead[open_])
        ids[left[rows]] = self.running[open_[requests]]
        return ids


def _in_order(positions: Ints, ahead: Ints) -> tuple[Ints, Ints]:
    """Rows and requests that agree, in one order: every row, from the last on, takes the last request left there.

    A step a request that has finished, not a step a row.
    """
    positions, ahead = positions[::-1], ahead[::-1]
    rows, requests = [_none()], [_none()]
    row = request = 0
    known = np.flatnonzero(np.isin(positions, ahead))
    while row < len(known) and request < len(ahead):
        both = min(len(known) - row, len(ahead) - request)
        agree = positions[known[row : row + both]] == ahead[request : request + both]
        if run := both if agree.all() else int(np.argmin(agree)):
            rows.append(known[row : row + run])
            requests.append(np.arange(request, request + run))
            row, request = row + run, request + run
        elif (there := ahead[request:] == positions[known[row]]).any():
            request += int(np.argmax(there))
        else:
            row += 1
    return len(positions) - 1 - np.concatenate(rows), len(ahead) - 1 - np.concatenate(requests)


def _anyhow(positions: Ints, ahead: Ints) -> tuple[Ints, Ints]:
    """Rows and requests paired by position: the n-th row there with the n-th request there."""
    _, rows, requests = np.intersect1d(
        _numbered(positions), _numbered(ahead), assume_unique=True, return_indices=True
    )
    return rows.astype(np.int64), requests.astype(np.int64)


def _numbered(positions: Ints) -> Ints:
    """position x 2^20 + how many equal ones come before."""
    order = np.argsort(positions, kind="stable")
    ordered = positions[order]
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return (positions << 20) + number
