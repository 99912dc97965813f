"""Tables of routes: every shape gives the same trace, and every token must be in every layer once."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.readers.moe_balance import MoeBalance
from moeopt.readers.route_table import RouteTable
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from tests.strategies import same, traces

TRACES = Path(os.environ.get("MOEOPT_TRACES", Path(__file__).parents[3] / "shared" / "data"))
ROUTES = TRACES / "qwen3_30b_a3b_routes_both_phases.npz"
SAID = Supplement(n_experts=4)
Rows = list[dict[str, Any]]


def read(path: Path, supplement: Supplement = SAID) -> Trace:
    head = path.read_bytes()[:64]
    (reader,) = (one for one in (RouteTable(), MoeBalance()) if one.accepts(path, head))
    return reader.read(path, supplement)


def saved(folder: Path, content: str | bytes | Rows, *, name: str = "table") -> Path:
    path = folder / name
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_csv(rows: Rows) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def tokens(trace: Trace) -> Rows:
    """The columns of every token."""
    return [
        {
            "request": int(trace.request[i]),
            "position": int(trace.position[i]),
            "phase": ("prefill", "decode")[trace.phase[i]],
            "family": trace.families[trace.family[i]],
        }
        for i in range(trace.n_tokens)
    ]


def of_layers(trace: Trace, row: Callable[[int, int], dict[str, Any]]) -> Rows:
    return [
        token | {"layer": int(layer)} | row(i, index)
        for i, token in enumerate(tokens(trace))
        for index, layer in enumerate(trace.layer_ids)
    ]


def shapes(trace: Trace) -> dict[str, str | Rows]:
    """The trace as a table in every shape that is understood."""
    long = [
        row | {"slot": slot, "expert": int(expert)}
        for row in of_layers(trace, lambda i, layer: {"_": trace.experts[i, layer]})
        for slot, expert in enumerate(row["_"])
    ]
    long = [{name: value for name, value in row.items() if name != "_"} for row in long]
    listed = of_layers(trace, lambda i, layer: {"experts": trace.experts[i, layer].tolist()})
    spread = of_layers(
        trace, lambda i, layer: {f"e{slot}": int(e) for slot, e in enumerate(trace.experts[i, layer])}
    )
    by_layer = [
        token
        | {f"layer_{layer}": trace.experts[i, index].tolist() for index, layer in enumerate(trace.layer_ids)}
        for i, token in enumerate(tokens(trace))
    ]
    nested = [token | {"experts": trace.experts[i].tolist()} for i, token in enumerate(tokens(trace))]
    spaced = [row | {"experts": " ".join(map(str, row["experts"]))} for row in listed]
    return {
        "long csv": as_csv(long),
        "long jsonl": long,
        "list csv": as_csv(listed),
        "list jsonl": listed,
        "spaced csv": as_csv(spaced),
        "columns csv": as_csv(spread),
        "columns jsonl": spread,
        "tokens csv": as_csv(by_layer),
        "tokens jsonl": by_layer,
        "nested jsonl": nested,
    }


def tidy(trace: Trace) -> Trace:
    """A trace as tables hold one: a token a request and position, families in order of appearance, no model."""
    _, first = np.unique(trace.request.astype(np.int64) * 1_000 + trace.position, return_index=True)
    trace = trace.take(first)
    names = [trace.families[index] for index in dict.fromkeys(trace.family.tolist())]
    index = [names.index(trace.families[number]) for number in trace.family]
    return Trace(**{**vars(trace), "families": tuple(names), "family": np.array(index), "model": ""})


@settings(max_examples=25, deadline=None)
@given(trace=traces(max_tokens=12), seed=st.integers(0, 2**32 - 1))
def test_every_shape_gives_the_trace_whatever_the_order_of_its_rows(
    trace: Trace, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trace = tidy(trace)
    folder = tmp_path_factory.getbasetemp()
    said = Supplement(n_experts=trace.n_experts, layer_ids=tuple(trace.layer_ids.tolist()))
    for shape, content in shapes(trace).items():
        assert same(read(saved(folder, content), said), trace), shape
    rows = shapes(trace)["list jsonl"]
    assert isinstance(rows, list)
    np.random.default_rng(seed).shuffle(rows)
    shuffled = read(saved(folder, rows), said)
    assert np.array_equal(shuffled.experts, trace.experts)
    assert [shuffled.families[i] for i in shuffled.family] == [trace.families[i] for i in trace.family]


def test_what_is_left_out_is_one_request_of_prefill(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, "Step,LAYER,Experts\n0,3,2 1\n0,5,0 1\n1,3,3 0\n1,5,1 2\n"))
    assert trace.experts.tolist() == [[[2, 1], [0, 1]], [[3, 0], [1, 2]]]
    assert (trace.layer_ids.tolist(), trace.families, trace.model) == ([3, 5], ("all",), "")
    assert not trace.request.any()
    assert not trace.phase.any()
    assert trace.position.tolist() == [0, 1]


def test_rows_of_tokens_may_leave_the_position_to_their_order(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, 'request,layer_7\nb,"[2, 1]"\na,0 1\nb,3|0\n'))
    assert trace.request.tolist() == [0, 0, 1], "names are numbered in order of first appearance"
    assert trace.position.tolist() == [0, 1, 0]
    assert trace.experts[:, 0].tolist() == [[2, 1], [3, 0], [0, 1]]


def test_weights_are_not_read(tmp_path: Path) -> None:
    rows = [{"position": 0, "layer": 0, "experts": [1, 2], "weights": [0.5, 0.25]}]
    assert read(saved(tmp_path, rows)).experts.tolist() == [[[1, 2]]]
    assert read(saved(tmp_path, "position,layer,e0,e1,w0,w1\n0,0,1,2,.5,\n")).experts.tolist() == [[[1, 2]]]


def test_without_slots_the_order_of_the_rows_is_the_order_of_the_experts(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, "position,layer,expert\n0,0,3\n1,0,2\n0,0,1\n1,0,0\n"))
    assert trace.experts.tolist() == [[[3, 1]], [[2, 0]]]


TABLE = "position,layer,e0,e1\n0,3,0,1\n0,5,2,1\n1,3,3,0\n1,5,0,2\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE.replace("1,3,3,0\n", ""), "request 0, position 1: layer 3 is missing, .* all 2 layers"),
        (TABLE.replace("0,3,0,1\n", ""), "request 0, position 0: layer 3 is missing"),
        (TABLE.replace("1,5,0,2\n", ""), "request 0, position 1: layer 5 is missing"),
        (TABLE + "0,5,1,2\n", "request 0, position 0, layer 5 is there twice"),
        (TABLE.replace("3,0\n", "4,0\n"), "n_experts is 4, found expert 4"),
        (TABLE.replace("3,0\n", "-1,0\n"), "expert id -1 out of range"),
        (TABLE.replace("3,0\n", "3,3\n"), r"expert repeated within token 1, layer index 0: \[3, 3\]"),
        (TABLE.replace("3,0\n", "3,\n"), "column 'e1' must have no empty cells, found 1"),
        (TABLE.replace("3,0\n", "3,x\n"), "not CSV of one kind: .*conversion error to int64"),
        (TABLE.replace("3,0\n", "3\n"), "not CSV of one kind: .*Expected 4 columns, got 3"),
        (TABLE.replace("3,0\n", "3,99999999999999999999\n"), "not CSV of one kind"),
        (TABLE.replace("e1", "e2"), "column e1 is missing, found e0, e2, layer, position"),
        (
            TABLE.replace("position", "place"),
            "column 'place' is unknown; known are request, .*, layer_<id>, and",
        ),
        (TABLE.replace("position", "request"), "column position or token or token_index or step is missing"),
        (TABLE.replace("e1", "step"), "columns 'position' and 'step' both hold position"),
        (TABLE.replace("e1", "expert"), "one kind of columns of experts, found e<i> and expert"),
        (TABLE.partition("\n")[0] + "\n", "empty trace: the table has no rows"),
        (
            "position,layer,experts\n0,0,1 2\n1,0,3\n",
            "column 'experts': row 1 has 1 experts, the first row has 2",
        ),
        ("position,layer,experts\n0,0,1 x\n", "column 'experts' must hold integers"),
        ("position,layer,experts\n0,0,\n", "column 'experts' must hold integers"),
        ("position,layer,phase,experts\n0,0,warm,1\n", "phase must be one of prefill, .* found 'warm'"),
        ("position,layer,family,experts\n0,0,,1\n", "column 'family' must have no empty cells"),
        ("position,layer,slot,expert\n0,0,0,1\n0,0,0,2\n", "position 0, layer 0: slot 0 is there twice"),
        (
            "position,layer,slot,expert\n0,0,0,1\n0,0,1,2\n1,0,0,1\n2,0,0,1\n2,0,1,3\n",
            "request 0, position 1, layer 0: 1 experts, other rows have 2",
        ),
        (
            "position,layer,family,experts\n0,0,a,1\n0,1,b,1\n",
            "position 0, layer 1: family is another than in the token's other layers",
        ),
        ("request,layer_0,layer_2\n0,1 2,3\n", r"layers must hold equally many experts, found \[2, 1\]"),
        (
            [{"position": 0, "layer": 0, "experts": [1]}, {"position": 1, "layer": 0}],
            "no empty cells, found 1",
        ),
        ([{"position": 0, "layer": 0, "experts": [1]}, {"position": "1"}], "not JSONL of one kind"),
        (
            [{"position": 0, "layer": 0, "experts": [1]}, {"pos": 1}],
            "not JSONL of one kind: .*unexpected field",
        ),
        ([{"position": 0, "layer": 0, "experts": 1}], "column 'experts' must hold lists, found int64"),
        ([{"position": 0, "layer": 0, "experts": [1.5]}], "column 'experts' must hold integers"),
        ([{"position": 0, "layer": 0.5, "experts": [1]}], "column 'layer' must hold integers, found float64"),
        (
            [{"position": "a", "layer": 0, "experts": [1]}],
            "column 'position' must hold integers, found object",
        ),
        ([{"request": 0, "layer_3": 1}], "column 'layer_3' must hold lists, found int64"),
        ([{"request": [0], "layer_3": [1]}], "column 'request' must hold text or integers, found list"),
        ([{"position": 0, "experts": [[[1]]]}], "column 'experts' must hold integers"),
        ([{"position": 0, "layer": 0, "experts": []}], "field 'experts' must hold numbers, text or lists"),
        ([{"position": 0, "layer": 0, "experts": [1, None]}], "column 'experts' must have no empty cells"),
        ([{"position": 0, "layer": None, "experts": [1]}], "field 'layer' must hold numbers, text or lists"),
        (
            [{"position": 0, "layer": 0, "experts": [[1]]}],
            "experts of all layers in a row, found the column layer",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(tmp_path: Path, content: str | Rows, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(saved(tmp_path, content))


@pytest.mark.parametrize(
    ("supplement", "message"),
    [
        (Supplement(), r"ids reach 3: give n_experts \(moeopt convert --experts\)"),
        (Supplement(4, (3, 4)), r"layer 4 is not in the recording, whose layers are \[3, 5\]"),
        (Supplement(4, top_k=3), "top_k is given as 3, the recording says 2"),
    ],
)
def test_what_the_user_says_must_fit(tmp_path: Path, supplement: Supplement, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(saved(tmp_path, TABLE), supplement)


def test_a_dense_layer_is_never_expert_0(tmp_path: Path) -> None:
    path = saved(tmp_path, TABLE + "0,0,0,0\n1,0,0,0\n")
    with pytest.raises(ValueError, match="layer 0 holds expert 0 2 times in every token: it is dense"):
        read(path)
    assert read(path, Supplement(4, (3, 5))).layer_ids.tolist() == [3, 5]


def test_only_the_layers_asked_for_must_be_whole(tmp_path: Path) -> None:
    """Engines made from llama.cpp compute the last layer of a prompt for its last token only."""
    path = saved(tmp_path, TABLE.replace("0,5,2,1\n", ""))
    with pytest.raises(ValueError, match=r"layer 5 is missing, .*left out by layer_ids \(--moe-layers\)"):
        read(path)
    assert read(path, Supplement(4, (3,))).n_tokens == 2


def test_the_routes_of_llama_cpp_as_an_archive(tmp_path: Path) -> None:
    long: dict[str, Any] = {
        "phase": np.array([0, 0, 1, 1], np.uint8),
        "step": np.array([0, 0, 1, 1], np.int16),
        "layer": np.zeros(4, np.uint8),
        "slot": np.array([1, 0, 0, 1], np.uint8),
        "expert": np.array([3, 1, 2, 0], np.uint8),
        "n_experts": np.array(4),
    }
    path = tmp_path / "routes.npz"
    np.savez(path, **long)
    trace = read(path, Supplement())
    assert trace.experts.tolist() == [[[1, 3]], [[2, 0]]]
    assert (trace.phase.tolist(), trace.n_experts) == ([0, 1], 4)
    with pytest.raises(ValueError, match="n_experts is given as 5, the recording says 4"):
        read(path, Supplement(5))
    with pytest.raises(ValueError, match=r"must unpack to at most 600 bytes, found \d+"):
        RouteTable(limit=600).read(path, Supplement())
    for name, array, message in (
        ("slot", long["slot"][:3], "columns must be of one length"),
        ("slot", long["slot"] * 1.0, "array 'slot' must be integers with 1 axes, found float64"),
        ("kind", long["slot"], "column 'kind' is unknown"),
        ("slot", long["slot"].astype(object), "not pickled"),
    ):
        np.savez(path, **(long | {name: array}))
        with pytest.raises(ValueError, match=message):
            read(path, Supplement())


@pytest.mark.skipif(not ROUTES.exists(), reason=f"{ROUTES.name} is not here")
def test_the_routes_of_qwen3_lack_the_last_layer_of_the_prompt() -> None:
    with pytest.raises(ValueError, match="request 0, position 0: layer 47 is missing"):
        read(ROUTES, Supplement())
    trace = read(ROUTES, Supplement(layer_ids=tuple(range(47))))
    assert (trace.n_tokens, trace.n_layers, trace.top_k, trace.n_experts) == (156, 47, 6, 128)
    assert (trace.phase == 0).sum() == 28


def test_files_past_the_limit_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, TABLE)
    with pytest.raises(ValueError, match=f"may have 10 bytes, found {len(TABLE)}"):
        RouteTable(limit=10).read(path, SAID)


def test_a_table_cut_anywhere_is_refused_or_shorter(tmp_path: Path) -> None:
    path = saved(tmp_path, TABLE)
    whole = read(path)
    for length in range(len(TABLE)):
        path.write_text(TABLE[:length])
        if not RouteTable().accepts(path, TABLE[:length].encode()[:64]):
            continue
        try:
            found = RouteTable().read(path, SAID)
        except ValueError:
            continue
        assert np.array_equal(found.experts, whole.experts[: found.n_tokens, : found.n_layers])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        b"PAR1",
        b"request,family\n1,a\n",
        b"file,family\na,b\n",
        b'{"layers": [], "heat": 1, "pairs": 2}',
        b'{"layer_0": [1, 2]}',
        b'{"position": 0, "layer": 0}',
        b'{"experts": [1, 2]}',
        b"[" * 99_999,
        b'{"a": ' + b"[" * 99_999,
        b"PK\x03\x04 damaged",
        b'"',
    ],
)
def test_what_is_no_table_of_routes_is_left_to_other_readers(tmp_path: Path, content: bytes) -> None:
    path = saved(tmp_path, content)
    assert not RouteTable().accepts(path, content[:64])
    assert not MoeBalance().accepts(path, content[:64])
    assert not RouteTable().accepts(tmp_path, b"")


def batches(**changes: Any) -> Rows:
    """Two requests of moe-balance in two layers, of 2 and 1 tokens; the second line with changes."""
    rows: Rows = [
        {"layer": 3, "batch_id": 12, "origin_rows": [0, 1], "topk_experts": [[0, 1], [2, 3]]},
        {"layer": 4, "batch_id": 12, "origin_rows": [0, 1], "topk_experts": [[1, 0], [3, 1]]},
        {"layer": 3, "batch_id": 5, "origin_rows": [0], "topk_experts": [[2, 0]]},
        {"layer": 4, "batch_id": 5, "origin_rows": [0], "topk_experts": [[0, 2]]},
    ]
    rows[1] |= changes
    return rows


def test_lines_of_moe_balance_are_layers_of_batches(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, batches()))
    assert trace.request.tolist() == [5, 12, 12]
    assert trace.position.tolist() == [0, 0, 1]
    assert trace.experts.tolist() == [[[2, 0], [0, 2]], [[0, 1], [1, 0]], [[2, 3], [3, 1]]]
    assert trace.layer_ids.tolist() == [3, 4]
    dense = [
        row | {"layer": 0, "topk_experts": [[0, 0] for _ in row["topk_experts"]]} for row in batches()[::2]
    ]
    with pytest.raises(ValueError, match="layer 0 holds expert 0 2 times in every token: it is dense"):
        read(saved(tmp_path, batches() + dense))
    assert same(read(saved(tmp_path, batches() + dense), Supplement(4, (3, 4))), trace)
    named = [row | {"request_id": f"r{row['batch_id']}", "source_file": "x.npz"} for row in batches()]
    assert read(saved(tmp_path, named)).request.tolist() == [0, 0, 1], "names are numbered as they come"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topk_experts": [[1, 0]], "origin_rows": [0]}, "request 12, position 1: layer 4 is missing"),
        ({"origin_rows": [0]}, "line 2: 1 origin_rows for 2 tokens"),
        ({"topk_experts": [[1, 0], [3]]}, "row 1|row 3 has 1 experts"),
        ({"layer": 3}, "request 12, position 0, layer 3 is there twice"),
        ({"origin_rows": None}, "column 'origin_rows' must have no empty cells"),
        ({"topk_experts": None}, "column 'topk_experts' must have no empty cells"),
        ({"layer": 2.5}, "not JSONL of one kind"),
        ({"weight": 1}, "not JSONL of one kind: .*unexpected field"),
    ],
)
def test_lines_of_moe_balance_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(saved(tmp_path, batches(**changes)))


def test_a_line_of_moe_balance_needs_its_fields(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="field 'topk_experts' is missing"):
        read(saved(tmp_path, [{"layer": 0, "batch_id": 1, "origin_rows": [0]}]))
    with pytest.raises(ValueError, match="field 'kind' is none of layer, batch_id"):
        read(saved(tmp_path, [row | {"kind": 1} for row in batches()]))
    with pytest.raises(ValueError, match="may have 10 bytes"):
        MoeBalance(limit=10).read(saved(tmp_path, batches()), SAID)


def test_an_archive_of_moe_balance_is_one_request_with_its_prompt(tmp_path: Path) -> None:
    rows = np.array([[[0, 0], [1, 2]], [[0, 0], [3, 2]], [[0, 0], [0, 2]]])
    arrays: dict[str, Any] = {
        "request_id": np.array(7),
        "prompt_token_ids": np.array([10, 11]),
        "output_token_ids": np.array([12, 13]),
        "routed_experts": rows,
    }
    path = tmp_path / "request.npz"
    np.savez(path, **arrays)
    trace = read(path, Supplement(4, (1,)))
    assert np.array_equal(trace.experts, rows[:, 1:])
    assert trace.phase.tolist() == [0, 0, 1], "the last token is never forwarded"
    with pytest.raises(ValueError, match=r"a row for each of the 2 hidden layers"):
        read(path)
    np.savez(path, **(arrays | {"output_token_ids": np.array([], int)}))
    with pytest.raises(ValueError, match="3 rows for a prompt of 2 and 0 generated tokens"):
        read(path, Supplement(4, (1,)))
    np.savez(path, **(arrays | {"routed_experts": np.array({"rows": 1})}))
    with pytest.raises(ValueError, match="must hold numbers or text, not pickled"):
        read(path, Supplement(4, (1,)))
