"""What users say of a recording that it does not say itself, and what it says against them."""

import re
from typing import Any

import numpy as np
import pytest

from moeopt.supplement import Supplement
from moeopt.trace import Trace
from moeopt.workload import Workload

TRACE = Trace(np.array([[[0, 1], [2, 3]], [[1, 2], [0, 3]]]), 4, layer_ids=np.array([1, 4]), model="own")


@pytest.mark.parametrize("traffic", [TRACE, Workload.from_trace(TRACE)])
def test_nothing_said_changes_nothing(traffic: Any) -> None:
    assert Supplement().settled(traffic) is traffic


@pytest.mark.parametrize("traffic", [TRACE, Workload.from_trace(TRACE)])
def test_layers_are_picked_and_the_model_is_renamed(traffic: Any) -> None:
    found = Supplement(4, (4,), 2, "other").settled(traffic)
    assert (list(found.layer_ids), found.model) == ([4], "other")


@pytest.mark.parametrize(
    ("supplement", "message"),
    [
        (Supplement(n_experts=5), "n_experts is given as 5, the recording says 4"),
        (Supplement(top_k=3), "top_k is given as 3, the recording says 2"),
        (Supplement(layer_ids=(2,)), "layer 2 is not in the trace"),
    ],
)
def test_what_the_recording_says_otherwise_is_refused(supplement: Supplement, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        supplement.settled(TRACE)


def test_what_a_format_cannot_say_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"ids reach 7: give n_experts \(moeopt convert --experts\)"):
        Supplement().experts(least=8)
    with pytest.raises(
        ValueError,
        match=r"27 hidden layers.*give layer_ids of the MoE layers \(moeopt convert --moe-layers\)",
    ):
        Supplement().moe_layers(27)
    assert Supplement(n_experts=9).experts(least=8) == 9
    assert Supplement(layer_ids=(1, 26)).moe_layers(27) == (1, 26)
    assert Supplement().named_layers(3) == (0, 1, 2)
    assert Supplement(layer_ids=(3, 5)).named_layers(2) == (3, 5)


def test_what_does_not_fit_the_recording_is_refused() -> None:
    with pytest.raises(ValueError, match="n_experts is 7, found expert 7"):
        Supplement(n_experts=7).experts(least=8)
    with pytest.raises(ValueError, match="layer 27 is not among the 27 rows"):
        Supplement(layer_ids=(1, 27)).moe_layers(27)
    with pytest.raises(ValueError, match="2 layer_ids for the 3 layers"):
        Supplement(layer_ids=(1, 2)).named_layers(3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_experts": 0}, "n_experts must lie between 1 and 65536, found 0"),
        ({"top_k": 1 << 20}, "top_k must lie between 1 and 65536, found 1048576"),
        ({"n_experts": "64"}, "n_experts must be a whole number, found '64'"),
        ({"layer_ids": (1.7, 2)}, "layer_ids must be whole numbers, found 1.7"),
        ({"layer_ids": "1-26"}, "layer_ids must be whole numbers, found '1'"),
        ({"layer_ids": ()}, r"layer_ids must ascend from 0 on, found \[\]"),
        ({"layer_ids": (2, 1)}, r"layer_ids must ascend from 0 on, found \[2, 1\]"),
        ({"layer_ids": (-1, 1)}, r"layer_ids must ascend from 0 on, found \[-1, 1\]"),
    ],
)
def test_bad_words_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Supplement(**fields)  # type: ignore[arg-type]


def test_hidden_layers_are_the_rows_of_formats_that_have_them() -> None:
    said = Supplement(layer_ids=(1, 2), hidden_layers=4)
    assert said.moe_layers(4) == (1, 2)
    with pytest.raises(ValueError, match="hidden_layers is given as 4, the recording has 5 rows"):
        said.moe_layers(5)
    with pytest.raises(ValueError, match="layer 2 is not among the 2 hidden layers"):
        Supplement(layer_ids=(1, 2), hidden_layers=2)
    with pytest.raises(ValueError, match="hidden_layers must lie between 1 and 65536, found 0"):
        Supplement(hidden_layers=0)
