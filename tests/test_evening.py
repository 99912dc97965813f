"""Renaming GPUs evens summed loads and changes nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt.comparison import served_traffic
from moeopt.evening import paired
from moeopt.samples import sample


@pytest.mark.parametrize(("nodes", "slots"), [(1, 8), (2, 8), (1, 10)])
def test_no_layer_changes_and_the_sum_gets_more_even(nodes: int, slots: int) -> None:
    cluster = mo.Cluster.of(gpus=4, nodes=nodes, slots=slots, node_cost=nodes - 1)
    problem = mo.Problem.from_trace(sample("tiny-moe"), cluster, replicas=4 * (slots - 8))
    placement = mo.solve(problem, "linear" if slots == 8 else "eplb").placement
    assert placement is not None
    evened = mo.even_out(placement, sample("tiny-moe"))
    before, after = served_traffic(placement, sample("tiny-moe")), served_traffic(evened, sample("tiny-moe"))
    assert problem.layer_costs(evened) == problem.layer_costs(placement)
    assert problem.violation(evened) == problem.violation(placement)
    if slots > 8:  # ties between copies go to the lowest GPU, whatever its name
        return
    assert (np.sort(after.loads) == np.sort(before.loads)).all()
    assert after.summed @ after.summed <= before.summed @ before.summed
    assert (
        mo.evaluate(evened, sample("tiny-moe")).max_violation
        <= mo.evaluate(placement, sample("tiny-moe")).max_violation
    )


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nodes=st.sampled_from([1, 2, 3]))
def test_names_keep_nodes_and_slots(seed: int, nodes: int) -> None:
    rng = np.random.default_rng(seed)
    gpus = nodes * int(rng.integers(1, 4))
    loads = rng.integers(0, 100, (int(rng.integers(1, 6)), gpus))
    slots = rng.integers(1, 3, gpus)
    names = paired(loads, nodes=nodes, slots=slots)
    size = gpus // nodes
    for row in names:
        assert sorted(row.tolist()) == list(range(gpus))
        assert (slots[row] == slots).all()
        for node in range(nodes):
            assert len(set((row[node * size : (node + 1) * size] // size).tolist())) == 1


def test_two_uneven_layers_cancel() -> None:
    names = paired(np.array([[9, 1], [9, 1]]), nodes=1, slots=np.array([2, 2]))
    assert names[0].tolist() != names[1].tolist()


def test_another_model_is_refused() -> None:
    placement = mo.Placement.partition(np.zeros((1, 4), int), mo.Cluster.of(gpus=2, slots=4), layer_ids=(0,))
    with pytest.raises(ValueError, match="4 experts a layer, the trace 32"):
        mo.even_out(placement, sample("tiny-moe"))
