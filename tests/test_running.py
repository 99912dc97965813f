"""The placement in a file: told from its content, and refused with the rule it breaks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt.allocation_checker import FORMAT as ALLOCATION
from moeopt.engine import KEY, repeated
from moeopt.engines.eplb import Eplb
from moeopt.engines.sglang import SGLang
from moeopt.running import ranges

TRACE = mo.Generator(
    layers=3, experts=6, top_k=2, tokens=120, requests=12, groups=2, group_size=3, seed=1
).generate()
ROWS = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5]]
PLACED = mo.Placement.partition(
    [[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1]],
    mo.Cluster.of(gpus=2, slots=3),
    layer_ids=(0, 1, 2),
    model="synthetic",
)


def saved(rows: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(rows))
    return file.getvalue()


def zipped(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


def result() -> dict[str, Any]:
    problem = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=2, slots=3))
    return mo.solve(problem, "linear", start=PLACED).to_dict()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "plan.txt"  # a name that says nothing
        path.write_bytes(content)
        return path

    return write


MAPS = {
    "sglang": ("sglang", SGLang().dump(PLACED, hidden_layers=5)),
    "sglang, bare": ("sglang", text({KEY: ROWS})),
    "eplb": ("eplb", Eplb().dump(PLACED)),
    "one array of an archive": ("eplb", zipped(**{KEY: ROWS})),
    "an array": ("eplb", saved(ROWS)),
    "lists": ("eplb", text(ROWS)),
    "arrays without the inverse map": (
        "eplb",
        zipped(**{KEY: ROWS, "expert_count": np.ones((3, 6), int), "layer_ids": [0, 1, 2]}),
    ),
    "lists by name": ("eplb", text({KEY: ROWS, "layer_ids": [0, 1, 2]})),
}


@pytest.mark.parametrize(("engine", "content"), MAPS.values(), ids=MAPS.keys())
def test_a_map_is_told_from_its_content(file: Callable[[bytes], Path], engine: str, content: bytes) -> None:
    found = mo.read_running(file(content), TRACE, gpus=2)
    assert (found.placement, found.source, found.duplicates) == (PLACED, f"map of {engine}", 0)
    some = mo.read_running(file(content), TRACE, gpus=2, nodes=2, layers=[1])
    assert some.placement.layer_ids == (1,)
    assert some.placement.nodes == 2
    assert (some.placement.hosts == PLACED.layer(1).hosts).all()
    assert set(some.left_out) >= {0, 2}
    with pytest.raises(ValueError, match=r"plan\.txt: a map of .* its 6 slots share a GPU: gpus is needed"):
        mo.read_running(file(content), TRACE)


def test_documents_carry_their_placement(file: Callable[[bytes], Path]) -> None:
    problem = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=2, slots=3))
    certificate = mo.certify(PLACED, TRACE, stop=mo.Stop(seconds=None)).certificate
    assert certificate is not None
    documents = (
        PLACED.to_dict(),
        problem.plan(PLACED).to_dict(),
        {"format": ALLOCATION, "version": 1, "placement": PLACED.to_dict()},
    )
    for document in documents:
        found = mo.read_running(file(text(document)), TRACE)
        assert (found.placement, found.source, found.left_out) == (PLACED, document["format"], ())
    for document in (certificate.to_dict(), result()):
        assert mo.read_running(file(text(document)), TRACE).source == document["format"]
    assert mo.read_running(file(text(PLACED.to_dict())), TRACE, gpus=2, nodes=1, layers=[2]).left_out == (
        0,
        1,
    )


def test_an_expert_twice_on_one_gpu_is_one_copy(file: Callable[[bytes], Path]) -> None:
    rows = [[0, 1, 2, 0, 3, 4, 5, 5], [0, 1, 2, 3, 0, 4, 5, 1], [0, 0, 0, 1, 2, 3, 4, 5]]
    found = mo.read_running(file(saved(rows)), TRACE, gpus=2)
    assert found.duplicates == 4
    assert found.placement.slots == 4
    assert found.placement.hosts.sum(axis=(1, 2)).tolist() == [6, 8, 6]
    twice = [[0, 0, 0], [0, 1, 5], [2, 0, 0], [2, 0, 0]]
    assert repeated(np.array(rows), gpus=2).tolist() == twice
    assert mo.read_running(file(saved(rows)), TRACE, gpus=2, layers=[1]).duplicates == 0


def test_slots_of_an_expert_may_be_listed_in_any_order(file: Callable[[bytes], Path]) -> None:
    slots_of = np.full((3, 6, 2), -1)
    slots_of[..., 0] = np.arange(6)
    slots_of[:, :2] = [[6, 0], [1, 7]]
    content = zipped(physical_to_logical_map=[[*range(6), 0, 1]] * 3, logical_to_physical_map=slots_of)
    assert mo.read_running(file(content), TRACE, gpus=2).placement.hosts[0, 0].tolist() == [True, True]


def test_layers_of_a_file_are_named_by_it_or_taken_in_order(file: Callable[[bytes], Path]) -> None:
    later = mo.Trace(TRACE.experts, 6, layer_ids=np.array([1, 2, 4], np.int32))
    assert mo.read_running(file(saved(ROWS)), later, gpus=2).placement.layer_ids == (1, 2, 4)
    hidden = mo.read_running(file(text({KEY: ROWS[:1] + ROWS[:2] + ROWS[:1] + ROWS[2:]})), later, gpus=2)
    assert hidden.left_out == (0, 3)
    assert (hidden.placement.hosts == PLACED.hosts).all()
    two = mo.read_running(file(saved(ROWS[:2])), later, gpus=2, layers=[1, 4])
    assert two.placement.layer_ids == (1, 4)
    assert [ranges([]), ranges([3]), ranges([0, 1, 2, 7, 9, 10])] == ["", "3", "0-2,7,9-10"]


WRONG: dict[str, tuple[bytes, str]] = {
    "empty": (
        b"",
        "content must be a placement document or the map of an engine .eplb, .*vllm-proposed-ranks., found b''",
    ),
    "cut off": (b'{"format": ', "not JSON"),
    "deep": (b"[" * 100_000, "content must be"),
    "no form": (b"{}", "content must be"),
    "unknown format": (
        text({"format": "moeopt-trace"}),
        "format must be one with a placement .*'moeopt-trace'",
    ),
    "format that is no name": (text({"format": [1]}), r"found \[1\]"),
    "later version": (
        text(PLACED.to_dict() | {"version": 2}),
        "version of moeopt-placement must be 1, found 2",
    ),
    "no placement": (
        text({"format": "moeopt-certificate", "version": 1, "placement": None}),
        "the moeopt-certificate carries no placement",
    ),
    "missing field": (text({"format": "moeopt-result", "version": 1}), "field 'placement' is missing"),
    "layers twice": (text(PLACED.to_dict() | {"layer_ids": [0, 1, 1]}), "layer ids must be distinct"),
    "other layers": (text(PLACED.to_dict() | {"layer_ids": [0, 1, 3]}), "layer 2 is not in the placement"),
    "too few layers": (
        text(PLACED.layer(0).to_dict()),
        "layer 1 is not in the placement, whose layers are 0",
    ),
    "too few rows": (saved(ROWS[:2]), "the map has 2 layers and no layer ids, the trace 3 .0-2."),
    "too many rows": (saved(ROWS + ROWS), "the map has 6 layers and no layer ids"),
    "too few hidden layers": (text({KEY: ROWS[:2]}), "layer 2 is not in the placement, whose layers are 0-1"),
    "another layer": (zipped(**{KEY: ROWS, "layer_ids": [0, 1, 5]}), "layer 2 is not in the placement"),
    "layer ids twice": (zipped(**{KEY: ROWS, "layer_ids": [0, 1, 1]}), r"distinct, found \[0, 1, 1\]"),
    "layer ids of other rows": (
        zipped(**{KEY: ROWS, "layer_ids": [0, 1]}),
        "3 layers need as many layer_ids",
    ),
    "missing expert": (saved([[0, 1, 2, 3, 4, 4]] * 3), "layer 0: expert 5 is on no GPU"),
    "other model": (saved([[*range(8)]] * 3), "the map has expert 7, those of the trace are 0..5"),
    "other counts": (
        zipped(**{KEY: ROWS, "expert_count": np.ones((3, 8), int)}),
        "expert_count does not belong",
    ),
    "counts of more experts": (
        zipped(**{KEY: ROWS, "expert_count": [[1] * 6 + [0]] * 3}),
        "the map has 7 experts a layer, the trace 6",
    ),
    "counts that are no table": (zipped(**{KEY: ROWS, "expert_count": [1] * 6}), r"found shape \(6,\)"),
    "experts beyond reason": (saved([[0, 1, 2, 3, 4, 1 << 40]] * 3), "out of range 0..1048575"),
    "slots that do not divide": (saved([[0, 1, 2, 3, 4, 5, 0]] * 3), "7 slots on 2 GPUs"),
    "unequal rows": (
        text({KEY: [ROWS[0], ROWS[1][:4], ROWS[2]]}),
        "all layers need 6 slots .* layer 1 has 4",
    ),
    "free slots": (saved([[0, 1, 2, 3, 4, -1]] * 3), "row 0, slot 5: expert -1 out of range"),
    "not whole": (saved(np.ones((3, 6))), "must hold whole numbers, found float64"),
    "not a table": (saved([0, 1, 2]), r"must be \[layers, slots\], found shape \(3,\)"),
    "other archive": (zipped(experts=ROWS), "content must be"),
    "cut array": (saved(ROWS)[:-8], "plan.txt: "),
    "cut archive": (Eplb().dump(PLACED)[:-40], "content must be"),
    "inverse that is none": (
        zipped(**{KEY: ROWS, "logical_to_physical_map": np.zeros((3, 6, 1), int)}),
        "logical_to_physical_map does not belong",
    ),
}


@pytest.mark.parametrize(("content", "rule"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(file: Callable[[bytes], Path], content: bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as refused:
        mo.read_running(file(content), TRACE, gpus=2)
    assert "plan.txt: " in str(refused.value)


def test_what_does_not_fit_is_refused(file: Callable[[bytes], Path], tmp_path: Path) -> None:
    path = file(text(PLACED.to_dict()))
    with pytest.raises(ValueError, match="gpus are 2 in the placement, asked for were 4"):
        mo.read_running(path, TRACE, gpus=4)
    with pytest.raises(ValueError, match="nodes are 1 in the placement, asked for were 2"):
        mo.read_running(path, TRACE, nodes=2)
    with pytest.raises(ValueError, match="layer 9 is not in the trace, whose layers are 0-2"):
        mo.read_running(path, TRACE, layers=[9])
    with pytest.raises(
        ValueError, match="the placement has layers 1-2, which the trace lacks: choose some of 0"
    ):
        mo.read_running(path, TRACE.layers([0]))
    other = mo.Trace(TRACE.experts, 7)
    with pytest.raises(ValueError, match="the placement has 6 experts a layer, the trace 7"):
        mo.read_running(path, other)
    with pytest.raises(ValueError, match="layer 0: expert 6 is on no GPU"):
        mo.read_running(file(saved(ROWS)), other, gpus=2)
    with pytest.raises(ValueError, match="a placement is a file, found a folder"):
        mo.read_running(tmp_path, TRACE)
    with pytest.raises(ValueError, match="absent: cannot be read: No such file"):
        mo.read_running(tmp_path / "absent", TRACE)


@settings(max_examples=60, deadline=None)
@given(which=st.sampled_from(sorted(MAPS)), at=st.integers(0, 3000), byte=st.integers(0, 255))
@example(which="an array", at=10, byte=0)  # the header's tokens end early
def test_no_damage_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, which: str, at: int, byte: int
) -> None:
    content = MAPS[which][1]
    at %= len(content)
    path = tmp_path_factory.mktemp("damaged") / "plan"
    for damaged in (content[:at], content[:at] + bytes([byte]) + content[at + 1 :]):
        path.write_bytes(damaged)
        with suppress(ValueError):
            mo.read_running(path, TRACE, gpus=2)
