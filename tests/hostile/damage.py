"""Valid files, damaged by rule: cut, overwritten, and with one value after another missing or wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.cases import Case, Files, Folder
from tests.hostile.contents import encoded, header, npy, npz, torch_file
from tests.hostile.tiny import ARRAYS, LOADS, LOGITS, MASK, PASS, ROUTED, STAT, TOKENS, dumped
from tests.hostile.valid import Valid, valid_files

HUGE = 10**30
WRONG: dict[type, tuple[Any, ...]] = {
    str: (None, 7),
    bool: (None, 2),
    int: (-1, 0.5, HUGE, "x", True),
    float: ("x", None),
    list: ({}, "x", [[[]]], [-7]),
    dict: ([], None),
    type(None): (),
}
ARRAYS_OF: dict[str, dict[str, Any]] = {
    "npz": ARRAYS,
    "loads, npz": {"code": LOADS, "math": LOADS},
    "router outputs": {"router_logits": LOGITS, "attention_mask": MASK},
    "moe-balance, npz": {"routed_experts": ROUTED, "prompt_token_ids": np.arange(2)},
}
TORCH: dict[str, dict[str, Any]] = {
    "SGLang stat": STAT,
    "SGLang per_pass": dumped(PASS),
    "SGLang per_token": dumped(TOKENS),
}
FINE = {  # what is still a valid file of some kind, or damage to what nobody reads
    "npz": ("n_experts of more axes",),
    "loads, npz": ("missing", "of 2^40"),
    "loads, JSON": ("in Latin-1",),  # which has no other letters
    "router outputs": ("attention_mask missing",),
    "routes, JSONL": ("cut at",),  # behind a line
    "moe-balance, JSONL": ("origin_rows/0 = -1", "origin_rows/0 = 0.5"),
    "moe-balance, npz": tuple(
        f"prompt_token_ids {how}"
        for how in ("missing", "of more axes", "of NaN", "infinite", "negative", "of 2^40")
    ),
    "answers, vLLM": ("cut at 2/4", "usage missing", "usage = ", "tokens missing"),
    "answers, SGLang": ("tokens missing",),
    "SGLang stat": ("rank missing", "rank = "),
    "SGLang per_pass": ("gatherer_key missing",),
    "SGLang per_token": ("gatherer_key missing",),
    "SGLang folder": ("a_0.pt missing", "a_1.pt missing"),
    "TensorRT-LLM": ("rank1.safetensors missing",),
    "engine vllm-proposed-map": ("in Latin-1",),
    "certificate": ("= True", "family_weights missing", "load_tolerance missing", "0/layer = "),
    "workload": ("layer_ids/0 = -1",),  # ids of layers are numbers that ascend, no more
    "workload of loads": ("layer_ids/0 = -1",),
    "placement": ("slots = ", "layer_ids/0 = "),  # stated, not judged
    "instance": ("lower/0 = None", "upper/0 = None"),
}


def malformed(path: Path) -> list[Case]:
    """The valid files, damaged; written to a folder."""
    folder = Folder(path)
    scratch = path / "scratch"
    scratch.mkdir()
    for name, valid in valid_files(scratch).items():
        for how, content in _all_damage(name, valid):
            if not any(fine in how for fine in FINE.get(name, ())):
                folder.add(f"{name}: {how}", valid.by, content, valid.given)
    return folder.cases


def _all_damage(name: str, valid: Valid) -> Iterator[tuple[str, Files]]:
    if isinstance(valid.content, dict):
        for file, content in valid.content.items():
            for how, damaged in _damaged(content) if file.startswith("m") else [*_damaged(content)][:4]:
                yield f"{file} {how}", valid.content | {file: damaged}
            yield f"{file} missing", {other: c for other, c in valid.content.items() if other != file}
        return
    yield from _damaged(valid.content)
    if name in ARRAYS_OF:
        for how, arrays in _arrays(name, ARRAYS_OF[name]):
            yield how, npz(**arrays)
    if name in TORCH:
        for how, document in _torch_documents(TORCH[name]):
            yield how, torch_file(document)
    if valid.content.startswith((b"{", b"[")):
        try:
            document = json.loads(valid.content)
        except ValueError:
            first, rest = valid.content.split(b"\n", 1)
            for how, changed in _documents(json.loads(first), valid.spare):
                yield how, encoded(changed) + b"\n" + rest
        else:
            for how, changed in _documents(document, valid.spare):
                yield how, encoded(changed)


def _damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Damage that needs no knowledge of the format."""
    middle = len(content) // 2
    yield "empty", b""
    for part in (1, 2, 3):
        yield f"cut at {part}/4", content[: len(content) * part // 4]
    yield "zeros from the middle on", content[:middle] + bytes(len(content) - middle)
    yield "0xff from the middle on", content[:middle] + b"\xff" * (len(content) - middle)
    if b"\0" not in content:
        text = content.decode()
        yield "in UTF-16", text.encode("utf-16")
        yield "in Latin-1", text.replace("x", "\xe9").replace(":", ":\xe9", 1).encode("latin-1")
        yield "a NUL byte in the middle", content[:middle] + b"\0" + content[middle:]
        if content.startswith((b"{", b"[")):
            yield "behind a BOM in UTF-16", b"\xfe\xff" + content
            yield "twice on one line", content.strip() + content.strip()


def _documents(document: Any, spare: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The document with one value after another missing or wrong."""
    for place in _places(document):
        if set(place) & set(spare):
            continue
        where = "/".join(map(str, place))
        value = document
        for key in place:
            value = value[key]
        if isinstance(place[-1], str):
            yield f"{where} missing", _changed(document, place, _unset)
        for wrong in WRONG[type(value)]:
            yield f"{where} = {wrong!r:.20}", _changed(document, place, _set(wrong))


def _torch_documents(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The content with one field after another missing or wrong."""
    for place in _places(document):
        where = "/".join(map(str, place))
        if isinstance(place[-1], str):
            yield f"{where} missing", _changed(document, place, _unset)
        for wrong in (None, "x", -1, np.full((2, 3), -7), np.zeros((2, 2, 2, 2), np.float32)):
            yield f"{where} = {str(wrong)[:12]!r}", _changed(document, place, _set(wrong))


def _arrays(name: str, arrays: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arrays with one after another missing or wrong."""
    for key, value in arrays.items():
        array = np.asarray(value)
        others = {other: held for other, held in arrays.items() if other != key}
        yield f"{key} missing", others
        yield f"{key} pickled", others | {key: npy(np.array([None, {}]), allow_pickle=True)}
        yield f"{key} of more axes", others | {key: array[None, None, None]}
        yield f"{key} as records", others | {key: np.zeros(array.shape, [("a", "i4"), ("b", "f4")])}
        yield f"{key} as dates", others | {key: np.zeros(array.shape, "M8[s]")}
        yield f"{key} complex", others | {key: np.zeros(array.shape, complex)}
        yield f"{key} with a lying header", others | {key: header("(1000000, 1000000)")}
        yield f"{key} without its end", others | {key: npy(array)[:-1]}
        if array.dtype.kind in "iuf":
            floats = np.full(array.shape, np.nan, np.float32)
            yield f"{key} of NaN", others | {key: floats}
            yield f"{key} infinite", others | {key: np.full(array.shape, np.inf)}
            if array.dtype.kind != "f":
                yield f"{key} negative", others | {key: np.full(array.shape, -7)}
                yield f"{key} of 2^40", others | {key: np.full(array.shape, 1 << 40)}


def _places(document: Any, depth: int = 0) -> Iterator[tuple[Any, ...]]:
    """Paths to the values of a document, of a list's to the first."""
    if isinstance(document, dict) and depth < 6:
        inner: list[tuple[Any, Any]] = [*document.items()]
    else:
        inner = [(0, document[0])] if isinstance(document, list) and document and depth < 6 else []
    for key, value in inner:
        yield (key,)
        yield from ((key, *rest) for rest in _places(value, depth + 1))


def _changed(document: Any, place: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy with the container of a value changed."""
    copied = copy.deepcopy(document)
    container = copied
    for key in place[:-1]:
        container = container[key]
    change(container, place[-1])
    return copied


def _set(value: Any) -> Callable[[Any, Any], None]:
    def change(container: Any, key: Any) -> None:
        container[key] = value

    return change


def _unset(container: Any, key: Any) -> None:
    del container[key]
