"""The referee believes nothing: neither costs nor proofs."""

from __future__ import annotations

from dataclasses import replace

import moeopt as mo
from moeopt.bench_referee import judge


def test_the_referee_passes_a_proved_placement_and_names_what_was_tampered_with() -> None:
    sample = mo.sample("tiny-moe")
    recorded = sample.layers([0])
    problem = mo.Problem.from_trace(recorded, mo.Cluster.of(gpus=8, slots=4))
    result = mo.solve(problem, "blocks", stop=mo.Stop(seconds=None))
    assert result.cost is not None
    fine = judge(problem, result, recorded=recorded)
    assert (fine.status, fine.cost, fine.bound) == ("certified-optimal", result.cost, result.cost)
    cheaper = replace(result, cost=result.cost - 1)
    assert judge(problem, cheaper, recorded=recorded).status == "disagreement"
    other = replace(sample.layers([1]), layer_ids=recorded.layer_ids)
    assert judge(problem, result, recorded=other).status == "rejected"
    unproved = replace(result, certificate=None, bound=None)
    assert judge(problem, unproved, recorded=recorded).status == "disagreement"
