"""The local search for broken cuts, step by step: the cuts it ends at, and how many changes of a sign it looks at."""

import numpy as np
from numpy.typing import NDArray

from moeopt.hypermetric import BROKEN

__all__ = ["sought"]

SIGNS = np.array([-1.0, 0.0, 1.0])


def sought(
    y: NDArray[np.float64], starts: NDArray[np.int64], *, groups: int, largest: int
) -> tuple[list[list[int]], int]:
    """(cuts, changes looked at) of `moeopt.hypermetric.broken_cuts`; a cut lists its signed numbers from 1."""
    cuts, looked = [], 0
    for first, second in starts.tolist():
        b = np.zeros(len(y))
        b[first], b[second] = 1.0, -1.0
        ties = 0.0 + y[first] - y[second]
        square = value = 2.0 - 2.0 * float(y[first, second])
        for _ in range(4 * largest):
            inside = b != 0.0
            full = int(inside.sum()) == largest
            moves = SIGNS - b[:, None]
            least = np.array([_least_square(int(b.sum()) + step, groups) for step in range(-2, 3)], float)
            after = square + 2.0 * moves * ties[:, None] + moves * moves - least[moves.astype(int) + 2]
            closed = (moves == 0.0) | (~inside[:, None] if full else False)
            looked += int((~closed).sum())
            after[closed] = np.inf
            at = int(after.argmin())
            if not after.flat[at] < value - 1e-9:
                break
            where, change = at // 3, float(moves.flat[at])
            square += 2.0 * change * float(ties[where]) + change * change
            b[where] += change
            ties = ties + change * y[where]
            value = float(after.flat[at])
        if value < -BROKEN and int((b != 0.0).sum()) > 3:
            cuts.append([int(b[i]) * (int(i) + 1) for i in np.flatnonzero(b)])
    return cuts, looked


def _least_square(total: int, groups: int) -> int:
    """Least sum of squares of so many whole numbers with this sum."""
    whole, rest = divmod(abs(total), groups)
    return (groups - rest) * whole * whole + rest * (whole + 1) * (whole + 1)
