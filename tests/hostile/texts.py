"""JSON, CSV and YAML that are long, deep or wide."""

from __future__ import annotations

from tests.hostile.cases import Folder
from tests.hostile.contents import DEEP, b64, encoded, header
from tests.hostile.tiny import GIVEN


def add_texts(folder: Folder) -> None:
    """All three."""
    for add in (_add_json, _add_csv, _add_yaml):
        add(folder)


def _add_json(folder: Folder) -> None:
    openings = {
        "pair counts": ("traffic", b'{"layers": 1, "heat": 1, "pairs": '),
        "workload": ("traffic", b'{"format": "moeopt-workload", "version": 1, "workload": '),
        "loads": ("traffic", b"[[1, "),
        "history": ("traffic", b'{"load_history": 1, "logical_expert_load": '),
        "answers": ("traffic", b'{"routed_experts": '),
        "routes": ("traffic", b'{"layer": 1, "expert": 1, "request": '),
        "moe-balance": ("traffic", b'{"batch_id": 1, "topk_experts": '),
        "manifest": ("traffic", b'{"file": '),
        "addition": ("addition", b'{"request": '),
        "document": ("running", b'{"format": '),
        "map": ("running", b'{"physical_to_logical_map": '),
        "plan": ("running", b'{"moeopt_vllm_plan": '),
        "placement": ("placement", b"{"),
        "certificate": ("certificate", b'{"format": 1, "x": '),
        "instance": ("instance", b'{"format": 1, "x": '),
    }
    for name, (by, opening) in openings.items():
        given = {"gpus": 2} if by == "running" else {}
        folder.add(f"{name}: 10^6 brackets", by, opening + b"[" * DEEP, given)
        folder.add(f"{name}: 10^6 objects in one another", by, opening + b'{"a":' * DEEP, given)
        folder.add(f"{name}: a number of 5 x 10^6 digits", by, opening + b"9" * (5 * DEEP) + b"}", given)
        folder.add(f"{name}: a text of 8 MiB", by, opening + b'"' + b"a" * (8 << 20) + b'"}', given)
    folder.add(
        "answers: base64 of 8 MiB",
        "traffic",
        encoded({"choices": [{"routed_experts": "A" * (8 << 20)}]}),
        GIVEN,
    )
    lying = b64(header(f"({1 << 40}, 2, 2)", "'|u1'"))
    folder.add(
        "answers: base64 of 2^40 tokens", "traffic", encoded({"choices": [{"routed_experts": lying}]}), GIVEN
    )
    for keys in (1, 2):
        same = b'{"physical_to_logical_map": [[0]], ' + b'"a": 1, ' * DEEP + b'"b": 2}'
        folder.add(f"map: 10^6 equal keys, {keys}", "running", same, {"gpus": keys})


def _add_csv(folder: Folder) -> None:
    folder.add(
        "routes, CSV: a field of 50 MB",
        "traffic",
        b"request,position,layer,expert\n" + b"1" * 50_000_000,
        GIVEN,
    )
    folder.add(
        "routes, CSV: a quoted field of 10 MB", "traffic", b'layer,expert\n"' + b"1\n" * 5_000_000, GIVEN
    )
    folder.add(
        "routes, CSV: 10^6 columns", "traffic", b"layer,expert," + b"a," * DEEP + b"b\n" + b"1," * DEEP, GIVEN
    )
    folder.add(
        "routes, CSV: 10^5 expert columns",
        "traffic",
        b"layer,position," + b",".join(b"e%d" % i for i in range(99_999)) + b"\n",
        GIVEN,
    )
    folder.add(
        "routes, CSV: 3 x 10^6 empty lines", "traffic", b"layer,position,expert\n" + b"\n" * 3 * DEEP, GIVEN
    )
    folder.add("manifest, CSV: a field of 50 MB", "traffic", b"file,family\nx," + b"a" * 50_000_000)
    folder.add("manifest, CSV: 10^6 columns", "traffic", b"file," + b"family," * DEEP + b"\n")
    folder.add("manifest, CSV: 10^6 files", "traffic", b"file\n" + b"a\n" * DEEP)
    folder.add("addition: 250,000 requests", "addition", b"request,family\n" + b"5,x\n" * (DEEP // 4))


def _add_yaml(folder: Folder) -> None:
    head = b"num_slots: 2\ninitial_global_assignments:\n"
    aliases = b"a0: &a0 [x, x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (i + 1, i + 1, b", ".join([b"*a%d" % i] * 9)) for i in range(20)
    )
    yaml = {
        "aliases of 9^20": aliases + head + b"  0: *a20\n",
        "aliases in the layers": head + b"  0: &a [0, 1]\n  1: *a\n",
        "10^6 brackets": head + b"  0: " + b"[" * DEEP,
        "10^6 spaces": head + b" " * DEEP + b"0: [0, 1]x",
        "10^6 dashes": head + b"  0:\n" + b"  - 0\n" * DEEP + b"  - x\n",
        "10^6 empty lines": head + b"\n" * DEEP + b"x",
        "250,000 layers": head + b"".join(b"  %d: [0]\n" % i for i in range(DEEP // 4)),
        "10^6 comments": head + b"# x\n" * DEEP + b"x",
        "spaces and lines in turn": head + b"  \n" * DEEP + b"  0: [0, 1",
    }
    for name, content in yaml.items():
        folder.add(f"YAML: {name}", "running", content, {"gpus": 2})
