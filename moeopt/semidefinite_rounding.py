"""From the multipliers of a semidefinite relaxation to a proof in whole numbers.

Where S falls below its (G - 1)-th least eigenvalue w on 1'x = 0, by h along a vector q, N_ij grows by
h (q_i - q_j)^2 / 2. On 1'x = 0 this adds h qq' to S, and its diagonal stays 0. With w taken off the diagonal S is psd
there, and the bound is the one that `moeopt.semidefinite` states for these eigenvalues. Then all is rounded, and the
diagonal raised by the little that the checker's own factorisation asks for.
"""

from typing import Any

import numpy as np

from moeopt.partition_lines import Level, Lines
from moeopt.semidefinite import Relaxation, eigen_of_sum_zero, pressed
from moeopt.semidefinite_checker import dual_value, surely_positive

__all__ = ["whole_numbers_of"]

FINE = 128.0  # scale x denominator per expert: rounding costs far less than 1


def whole_numbers_of(relaxation: Relaxation, lines: Lines, *, level: Level) -> tuple[int, dict[str, Any]]:
    """(dual, numbers) as `moeopt.semidefinite_checker` reads them, without the references."""
    n, groups = level.seats, level.groups
    slack = relaxation.slack()
    values, vectors = eigen_of_sum_zero(slack)
    lowest = values[groups - 2]
    low = (vectors[:, : groups - 1] * (lowest - values[: groups - 1])) @ vectors[:, : groups - 1].T
    slack -= 0.5 * (np.diag(low) + np.diag(low)[:, None]) - low
    diagonal = np.diag(slack) - lowest
    scale = 1 << max(0, int(np.ceil(np.log2(FINE * n / lines.denominator))))
    largest = max(float(np.abs(slack).max()), float(np.abs(diagonal).max())) * relaxation.unit
    while scale > 1 and scale * n * largest > 1 << 48:
        scale //= 2
    fine = scale * relaxation.unit
    forces = np.rint(relaxation.forces * fine).astype(np.int64)
    cuts, forces = relaxation.cuts[forces > 0], forces[forces > 0]
    upper = np.triu_indices(n, 1)
    base = -pressed(scale * lines.weights.astype(float), cuts, forces=forces.astype(float))
    free = base[upper] - np.rint(fine * slack[upper])
    together = None
    if relaxation.fixed is None:
        above = np.maximum(free, 0.0).astype(np.int64)
    else:
        fixed = relaxation.fixed[upper]
        above, together = np.where(fixed < 0, np.maximum(free, 0.0), free).astype(np.int64), fixed == 1
    whole = np.rint(fine * diagonal).astype(np.int64)
    rows = [[int(i) for i in cut if i] for cut in cuts]
    for row, force in zip(rows, forces.tolist(), strict=True):
        whole[np.abs(row) - 1] += force
    raised = 0
    while True:
        dual, matrix = dual_value(
            lines,
            level,
            scale=scale,
            diagonal=whole + raised,
            slack=above,
            cuts=rows,
            forces=forces.tolist(),
            together=together,
        )
        last = matrix[-1]
        if surely_positive(matrix[:-1, :-1] - last[:-1] - last[:-1, None] + last[-1]):
            break
        if raised:
            raised *= 2
        else:
            raised = 2 + max(0, int(np.ceil(-eigen_of_sum_zero(matrix.astype(float))[0][0])))
    return dual, {
        "scale": scale,
        "references": [],
        "diagonal": (whole + raised).tolist(),
        "slack": above.tolist(),
        "cuts": rows,
        "forces": forces.tolist(),
        "dual": dual,
    }
