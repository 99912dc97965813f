"""Routes as moe-balance keeps them: JSONL with a line a layer and batch, or an archive a request."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from moeopt import array_files
from moeopt import route_columns as columns
from moeopt.arrow_files import json_table
from moeopt.readers.routed_experts import RoutedRequest, trace_of
from moeopt.route_rows import Routes, routed_trace
from moeopt.storage import has_field
from moeopt.supplement import Supplement
from moeopt.trace import Trace

START = 1 << 16  # bytes in which the first line names its layer and batch
FIELDS = ("layer", "batch_id", "origin_rows", "topk_experts", "topk_weights", "request_id", "source_file")


@dataclass(frozen=True)
class MoeBalance:
    """Reader of both files of johanna-rock/moe-balance (feb96fe1, `sim/trace_format.md`), which records SGLang.

    | field of a line | holds |
    |---|---|
    | layer | absolute id; all hidden layers are written, dense ones zero-filled |
    | batch_id, request_id | the request: request_id where it is there; names become 0, 1, ... as they come |
    | topk_experts | lists [tokens][k], in order of the tokens of the request |
    | origin_rows, topk_weights, source_file | not read |

    | array of an archive | holds |
    |---|---|
    | routed_experts | integers [tokens, all hidden layers, k] |
    | prompt_token_ids, output_token_ids | [tokens]: only their lengths are read; prefill ends with the prompt |
    | request_id | not read: the file is request 0 |

    Lines do not say where a prompt ends: every token of JSONL is prefill, unless a manifest says it. The user gives the
    experts of a layer, and the MoE layers where there are dense ones. Pickled arrays are refused.
    `limit` bounds the size of the JSONL, or the uncompressed size of the arrays, in bytes.
    """

    limit: int = 2**31

    name: ClassVar[str] = "moe-balance"

    def accepts(self, path: Path, head: bytes) -> bool:
        if head.startswith(array_files.ZIP):
            return "routed_experts" in array_files.member_names(path)
        if not head.lstrip().startswith(b"{"):
            return False
        with path.open("rb") as file:
            start = file.read(START).lstrip().partition(b"\n")[0]
        rows = ("topk_experts", "origin_rows")
        return has_field(start, "batch_id") and any(has_field(start, name) for name in rows)

    def read(self, path: Path, supplement: Supplement) -> Trace:
        with path.open("rb") as file:
            if file.read(4) == array_files.ZIP:
                return self._archived(path, supplement)
            if (size := path.stat().st_size) > self.limit:
                raise ValueError(f"a file of routes may have {self.limit} bytes, found {size}")
            file.seek(0)
            line = file.readline()
        try:
            first = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line 1: not JSON: {error}") from error
        if not isinstance(first, dict):
            raise ValueError(f"a line must be an object, found {type(first).__name__}")
        for name in ("layer", "batch_id", "topk_experts"):
            if name not in first:
                raise ValueError(f"field {name!r} is missing, found {', '.join(first)}")
        if unknown := [name for name in first if name not in FIELDS]:
            raise ValueError(f"field {unknown[0]!r:.60} is none of {', '.join(FIELDS)}")
        return routed_trace(_routes(json_table(path, first)), supplement)

    def _archived(self, path: Path, supplement: Supplement) -> Trace:
        lengths = ("prompt_token_ids", "output_token_ids")
        arrays = array_files.read_npz(path, ("routed_experts", *lengths), limit=self.limit)
        if "routed_experts" not in arrays:
            raise ValueError(f"array 'routed_experts' is missing, found {', '.join(arrays) or 'none'}")
        rows = array_files.integers("routed_experts", arrays["routed_experts"], axes=3)
        prompt, generated = (arrays[name].size if name in arrays else None for name in lengths)
        if prompt is not None and generated is not None and len(rows) > prompt + generated:
            raise ValueError(f"{len(rows)} rows for a prompt of {prompt} and {generated} generated tokens")
        return trace_of([RoutedRequest(rows, prompt=prompt)], supplement)


def _routes(table: Any) -> Routes:
    import pyarrow.compute as pc

    chosen = table.column("topk_experts")
    lengths = columns.list_lengths("topk_experts", chosen)
    if "origin_rows" in table.column_names:
        origins = columns.list_lengths("origin_rows", table.column("origin_rows"))
        for row in np.flatnonzero(origins != lengths)[:1]:
            raise ValueError(f"line {row + 1}: {origins[row]} origin_rows for {lengths[row]} tokens")
    name = "request_id" if "request_id" in table.column_names else "batch_id"
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    tokens = int(lengths.sum())
    none = np.zeros(tokens, np.uint8)
    return Routes(
        np.repeat(columns.requests(table.column(name)), lengths),
        np.arange(tokens) - np.repeat(starts, lengths),
        np.repeat(columns.numbers("layer", table.column("layer")), lengths),
        columns.lists("topk_experts", pc.list_flatten(chosen)),
        none,
        none,
    )
