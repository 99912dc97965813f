"""Traces whose families use experts of their own."""

from __future__ import annotations

import numpy as np

from moeopt.trace import Trace


def family_trace(
    *,
    families: int = 2,
    requests: int = 6,
    tokens: int = 8,
    experts: int = 8,
    layers: int = 2,
    phases: int = 2,
) -> Trace:
    """`requests` of each family, tokens of two experts out of the family's share; the first half is prefill."""
    rng = np.random.default_rng(0)
    own = experts // families
    family = np.repeat(np.arange(families), requests * tokens)
    drawn = np.argsort(rng.random((len(family), layers, own)), axis=2)[..., :2]
    position = np.tile(np.arange(tokens), families * requests)
    return Trace(
        drawn + own * family[:, None, None],
        experts,
        layer_ids=np.arange(layers, dtype=np.int32) + 3,
        families=tuple(f"family {index}" for index in range(families)),
        family=family.astype(np.uint8),
        request=np.repeat(np.arange(families * requests), tokens).astype(np.int32) + 10,
        position=position.astype(np.int32),
        phase=(position >= tokens // 2).astype(np.uint8) if phases == 2 else np.zeros(len(family), np.uint8),
    )
