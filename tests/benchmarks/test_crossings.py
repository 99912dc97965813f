"""No bound exceeds the cost of any placement that anybody finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.crossings import cross, cross_all, middling
from moeopt.bench_rows import Key
from moeopt.relaxations import semidefinite

INSTANCES, CHUNKS = 500, 20


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_bound_exceeds_the_cost_of_any_placement_found(chunk: int) -> None:
    each = INSTANCES // CHUNKS
    (row,) = cross_all(chunk * each, each, Key("", None, "", chunk, ""))
    assert row["found"]["status"] == "agreed", row["reason"]
    assert row["found"]["placements"] > 3 * each
    assert row["found"]["bounds"] > each


def test_a_bound_that_is_too_high_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = next(
        one
        for one in (middling(np.random.default_rng(number)) for number in range(100))
        if not one.replicas
        and one.load_tolerance is None
        and one.family_weights is None
        and one.cluster.equal
        and one.risk is None
    )
    honest = semidefinite.semidefinite_proof
    assert cross(problem, seed=0).reason == ""

    def lying(*args, **kwargs):  # type: ignore[no-untyped-def]
        proof = honest(*args, **kwargs)
        assert proof is not None
        return replace(proof, bound=proof.bound + 10**6)

    monkeypatch.setattr("benchmarks.crossings.semidefinite_proof", lying)
    assert "semidefinite proves" in cross(problem, seed=0).reason
