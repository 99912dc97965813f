"""The control of every co-activation result: a trace with the same loads and no co-activation."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.trace import Trace


def null(trace: Trace, *, seed: int) -> Trace:
    """The trace with the experts' tokens shuffled within each layer.

    Every expert keeps exactly its load in every layer and every token has k distinct experts; beyond that
    all assignments are equally likely, so that co-activation, families, phases and drift vanish. The order
    of a token's experts no longer says anything about gate values.

    Global Curveball (Carstens, Hamann, Meyer, Penschuck, Tran, Wagner, 2018): a round pairs all tokens at
    random, and each pair deals the experts that it does not share anew among its two tokens.
    """
    experts = np.empty_like(trace.experts)
    for layer in range(trace.n_layers):
        experts[:, layer] = _shuffled(trace.experts[:, layer], np.random.default_rng([seed, layer]))
    return replace(trace, experts=experts)


def _shuffled(ids: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """ids [tokens, k], dealt until every expert could have reached every token."""
    rows = ids.astype(np.uint64)
    half = len(rows) // 2
    # Two experts of a token are parted with chance 1/2 a round; information reaches 2^rounds tokens.
    for _ in range(16 + len(rows).bit_length()):
        order = rng.permutation(len(rows))
        first, second = order[:half], order[half : 2 * half]
        rows[first], rows[second] = _dealt(rows[first], rows[second], rng)
    return rows.astype(ids.dtype)


def _dealt(
    ours: NDArray[np.uint64], theirs: NDArray[np.uint64], rng: np.random.Generator
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Both sides [pairs, k] after one trade: shared experts stay on both sides, the others are dealt anew."""
    pairs, k = ours.shape
    shared = ours[:, :, None] == theirs[:, None, :]
    keys = rng.integers(1, 2**32 - 1, (pairs, 2 * k), dtype=np.uint32).astype(np.uint64)
    keys[:, :k][shared.any(axis=2)] = 0  # sorts before every draw,
    keys[:, k:][shared.any(axis=1)] = 2**32 - 1  # and after every draw
    cards = np.sort((keys << np.uint64(16)) | np.concatenate([ours, theirs], axis=1), axis=1) & np.uint64(
        0xFFFF
    )
    return cards[:, :k], cards[:, k:]
