from importlib.resources import files

import numpy as np

from moeopt.samples import sample
from moeopt.trace import DECODE, PREFILL


def test_the_sample_is_small_enough_to_ship() -> None:
    assert 0 < len((files("moeopt") / "data" / "sample.parquet").read_bytes()) <= 600_000


def test_the_sample_has_every_layer_family_and_phase() -> None:
    trace = sample()
    assert (trace.model, trace.n_layers, trace.n_experts, trace.top_k) == ("tiny-moe", 6, 32, 4)
    assert trace.families == ("code", "math", "chat", "general")
    assert np.bincount(trace.family).min() > 10_000
    assert np.isin([PREFILL, DECODE], trace.phase).all()


def test_the_sample_holds_whole_requests_equally_many_of_each_family_and_phase() -> None:
    trace = sample()
    requests, first, tokens = np.unique(trace.request, return_index=True, return_counts=True)
    phase = trace.phase[first]
    assert set(zip(phase.tolist(), tokens.tolist(), strict=True)) == {(PREFILL, 256), (DECODE, 160)}
    assert (trace.phase == phase[np.searchsorted(requests, trace.request)]).all()
    assert len(set(np.bincount(2 * trace.family[first] + phase).tolist())) == 1
    assert len(requests) > 200
