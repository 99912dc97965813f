"""TensorRT-LLM's configuration: YAML that a YAML library reads alike, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.engines.tensorrt_llm import KEYS, TensorRTLLM
from moeopt.placement import Placement
from tests.engine_strategies import filled

ENGINE = TensorRTLLM()
HEAD = "num_slots: 2\ninitial_global_assignments:\n"
TWO = Placement(
    np.array([[[True, False], [True, True], [False, True]], [[True, True], [True, False], [False, True]]]),
    np.array([[0, 0, 1], [0, 0, 1]]),
    1,
    2,
    (3, 60),
)


def test_layers_are_absolute_and_dense_ones_absent() -> None:
    assert ENGINE.dump(TWO).decode().splitlines() == [
        "num_slots: 4",
        "layer_updates_per_iter: 0",
        "initial_global_assignments:",
        "  3: [0, 1, 1, 2]",
        "  60: [0, 1, 0, 2]",
    ]


@settings(max_examples=50, deadline=None)
@given(placement=filled())
def test_a_yaml_library_reads_what_is_written(placement: Placement) -> None:
    document = pytest.importorskip("yaml").safe_load(ENGINE.dump(placement))
    assert set(document) == set(KEYS)  # unknown keys are refused by the engine
    assert document["layer_updates_per_iter"] == 0
    rows = document["initial_global_assignments"]
    assert tuple(rows) == placement.layer_ids
    for index, row in enumerate(rows.values()):
        assert len(row) == document["num_slots"]
        for gpu, owned in enumerate(np.array(row).reshape(placement.gpus, -1)):
            assert owned.tolist() == np.flatnonzero(placement.hosts[index, :, gpu]).tolist()


@settings(max_examples=40, deadline=None)
@given(
    placement=filled(),
    flow=st.sampled_from([None, False]),
    width=st.sampled_from([8, 20, 10_000]),
    indent=st.integers(1, 5),
    sort=st.booleans(),
    start=st.booleans(),
)
def test_what_a_yaml_library_writes_is_read(
    placement: Placement, flow: bool | None, width: int, indent: int, sort: bool, start: bool
) -> None:
    yaml = pytest.importorskip("yaml")
    text = yaml.safe_dump(
        yaml.safe_load(ENGINE.dump(placement)),
        default_flow_style=flow,
        width=width,
        indent=indent,
        sort_keys=sort,
        explicit_start=start,
    )
    settings_: dict[str, Any] = {"gpus": placement.gpus, "nodes": placement.nodes, "model": placement.model}
    assert ENGINE.accepts(text.encode())
    assert ENGINE.load(text.encode(), **settings_) == placement
    assert ENGINE.load(text.replace("\n", "\r\n").encode(), **settings_) == placement


@pytest.mark.parametrize(
    "text",
    [
        "# made by hand\nnum_slots: 2 # two\n\ninitial_global_assignments: # slots\n  # first\n  4: [1, 0] # here\n",
        '"num_slots": 2\n"initial_global_assignments":\n  "4": [1,\n 0,\n]\n',
        "initial_global_assignments:\n  4:\n\n    - 1\n    - 0\nnum_slots: 2",
        '{"num_slots": 2, "layer_updates_per_iter": 1, "initial_global_assignments": {"4": [1, 0]}}',
    ],
)
def test_comments_quotes_blocks_and_json_are_read(text: str) -> None:
    found = ENGINE.read(text.encode())
    assert ENGINE.accepts(text.encode())
    assert (found.rows.tolist(), found.layer_ids) == ([[1, 0]], (4,))


BROKEN = {
    "empty": ("", "key 'num_slots' is missing"),
    "no keys": ("- 1\n", "expected keys num_slots, "),
    "not text": (b"\xff\xfe\x00", "not UTF-8"),
    "unknown key": (HEAD + "  4: [0, 1]\nversion: 1\n", "key 'version' is unknown: known are num_slots"),
    "key twice": (HEAD + "  4: [0, 1]\nnum_slots: 2\n", "key 'num_slots' is given twice"),
    "no slots": ("initial_global_assignments:\n  4: [0, 1]\n", "key 'num_slots' is missing"),
    "slots quoted": (
        "num_slots: '2'\ninitial_global_assignments:\n  4: [0, 1]\n",
        "num_slots must be a whole",
    ),
    "no slot at all": ("num_slots: 0\ninitial_global_assignments:\n  4: []\n", "from 1 to"),
    "octal": ("num_slots: 010\ninitial_global_assignments:\n  4: [0, 1]\n", "found '010'"),
    "online without a map": (
        "num_slots: 2\nlayer_updates_per_iter: 2\n",
        "key 'initial_global_assignments' is missing",
    ),
    "no layers": (HEAD, "must map layers to lists, found {}"),
    "null": ("num_slots: 2\ninitial_global_assignments: null\n", "expected indented lines"),
    "not indented": (HEAD + "4: [0, 1]\n", "expected indented lines .* found '4: "),
    "unevenly indented": (HEAD + "  4: [0, 1]\n   5: [0, 1]\n", "expected indented lines .* found '5: "),
    "list unevenly indented": (HEAD + "  4:\n  - 0\n   - 1\n", r"indented evenly, found columns \[2, 3\]"),
    "list outside": (HEAD + "  4:\n- 0\n- 1\n", r"indented evenly, found columns \[0\]"),
    "layer twice": (HEAD + "  4: [0, 1]\n  4: [0, 1]\n", "layer 4 is given twice"),
    "layer twice in JSON": (
        '{"num_slots": 2, "initial_global_assignments": {"4": [0, 1], "4": [1, 0]}}',
        "not JSON: key '4' is given twice",
    ),
    "layer that is no number": ('{"num_slots": 2, "initial_global_assignments": {"x": [0, 1]}}', "found 'x'"),
    "layer in octal": (HEAD + "  04: [0, 1]\n", "a layer must be a whole number, found '04'"),
    "too short": (HEAD + "  4: [0]\n", "layer 4: num_slots is 2, the list has 1"),
    "too long": (HEAD + "  4: [0, 1, 1]\n", "layer 4: num_slots is 2, the list has 3"),
    "expert in octal": (HEAD + "  4: [0, 01]\n", "layer 4, slot 1: .* found '01'"),
    "negative": (HEAD + "  4: [0, -1]\n", "expected indented lines"),
    "huge": (HEAD + "  4: [0, 99999999999]\n", "found '99999999999'"),
    "fraction": (HEAD + "  4: [0, 1.0]\n", "expected indented lines"),
    "comma missing": (HEAD + "  4: [0 1]\n", "found '0 1'"),
    "comma twice": (HEAD + "  4: [0,, 1]\n", "slot 1: .* found ''"),
    "alias": (HEAD + "  4: &a [0, 1]\n  5: *a\n", "expected indented lines"),
    "tag": (HEAD + "  4: !!python/tuple [0, 1]\n", "expected indented lines"),
    "foreign digits": (HEAD + "  4: [0, ١]\n", "expected indented lines"),
    "NaN": ('{"num_slots": NaN, "initial_global_assignments": {"4": [0, 1]}}', "NaN is no number"),
    "slots that do not divide": (
        "num_slots: 3\ninitial_global_assignments:\n  4: [0, 1, 0]\n",
        "3 slots on 2 GPUs",
    ),
    "missing expert": (HEAD + "  4: [0, 2]\n", "layer 4: expert 1 is on no GPU"),
    "two copies": (
        "num_slots: 4\ninitial_global_assignments:\n  4: [0, 0, 1, 0]\n",
        "GPU 0 holds expert 0 twice",
    ),
}


@pytest.mark.parametrize(("text", "rule"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_by_rule(text: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ENGINE.load(text if isinstance(text, bytes) else text.encode(), gpus=2)


@pytest.mark.parametrize(
    "tail",
    [
        "  3: " + "[" * 1_000_000,
        "\n" * 500_000 + "x",
        " " * 500_000 + "x",
        "  3:" + "\n  - 1" * 100_000 + "x",
        "  3: [" + "1," * 300_000 + "x",
        "  3: [" + "1 " * 300_000 + "]",
        "".join(f"  {layer}: [1]\n" for layer in range(30_000)) + "x",
        "- " * 500_000,
        "#" * 500_000,
    ],
)
def test_hostile_text_is_refused_soon(tail: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=r"initial_global_assignments|layer"):
        ENGINE.read((HEAD + tail).encode())
    assert time.perf_counter() - begun < 5
