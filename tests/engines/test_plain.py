"""The map of no engine: the experts of every GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moeopt.engines.plain_map import Plain
from moeopt.placement import Placement

ENGINE = Plain()
HOSTS = np.array(
    [[[True, False], [True, True], [True, False]], [[False, True], [True, False], [False, True]]]
)
UNEQUAL = Placement(HOSTS, HOSTS.argmax(axis=2), 2, (3, 2), (5, 2), "model")
DOCUMENT = {
    "model": "model",
    "nodes": 2,
    "gpus": 2,
    "slots": [3, 2],
    "experts": 3,
    "layers": {"5": [[0, 1, 2], [1]], "2": [[1], [0, 2]]},
}


def test_it_says_which_gpu_holds_what() -> None:
    assert json.loads(ENGINE.dump(UNEQUAL)) == DOCUMENT


def test_everything_but_primaries_comes_back() -> None:
    assert ENGINE.load(ENGINE.dump(UNEQUAL)) == UNEQUAL
    other = ENGINE.load(ENGINE.dump(UNEQUAL), gpus=2, nodes=1, model="other")
    assert other == replace(UNEQUAL, nodes=1, model="other")
    assert ENGINE.read(ENGINE.dump(UNEQUAL)).rows.tolist() == [[0, 1, 2, 1, -1, -1], [1, -1, -1, 0, 2, -1]]


def test_free_slots_are_filled_on_request() -> None:
    loose = replace(UNEQUAL, slots=3)
    assert ENGINE.load(ENGINE.dump(loose, pad=True)).hosts.all()
    with pytest.raises(ValueError, match="same number of slots, found 3, 2"):
        ENGINE.dump(UNEQUAL, pad=True)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gpus": 3}, "layer 5 must list 3 GPUs"),
        ({"gpus": 0}, "gpus must be a whole number from 1"),
        ({"gpus": 10**9}, "layer 5 must list 1000000000 GPUs"),
        ({"experts": 10**9}, "layer 5: expert 3 is on no GPU"),
        ({"experts": 2}, "expert 2 out of range 0..1"),
        ({"nodes": 3}, "2 GPUs on 3 nodes"),
        ({"slots": [3]}, "slots must be one number or 2, found 1"),
        ({"slots": "3"}, "slots must be a whole number"),
        ({"model": None}, "model must be text, found None"),
        ({"comment": 1}, "key 'comment' is unknown"),
        ({"layers": []}, r"layers must be an object .* found \[\]"),
        ({"layers": {}}, "found {}"),
        ({"layers": {"05": [[0, 1, 2], []]}}, "a layer must be a whole number, found '05'"),
        ({"layers": {"-1": [[0, 1, 2], []]}}, "found '-1'"),
        ({"layers": {"1" * 5000: [[0, 1, 2], []]}}, "a layer must be a whole number"),
        ({"layers": {"٥": [[0, 1, 2], []]}}, "a layer must be a whole number"),
        ({"layers": {"5": [[0, 1, 2], 3]}}, "layer 5, GPU 1: experts must be a list, found 3"),
        ({"layers": {"5": [[0, 1, 2], [-1]]}}, "layer 5, GPU 1, slot 0: .* found -1"),
        ({"layers": {"5": [[0, 1, 2], [1.0]]}}, "found 1.0"),
        ({"layers": {"5": [[0, 1, 2], [1, 1]]}}, "layer 5: GPU 1 holds expert 1 twice"),
        ({"layers": {"5": [[0, 1], [1]]}}, "layer 5: expert 2 is on no GPU"),
    ],
)
def test_a_broken_document_is_refused_by_rule(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ENGINE.load(json.dumps({**DOCUMENT, **change}).encode())


def test_one_long_list_does_not_widen_all_others() -> None:
    layers = {"0": [list(range(5000)), *([[]] * 29_999)]}
    content = json.dumps({**DOCUMENT, "gpus": 30_000, "experts": 5000, "layers": layers}).encode()
    with pytest.raises(ValueError, match="1 layers of 30000 GPUs with up to 5000 experts: more than"):
        ENGINE.read(content)
