from importlib.resources import files

import numpy as np
import pytest

from moeopt.api import solve
from moeopt.cluster import Cluster
from moeopt.control import null
from moeopt.problem import Problem
from moeopt.samples import sample
from moeopt.stop import Stop
from moeopt.trace import DECODE, PREFILL


def test_the_smaller_sample_is_small_enough_to_ship() -> None:
    assert 0 < len((files("moeopt") / "data" / "tiny-moe.parquet").read_bytes()) <= 600_000


def test_the_smaller_sample_has_every_layer_family_and_phase() -> None:
    trace = sample("tiny-moe")
    assert (trace.model, trace.n_layers, trace.n_experts, trace.top_k) == ("tiny-moe", 6, 32, 4)
    assert trace.families == ("code", "math", "chat", "general")
    assert np.bincount(trace.family).min() > 10_000
    assert np.isin([PREFILL, DECODE], trace.phase).all()


def test_the_smaller_sample_holds_whole_requests_equally_many_of_each_family_and_phase() -> None:
    trace = sample("tiny-moe")
    requests, first, tokens = np.unique(trace.request, return_index=True, return_counts=True)
    phase = trace.phase[first]
    assert set(zip(phase.tolist(), tokens.tolist(), strict=True)) == {(PREFILL, 256), (DECODE, 160)}
    assert (trace.phase == phase[np.searchsorted(requests, trace.request)]).all()
    assert len(set(np.bincount(2 * trace.family[first] + phase).tolist())) == 1
    assert len(requests) > 200


def test_the_sample_is_small_enough_and_has_every_family_and_phase() -> None:
    assert len((files("moeopt") / "data" / "tiny-olmoe.parquet").read_bytes()) <= 1_500_000
    trace = sample()
    assert (trace.model, trace.n_layers, trace.n_experts, trace.top_k) == ("tiny-olmoe", 8, 64, 8)
    assert trace.families == sample("tiny-moe").families
    assert np.bincount(trace.family).min() > 5_000


def test_its_requests_are_a_prompt_and_its_answer_whole() -> None:
    trace = sample()
    assert len(np.unique(trace.request)) > 200
    for request in np.unique(trace.request)[::20]:
        own = trace.request == request
        assert (np.diff(trace.position[own]) == 1).all()
        assert (trace.phase[own] == np.where(np.arange(own.sum()) < 96, PREFILL, DECODE)).all()
        assert (trace.phase[own] == DECODE).any()


def test_its_experts_go_together_beyond_their_loads() -> None:
    trace = sample().layers([3])
    saved = []
    for traffic in (trace, null(trace, seed=0)):
        problem = Problem.from_trace(traffic, Cluster.of(gpus=16, slots=4))
        linear, spectral = (
            solve(problem, name, stop=Stop(seconds=None)).cost for name in ("linear", "spectral")
        )
        assert linear is not None
        assert spectral is not None
        saved.append(1 - spectral / linear)
    assert saved[0] > saved[1] + 0.1


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="no sample is named 'large'; known are tiny-olmoe, tiny-moe"):
        sample("large")
