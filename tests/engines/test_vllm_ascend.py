"""vllm-ascend's expert map: positions, equal devices, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moeopt.engines.vllm_ascend import VLLMAscend
from moeopt.placement import Placement

ENGINE = VLLMAscend()
TWO = Placement(
    np.array([[[True, False], [True, True], [False, True]], [[True, True], [True, False], [False, True]]]),
    np.array([[0, 0, 1], [0, 0, 1]]),
    2,
    2,
    (3, 7),
)


def test_layers_are_numbered_among_the_moe_layers() -> None:
    document = json.loads(ENGINE.dump(TWO))
    assert document["moe_layer_count"] == 2
    assert [layer["layer_id"] for layer in document["layer_list"]] == [0, 1]
    assert document["layer_list"][0] == {
        "layer_id": 0,
        "device_count": 2,
        "device_list": [
            {"device_id": 0, "device_expert": [0, 1]},
            {"device_id": 1, "device_expert": [1, 2]},
        ],
    }


def test_the_file_says_its_gpus_and_settings_the_rest() -> None:
    content = ENGINE.dump(TWO)
    assert ENGINE.read(content).gpus == 2
    assert ENGINE.load(content, nodes=2, layer_ids=(3, 7)) == TWO
    assert ENGINE.load(content).layer_ids == (0, 1)
    with pytest.raises(ValueError, match="gpus are 2 in the file, asked for were 4"):
        ENGINE.load(content, gpus=4)
    with pytest.raises(ValueError, match=r"layer ids must ascend, found \[7, 3\]"):
        ENGINE.load(content, layer_ids=(7, 3))
    with pytest.raises(ValueError, match="3 layer ids for 2 layers"):
        ENGINE.load(content, layer_ids=(3, 7, 8))


def test_further_keys_are_ignored_as_the_engine_does() -> None:
    document = json.loads(ENGINE.dump(TWO))
    document["comment"] = document["layer_list"][0]["comment"] = "by hand"
    assert ENGINE.load(json.dumps(document).encode(), nodes=2, layer_ids=(3, 7)) == TWO


def first(document: Any) -> Any:
    return document["layer_list"][0]["device_list"][0]


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "count": (lambda d: d.update(moe_layer_count=3), "must list moe_layer_count 3 layers, found 2"),
    "no layers": (lambda d: d.update(layer_list=[]), "must list moe_layer_count 2 layers, found 0"),
    "layers that are none": (lambda d: d.update(layer_list={}), "found {}"),
    "layer out of place": (lambda d: d["layer_list"].reverse(), "at position 0 layer_id must be 0"),
    "layer that is none": (
        lambda d: d["layer_list"].__setitem__(1, 4),
        "at position 1 layer_id must be 1, found 4",
    ),
    "true for layer 1": (lambda d: d["layer_list"][1].update(layer_id=True), "layer_id must be 1"),
    "device out of place": (
        lambda d: d["layer_list"][1]["device_list"].reverse(),
        "layer 1: at position 0 device_id must be 0",
    ),
    "device count": (
        lambda d: d["layer_list"][1].update(device_count=1),
        "layer 1: .* device_count 1 devices",
    ),
    "fewer devices": (
        lambda d: d["layer_list"][1].update(
            device_count=1, device_list=d["layer_list"][1]["device_list"][:1]
        ),
        "layer 1 has 1 devices, layer 0 2",
    ),
    "fewer experts": (
        lambda d: d["layer_list"][1]["device_list"][1].update(device_expert=[2]),
        "layer 1: device 1 holds 1 experts, device 0 of layer 0 2",
    ),
    "no experts": (
        lambda d: first(d).pop("device_expert"),
        "layer 0, device 0: experts must be a list, found None",
    ),
    "negative": (lambda d: first(d).update(device_expert=[0, -1]), "device 0, slot 1: .* found -1"),
    "fraction": (lambda d: first(d).update(device_expert=[0, 1.0]), "found 1.0"),
    "true": (lambda d: first(d).update(device_expert=[0, True]), "found True"),
    "huge": (lambda d: first(d).update(device_expert=[0, 10**30]), "found 1000000"),
    "out of reach": (
        lambda d: first(d).update(device_expert=[0, 1_000_000]),
        "layer 0: expert 3 is on no GPU",
    ),
    "two copies": (lambda d: first(d).update(device_expert=[1, 1]), "GPU 0 holds expert 1 twice"),
    "missing expert": (lambda d: first(d).update(device_expert=[1, 2]), "layer 0: expert 0 is on no GPU"),
}


@pytest.mark.parametrize(("change", "rule"), CHANGES.values(), ids=CHANGES.keys())
def test_a_broken_file_is_refused_by_rule(change: Callable[[Any], object], rule: str) -> None:
    document = json.loads(ENGINE.dump(TWO))
    change(document)
    with pytest.raises(ValueError, match=rule):
        ENGINE.load(json.dumps(document).encode())


def test_only_a_json_file_is_offered_to_the_engine() -> None:
    with pytest.raises(ValueError, match=r"ends in \.json, found 'map\.txt'"):
        ENGINE.notes(TWO, "map.txt")
    assert "runner v1" in ENGINE.notes(TWO, "map.json").source
