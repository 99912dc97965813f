"""Logistic regression by scikit-learn, from the extra `profiles`: the only module that imports it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LABELLED", "regression"]

LABELLED = "pip install 'moeopt[profiles]'"
ROUNDS = 1_000  # of the solver


def regression(points: NDArray[Any], labels: NDArray[Any]) -> Any:
    """Multinomial logistic regression, fitted: points [points, dimensions], labels [points] of at least two classes.

    L2-regularised with C = 1, by L-BFGS, on points as they are.
    Raises ImportError naming the extra without scikit-learn, ValueError for a single class.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as missing:
        raise ImportError(f"logistic regression needs scikit-learn: {LABELLED}") from missing
    import warnings

    if len(classes := np.unique(labels)) < 2:
        raise ValueError(f"a classification needs two classes, found {classes.tolist()}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # separable counts have no finite optimum
        return LogisticRegression(max_iter=ROUNDS).fit(np.asarray(points, float), labels)
