"""Rows added by width are the rows of the matrix."""

from __future__ import annotations

import numpy as np

from moeopt.widths import Rows


def test_families_of_rows_follow_one_another() -> None:
    rows = Rows()
    rows.add(np.array([[0, 1], [2, 3]]), [1, -1], lower=[1, 2])
    rows.add(np.empty((0, 3), np.int64), upper=5)
    rows.add(np.array([[[3, 3, 0]]]), 2, upper=7)
    found = rows.arrays(width=4)
    assert found["rows"].toarray().tolist() == [[1, -1, 0, 0], [0, 0, 1, -1], [2, 0, 0, 4]]
    assert found["row_lower"].tolist() == [1, 2, -np.inf]
    assert found["row_upper"].tolist() == [np.inf, np.inf, 7]
