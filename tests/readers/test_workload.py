"""Workloads as documents: counts that were converted come back, whatever is known of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings

from moeopt.expert_sets import ExpertSets
from moeopt.load_counts import load_workload
from moeopt.pair_counts import PairCounts
from moeopt.readers.workload import Workload as Reader
from moeopt.recording import read_recording, read_trace, read_workload, write_recording
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.strategies import same, traces


def known(trace: Trace) -> list[Workload]:
    """Its sets, its pairs, its loads."""
    whole = Workload.from_trace(trace)
    pairs: list[ExpertSets] = [PairCounts.of_sets(sets) for sets in whole.layers]
    loads = np.stack([sets.load for sets in whole.layers])
    return [
        whole,
        Workload(tuple(pairs), whole.layer_ids, whole.families, whole.tokens, whole.model),
        load_workload(loads, layer_ids=whole.layer_ids, top_k=whole.top_k, model="loads"),
    ]


@settings(max_examples=25, deadline=None)
@example(trace=Trace(np.array([[[0, 1]], [[2, 1]]]), 3, families=("pairs",), model="heat"))
@example(trace=Trace(np.array([[[0, 1]], [[2, 1]]]), 3, model="routed_experts"))
@given(trace=traces())
def test_a_workload_comes_back_from_its_document(
    trace: Trace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "workload.json"
    for workload in known(trace):
        write_recording(workload, path)
        back = read_workload(path)
        assert (back.digest, back.model) == (workload.digest, workload.model)
        assert [type(sets) for sets in back.layers] == [type(sets) for sets in workload.layers]


def test_a_trace_is_written_as_a_trace(tmp_path: Path) -> None:
    trace = Trace(np.array([[[0, 1]], [[2, 1]]]), 3)
    write_recording(trace, tmp_path / "out")
    assert same(read_trace(tmp_path / "out"), trace)


def test_what_the_document_says_otherwise_is_refused(tmp_path: Path) -> None:
    write_recording(load_workload([[1, 2]], layer_ids=[4]), tmp_path / "out")
    with pytest.raises(ValueError, match=r"out: n_experts is given as 3, the recording says 2"):
        read_recording(tmp_path / "out", supplement=Supplement(n_experts=3))
    assert read_recording(tmp_path / "out", supplement=Supplement(model="m")).model == "m"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "moeopt-workload", "version": 2}', "version of moeopt-workload must be 1, found 2"),
        ('{"format": "moeopt-workload", "version": 1}', "field 'workload' is missing"),
        ('{"format": "moeopt-workload", ', "not JSON"),
        ('{"format": "moeopt-workload", "version": 1, "workload": []}', "field 'workload' must be dict"),
    ],
)
def test_a_document_that_is_none_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "out"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_recording(path)
    assert str(path) in str(error.value)


def test_a_larger_file_than_the_limit_is_refused(tmp_path: Path) -> None:
    write_recording(load_workload([[1, 2]], layer_ids=[4]), tmp_path / "out")
    size = (tmp_path / "out").stat().st_size
    with pytest.raises(ValueError, match=f"a workload may have {size - 1} bytes, found {size}"):
        Reader(limit=size - 1).read(tmp_path / "out", Supplement())
    assert json.loads((tmp_path / "out").read_text())["format"] == "moeopt-workload"
