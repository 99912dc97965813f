"""Tables of routes: CSV, JSONL, or one array a column; a row a token, a token and layer, or a single expert."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt import array_files
from moeopt import route_columns as columns
from moeopt.arrow_files import json_table, translated
from moeopt.route_rows import Routes, routed_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace

START = 1 << 16  # bytes in which a header or the first object ends
FIRST = 1 << 22  # bytes of the longest header or first object that is read
COLUMNS = 1 << 14  # above which a table is none of routes; each costs Arrow some kilobytes
KEYS = ("request", "position", "phase", "family")


@dataclass(frozen=True)
class RouteTable:
    """Reader of tables in any of three shapes, as CSV with a header, or as JSONL with an object in every line.

    | column | holds |
    |---|---|
    | request, request_id, sequence, sequence_id | request, 0 without it; names become 0, 1, ... as they come |
    | position, token, token_index, step | place of the token in its request |
    | phase | prefill, prompt or 0; decode, generation or 1; prefill where it is left out |
    | family, task | task family, "all" where it is left out |
    | layer, layer_id, layer_index | absolute id |
    | expert, expert_id | one expert: a row a token, layer and slot |
    | slot | which of the k experts; counted in order of the rows where it is left out |
    | experts, expert_ids, topk_ids | the k experts: a list in JSON, text such as `3 7` or `[3, 7]` in CSV |
    | e0, e1, ... or expert_0, expert_1, ... | the k experts, a column each |
    | layer_<id> | the k experts of that layer, as `experts`: a row a token |

    Names are understood in upper and lower case. Columns of weights (weight, gate, score, probability, their plurals,
    w0, w1, ...) are not read; others are refused. JSONL may also hold `experts` as a list of lists, one a MoE layer: a
    row a token. Where rows are tokens, `position` may be left out and counts the rows of a request.

    As an `.npz` archive: integers [rows] under the same names, a row an expert, and `n_experts` where it is known.
    Routes of engines made from llama.cpp have the columns phase, step, layer, slot, expert (Helldez/BigMoeOnEdge
    2d4f2b1). They compute the last layer of a prompt for its last token only: leave that layer out by `layer_ids`.

    Every token must be in every layer once and with the same k. The user says how many experts a layer has where the
    file does not. `limit` bounds the size of the file, or the uncompressed size of the arrays, in bytes; reading takes
    about ten times as much memory.
    """

    limit: int = 2**31

    name: ClassVar[str] = "route-table"

    def accepts(self, path: Path, head: bytes) -> bool:
        if not head:
            return False
        if head.startswith(array_files.ZIP):
            return {"layer", "expert"} <= {name.lower() for name in array_files.member_names(path)}
        try:
            names, nested = _first(path, START)
        except (ValueError, OSError, RecursionError):
            return False
        held = {columns.known_meaning(name) for name in names}
        if held & {"expert", "experts", "e0"}:
            return "layer" in held or nested
        return any(name.startswith("layer_") for name in held) and bool(held & set(KEYS))

    def read(self, path: Path, supplement: Supplement) -> Trace:
        with path.open("rb") as file:
            archive = file.read(4) == array_files.ZIP
        if archive:
            return self._archived(path, supplement)
        if (size := path.stat().st_size) > self.limit:
            raise ValueError(f"a table of routes may have {self.limit} bytes, found {size}")
        names, nested = _first(path, FIRST)
        if len(names) > COLUMNS:
            raise ValueError(f"a table of routes may have {COLUMNS} columns, found {len(names)}")
        meaning = columns.meanings(names)
        if isinstance(names, list):
            found = _csv(path, names, meaning)
        else:
            table = json_table(path, names)
            found = {meaning[name]: table.column(name) for name in meaning}
        return _trace(found, supplement, nested=nested)

    def _archived(self, path: Path, supplement: Supplement) -> Trace:
        names = array_files.member_names(path)
        meaning = columns.meanings(sorted(names - {"n_experts"}))
        arrays = array_files.read_npz(path, [*meaning, "n_experts"], limit=self.limit)
        held = {held: array_files.integers(name, arrays[name], axes=1) for name, held in meaning.items()}
        if len(sizes := {array.size for array in held.values()}) > 1:
            raise ValueError(f"columns must be of one length, found {sorted(sizes)}")
        _needs(held, "expert", "layer", "position")
        experts = None
        if "n_experts" in arrays:
            experts = int(array_files.integers("n_experts", arrays["n_experts"].reshape(-1), axes=1)[0])
        return routed_trace(_numbered(held), supplement, n_experts=experts)


def _first(path: Path, most: int) -> tuple[Mapping[str, Any] | list[str], bool]:
    """The first object of JSONL or the names in a CSV header, and whether `experts` is a list of lists."""
    with path.open("rb") as file:
        line = file.readline(most).decode("utf-8-sig").strip()
    if not line.startswith("{"):
        try:
            return next(csv.reader([line], strict=True), []), False
        except csv.Error as error:
            raise ValueError(f"line 1: {error}") from error
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line 1: not JSON: {error}") from error
    lists = [value for name, value in document.items() if columns.known_meaning(name) == "experts"]
    return document, any(isinstance(value, list) and value and isinstance(value[0], list) for value in lists)


def _csv(path: Path, names: list[str], meaning: dict[str, str]) -> dict[str, Any]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    kinds = {}
    for name, held in meaning.items():
        if held in ("request", "phase", "family"):
            kinds[name] = pa.dictionary(pa.int32(), pa.string())
        elif held == "experts" or held.startswith("layer_"):
            kinds[name] = pa.string()
        else:
            kinds[name] = pa.int64()
    with translated("CSV"):
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
            convert_options=arrow_csv.ConvertOptions(column_types=kinds, include_columns=list(meaning)),
        )
    return {held: table.column(name) for name, held in meaning.items()}


def _trace(found: dict[str, Any], supplement: Supplement, *, nested: bool) -> Trace:
    if not found or len(next(iter(found.values()))) == 0:
        raise ValueError("empty trace: the table has no rows")
    if len(shapes := sorted({_shape(name) for name in found} - {""})) != 1:
        raise ValueError(
            f"a table holds one kind of columns of experts, found {' and '.join(shapes) or 'none'}"
        )
    if nested and "layer" in found:
        raise ValueError(
            "lists of lists are the experts of all layers in a row, found the column layer besides"
        )
    keys = _keys(found)
    if any(name.startswith("layer_") for name in found) or nested:
        return routed_trace(_of_tokens(found, keys, supplement, nested=nested), supplement)
    _needs(found, "layer", "position")
    keys["layer"] = columns.numbers("layer", found["layer"])
    if "expert" in found:
        keys["expert"] = columns.numbers("expert", found["expert"])
        if "slot" in found:
            keys["slot"] = columns.numbers("slot", found["slot"])
        return routed_trace(_numbered(keys), supplement)
    return routed_trace(_numbered(keys, experts=_experts(found)), supplement)


def _shape(name: str) -> str:
    """The kind of a column of experts; "" of others."""
    if name in ("expert", "experts"):
        return name
    if name[1:].isdecimal():
        return "e<i>"
    return "layer_<id>" if name.startswith("layer_") else ""


def _keys(found: dict[str, Any]) -> dict[str, Any]:
    """Arrays of the columns that name tokens; `families` besides where there are any."""
    keys: dict[str, Any] = {}
    if "request" in found:
        keys["request"] = columns.requests(found["request"])
    if "position" in found:
        keys["position"] = columns.numbers("position", found["position"])
    if "phase" in found:
        keys["phase"] = columns.phases(found["phase"])
    if "family" in found:
        keys["family"], keys["families"] = columns.texts("family", found["family"])
    return keys


def _numbered(keys: dict[str, Any], *, experts: NDArray[Any] | None = None) -> Routes:
    """Rows with what is left out of the keys."""
    rows = len(keys["layer"])
    none = np.zeros(rows, np.uint8)
    slot = keys.get("slot")
    if experts is None and slot is None:
        slot = np.arange(rows)
    return Routes(
        keys.get("request", none),
        keys["position"],
        keys["layer"],
        keys["expert"] if experts is None else experts,
        keys.get("phase", none),
        keys.get("family", none),
        tuple(keys.get("families", ("all",))),
        slot,
    )


def _experts(found: dict[str, Any]) -> NDArray[np.int64]:
    """int64 [rows, k], out of a column of lists or k columns."""
    if "experts" in found:
        return columns.lists("experts", found["experts"])
    count = sum(name[1:].isdecimal() for name in found if name.startswith("e"))
    _needs(found, *(f"e{index}" for index in range(max(count, 1))))
    return np.stack([columns.numbers(f"e{index}", found[f"e{index}"]) for index in range(count)], axis=1)


def _of_tokens(
    found: dict[str, Any], keys: dict[str, Any], supplement: Supplement, *, nested: bool
) -> Routes:
    """Rows of tokens and layers, out of rows of tokens."""
    if nested:
        by_layer = columns.nested_lists("experts", found["experts"])
        layers = np.array(supplement.named_layers(by_layer.shape[1]))
    else:
        layers = np.sort([int(name[6:]) for name in found if name.startswith("layer_")])
        parts = [columns.lists(f"layer_{layer}", found[f"layer_{layer}"]) for layer in layers]
        if len({part.shape[1] for part in parts}) > 1:
            raise ValueError(
                f"layers must hold equally many experts, found {[part.shape[1] for part in parts]}"
            )
        by_layer = np.stack(parts, axis=1)
    tokens = len(by_layer)
    if "position" not in keys:
        keys["position"] = _counted(keys.get("request", np.zeros(tokens, np.int64)))
    spread = {name: np.repeat(keys[name], len(layers)) for name in KEYS if name in keys}
    spread["layer"] = np.tile(layers, tokens)
    return _numbered(keys | spread, experts=by_layer.reshape(tokens * len(layers), -1))


def _counted(request: NDArray[Any]) -> NDArray[np.int64]:
    """int64 [tokens]: how many earlier rows are of the same request."""
    order = np.argsort(request, kind="stable")
    starts = np.flatnonzero(np.diff(request[order], prepend=-1))
    counted = np.empty(len(request), np.int64)
    counted[order] = np.arange(len(request)) - np.repeat(starts, np.diff(starts, append=len(request)))
    return counted


def _needs(found: dict[str, Any], *names: str) -> None:
    for name in names:
        if name not in found:
            known = columns.NAMES.get(name, (name,))
            raise ValueError(f"column {' or '.join(known)} is missing, found {', '.join(sorted(found))}")
