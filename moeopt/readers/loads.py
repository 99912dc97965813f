"""Matrices of loads: what expert load balancers take, as an array or as JSON."""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.array_files import MAGIC, ZIP, array_header, member_names, read_npy, read_npz
from moeopt.load_counts import load_workload
from moeopt.readers.sglang_recorder import SGLangRecorder
from moeopt.supplement import Supplement
from moeopt.torch_archive import DAMAGE, opening, read_archive
from moeopt.workload import Workload

HISTORY, STEP = "load_history", "logical_expert_load"
OTHERS = ("experts", "router_logits", "attention_mask")  # arrays of other formats, or how their names begin
NESTED = re.compile(rb"\s*\[\s*\[\s*-?[0-9]")
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
START = 1 << 20  # bytes in which a history says what it is
MEMBERS = 4096
MOST_LAYERS = 256
SINGLE = ("weight", "loads", "load", "logical_count", "expert_load", "arr_0")  # an array that is all there is
SEPARATOR = "__"  # of model and family in the name of an array


@dataclass(frozen=True)
class Loads:
    """Reader of loads [layers, experts], activations of every expert.

    | content | holds | source |
    |---|---|---|
    | .npy | one array | `weight` of deepseek-ai/EPLB d52c72d, eplb.py |
    | .pt | one tensor | the same; vllm-ascend, examples/eplb/eplb_strategy.py |
    | .npz | one array `weight`, `loads`, ..., or one a family: <family> or <model>__<family> | numpy.savez |
    | JSON, lists | [[load, ...], ...] | the same, through `tolist` |
    | JSON, object | {"load_history": [{"logical_expert_load": [[load, ...], ...]}, ...]}, summed | ADRS, OpenEvolve |

    Rows are MoE layers 0, 1, ... unless `layer_ids` names them, and those of zeros are left out: a matrix of all hidden
    layers has such rows for dense ones. `model` picks one of an archive that holds several. Loads are whole numbers,
    as floats too; others are refused, since proofs count in whole numbers: what one stands for (averages, shares) only
    their owner knows, who multiplies and rounds. Arrays of other than two axes are of other formats, and plain pickles
    are refused. `limit` bounds the size of the file and of the arrays in bytes.
    """

    limit: int = 2**30

    name: ClassVar[str] = "loads"

    def accepts(self, path: Path, head: bytes) -> bool:
        try:
            if head.startswith(MAGIC):
                with path.open("rb") as file:
                    return _is_matrix(file, path.name)
            if head.startswith(ZIP):
                if opening(path, length=1):
                    return not SGLangRecorder().accepts(path, head)
                with zipfile.ZipFile(path) as archive:
                    return _holds_matrices(archive)
            if head.lstrip().startswith(b"{"):
                with path.open("rb") as file:
                    start = file.read(START)
                return all(storage.has_field(start, name) for name in (HISTORY, STEP))
        except (ValueError, *DAMAGE):
            return False
        return head.startswith(PICKLES) or bool(NESTED.match(head))

    def read(self, path: Path, supplement: Supplement) -> Workload:
        if (size := path.stat().st_size) > self.limit:
            raise ValueError(f"a file of loads may have {self.limit} bytes, found {size}")
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
        if head == MAGIC:
            found = {"all": read_npy(path, limit=self.limit)}
        elif head.startswith(PICKLES) or opening(path, length=1):
            found = {"all": _tensor(read_archive(path, limit=self.limit))}
        elif head.startswith(ZIP):
            found = read_npz(path, sorted(member_names(path)), limit=self.limit)
        else:
            found = {"all": _document(path)}
        if not found:
            raise ValueError("an archive of loads holds arrays, found none")
        model, families = _families(found, supplement.model)
        for loads in families.values():
            _check_plausible(loads)
        shapes = {name: array.shape for name, array in families.items()}
        if len({*shapes.values()}) > 1:
            raise ValueError(f"loads of all families must have one shape, found {shapes}")
        loads = np.stack([*families.values()], axis=2)
        ids = supplement.named_layers(len(loads))
        rows = np.flatnonzero(loads.any(axis=(1, 2)))
        if not len(rows):
            raise ValueError(f"every load of {len(loads)} layers is zero: nothing was recorded")
        workload = load_workload(
            loads[rows],
            layer_ids=[ids[row] for row in rows],
            families=tuple(families),
            top_k=supplement.top_k,
            model=supplement.model or model,
        )
        if supplement.n_experts not in (None, workload.n_experts):
            raise ValueError(
                f"n_experts is given as {supplement.n_experts}, the recording says {workload.n_experts}"
            )
        return workload


def _check_plausible(loads: NDArray[Any]) -> None:
    """ValueError for what has two axes and is no matrix of loads: ids of tokens, a map of slots."""
    if len(loads) > MOST_LAYERS:
        raise ValueError(
            f"loads are [layers, experts], at most {MOST_LAYERS} layers, found {len(loads)} rows: ids of tokens?"
        )
    present = np.arange(
        int(loads.max()) + 1 if np.isfinite(loads).all() and loads.max() < loads.shape[1] else 0
    )
    if len(present) > 1 and all(np.array_equal(np.unique(row), present) for row in loads):
        raise ValueError(
            f"every row holds each number from 0 to {present[-1]}: a map of experts to slots, no loads"
        )


def _is_matrix(file: IO[bytes], name: str) -> bool:
    shape, _, dtype = array_header(file, name=name)
    return len(shape) == 2 and dtype.kind in "iuf"


def _holds_matrices(archive: zipfile.ZipFile) -> bool:
    """Whether there are arrays with two axes and nothing else, none of another format."""
    names = archive.namelist()
    for name in names[:MEMBERS]:
        with archive.open(name) as file:
            if not name.endswith(".npy") or name.startswith(OTHERS) or not _is_matrix(file, name):
                return False
    if len(names) == 1 and SEPARATOR not in names[0] and names[0].removesuffix(".npy") not in SINGLE:
        return False
    return 0 < len(names) <= MEMBERS


def _tensor(content: Any) -> NDArray[Any]:
    if not isinstance(content, np.ndarray):
        raise ValueError(f"loads must be one tensor [layers, experts], found {type(content).__name__}")
    return content


def _document(path: Path) -> NDArray[Any]:
    """The matrix of JSON lists, or the sum of those of a history."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if isinstance(document, list):
        return _lists(document)
    if not isinstance(document, dict):
        raise ValueError(f"loads must be JSON lists or an object, found {type(document).__name__}")
    history = storage.field(document, HISTORY, kind=list)
    total: NDArray[Any] | None = None
    for index, step in enumerate(history):
        if not isinstance(step, dict):
            raise ValueError(f"step {index} of the history must be an object, found {type(step).__name__}")
        try:
            loads = _whole(_lists(storage.field(step, STEP, kind=list)))
            if total is not None and loads.shape != total.shape:
                raise ValueError(f"loads must have shape {total.shape} as those before, found {loads.shape}")
        except ValueError as error:
            raise ValueError(f"step {index} of the history: {error}") from error
        total = loads if total is None else total + loads
    if total is None:
        raise ValueError(f"{HISTORY} must have steps, found none")
    return total


def _lists(rows: list[Any]) -> NDArray[Any]:
    """A matrix of lists of numbers; NumPy would take true for 1 and "1" for text."""
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(rows[0]):
            found = len(row) if isinstance(row, list) else type(row).__name__
            raise ValueError(
                f"layer {index}: every layer is a list of as many loads as layer 0, found {found}"
            )
        if wrong := [load for load in row if type(load) not in (int, float)]:
            raise ValueError(f"layer {index}: a load is a number, found {type(wrong[0]).__name__}")
    return _matrix(np.array(rows))


def _matrix(loads: NDArray[Any]) -> NDArray[Any]:
    if loads.ndim != 2 or 0 in loads.shape or loads.dtype.kind not in "iuf":
        raise ValueError(f"loads must be numbers [layers, experts], found {loads.dtype} {loads.shape}")
    return loads.astype(np.float64) if loads.dtype.kind == "f" else loads


def _whole(loads: NDArray[Any]) -> NDArray[np.int64]:
    """int64 of whole numbers; floats that are none would add up to some that are."""
    for layer, expert in np.argwhere(~((loads >= 0) & (loads < 1 << 46) & (np.floor(loads) == loads)))[:1]:
        raise ValueError(
            f"layer {layer}, expert {expert}: a load is a whole number from 0 to 2^46, found {loads[layer, expert]}"
        )
    return loads.astype(np.int64)


def _families(found: dict[str, NDArray[Any]], wanted: str | None) -> tuple[str, dict[str, NDArray[Any]]]:
    """The model, and its loads by family."""
    found = {name: _matrix(loads) for name, loads in found.items()}
    if len(found) == 1 and not any(SEPARATOR in name for name in found):
        return "", {"all": found.popitem()[1]}
    if not all(SEPARATOR in name for name in found):
        return "", found
    models: dict[str, dict[str, NDArray[Any]]] = {}
    for name, loads in found.items():
        model, _, family = name.partition(SEPARATOR)
        models.setdefault(model, {})[family] = loads
    if wanted is None and len(models) > 1:
        raise ValueError(f"the archive has loads of the models {', '.join(models)}: give model (--model)")
    model = next(iter(models)) if wanted is None or len(models) == 1 else wanted
    if model not in models:
        raise ValueError(f"the archive has loads of the models {', '.join(models)}, found none of {model!r}")
    return model, models[model]
