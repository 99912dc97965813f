"""Routed experts in the answers of vLLM and SGLang servers: whole responses, one or many."""

import base64
import binascii
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.array_files import array_content
from moeopt.readers.routed_experts import RoutedRequest, trace_of
from moeopt.storage import has_field
from moeopt.supplement import Supplement
from moeopt.trace import Trace

FIELD = "routed_experts"
START = 1 << 20  # bytes in which the first answer names the field
EXTENSIONS = ("sglext", "sgl_ext")


@dataclass(frozen=True)
class RoutedAnswers:
    """Reader of server responses: a JSON object, a list of them, or JSONL with one in every line.

    | field | holds |
    |---|---|
    | choices[].routed_experts | vLLM: base64 of a `.npy` file [tokens, hidden layers, k], uint8 or uint16 |
    | meta_info.routed_experts | SGLang: base64 of raw little-endian int32, reshaped [tokens, hidden layers, k] |
    | sglext.routed_experts | the same in SGLang's OpenAI API, of the response or a choice; also `sgl_ext` |
    | usage.prompt_tokens, meta_info.prompt_tokens | tokens of the prompt: prefill, later ones decode |
    | usage.completion_tokens, meta_info.completion_tokens | generated tokens, of all choices together |
    | family | beside any of these, or of a choice: the task family; of all answers or of none |
    | response.body, body | the response itself, in the lines of batch output |

    Sources: vLLM 0.33.0, completions and chat; SGLang 0.5.23, `srt/state_capturer/routed_experts.py`,
    `srt/entrypoints/openai/protocol.py`. Other fields are ignored. Every answer, and every choice of one, is a request
    in order of appearance. Tokens are prompt + generated - 1 - start, since the last token sampled is never forwarded;
    `start`, where the client asked for a later one, follows from that sum. Without the lengths it is 0, and without
    that of the prompt every token is prefill.

    The bytes of SGLang have no shape: the user gives `hidden_layers` and `top_k`. Everywhere the user gives the MoE
    layers and the experts of one. `limit` bounds the size of the file in bytes.
    """

    limit: int = 2**30

    name: ClassVar[str] = "routed-answers"

    def accepts(self, path: Path, head: bytes) -> bool:
        if not head.lstrip().startswith((b"{", b"[")):
            return False
        with path.open("rb") as file:
            start = file.read(START)
        return has_field(start, FIELD)

    def read(self, path: Path, supplement: Supplement) -> Trace:
        if (size := path.stat().st_size) > self.limit:
            raise ValueError(f"a file of answers may have {self.limit} bytes, found {size}")
        requests: list[RoutedRequest] = []
        for where, answer in _answers(path):
            try:
                requests += _requests(answer, supplement)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        if not requests:
            raise ValueError(f"no answer holds {FIELD!r}")
        return trace_of(requests, supplement)


def _answers(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it is, answer) of a file of one JSON value, or of one in every line."""
    with path.open("rb") as file:
        first = file.readline()
        lines = not first.lstrip().startswith(b"[") and _parses(first)
        file.seek(0)
        if lines:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", _object(_parsed(line, f"line {number}: "))
            return
        content = _parsed(file.read(), "")
    if isinstance(content, list):
        yield from ((f"answer {index}", _object(answer)) for index, answer in enumerate(content))
    else:
        yield "answer 0", _object(content)


def _parses(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}not JSON: {error}") from error


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ValueError(f"an answer must be an object, found {type(answer).__name__}")
    return answer


def _requests(answer: dict[str, Any], supplement: Supplement) -> list[RoutedRequest]:
    family = answer.get("family")
    for inner in ("response", "body"):
        if isinstance(answer.get(inner), dict):
            answer = answer[inner]
            family = answer.get("family", family)
    choices = [choice for choice in _list(answer, "choices") if isinstance(choice, dict)]
    families = [choice.get("family", family) for choice in choices] or [family]
    rows = [one for choice in choices if (one := _of_choice(choice, supplement)) is not None]
    if rows and len(rows) != len(choices):
        raise ValueError(f"{len(rows)} of {len(choices)} choices hold {FIELD!r}: all or none")
    meta = answer.get("meta_info")
    raw = _extension(answer) if not isinstance(meta, dict) else meta.get(FIELD)
    if raw is not None and not rows:
        rows.append(_raw(raw, supplement))
    if not rows:
        raise ValueError(f"no {FIELD!r} in choices, meta_info or {EXTENSIONS[0]}")
    lengths = meta if isinstance(meta, dict) else answer.get("usage")
    prompt, generated = (_count(lengths, name) for name in ("prompt_tokens", "completion_tokens"))
    if len(rows) != max(len(choices), 1):  # the generated tokens are those of all choices
        generated = None
    start = 0
    if prompt is not None and generated is not None:
        start = _start(sum(map(len, rows)), len(rows), prompt=prompt, generated=generated)
    return [
        RoutedRequest(one, start, prompt, _name(family)) for one, family in zip(rows, families, strict=False)
    ]


def _of_choice(choice: dict[str, Any], supplement: Supplement) -> NDArray[Any] | None:
    if choice.get(FIELD) is not None:
        return _saved(choice[FIELD])
    raw = _extension(choice)
    return None if raw is None else _raw(raw, supplement)


def _start(found: int, choices: int, *, prompt: int, generated: int) -> int:
    """The position of the first row, the same in all choices: rows are prompt + generated - 1 - start.

    Rows of the last token too, where an engine has them, leave it at 0.
    """
    most = choices * (prompt - 1) + generated
    if found > most + choices:
        raise ValueError(
            f"{found} rows for {choices} x {prompt} tokens of the prompt and {generated} generated"
        )
    if (most - found) % choices:
        raise ValueError(f"{found} rows of {choices} choices, {most} less a common start are expected")
    return max(0, most - found) // choices


def _saved(text: Any) -> NDArray[Any]:
    content = _decoded(text)
    rows = array_content(io.BytesIO(content), name=FIELD, size=len(content))
    if rows.ndim != 3 or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{FIELD} must be integers [tokens, hidden layers, k], found {rows.dtype} of shape {rows.shape}"
        )
    return rows


def _raw(text: Any, supplement: Supplement) -> NDArray[Any]:
    layers, k = supplement.hidden_layers, supplement.top_k
    if layers is None or k is None:
        raise ValueError(
            "these bytes have no shape: give hidden_layers (--hidden-layers), dense ones included, "
            f"and top_k (--top-k), found hidden_layers={layers}, top_k={k}"
        )
    content = _decoded(text)
    if len(content) % (4 * layers * k):
        raise ValueError(
            f"{len(content)} bytes are no rows of {layers} hidden layers x top-{k} x 4 bytes = {4 * layers * k}"
        )
    return np.frombuffer(content, "<i4").reshape(-1, layers, k)


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{FIELD} must be base64 text, found {type(text).__name__}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{FIELD} is not base64: {error}") from error


def _extension(part: dict[str, Any]) -> Any:
    for name in EXTENSIONS:
        if isinstance(part.get(name), dict):
            return part[name].get(FIELD)
    return None


def _list(answer: dict[str, Any], name: str) -> list[Any]:
    found = answer.get(name)
    return found if isinstance(found, list) else []


def _count(lengths: Any, name: str) -> int | None:
    found = lengths.get(name) if isinstance(lengths, dict) else None
    if found is not None and (
        isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 31
    ):
        raise ValueError(f"{name} must be a whole number, found {found!r:.40}")
    return found


def _name(family: Any) -> str | None:
    if family is not None and not isinstance(family, str):
        raise ValueError(f"family must be text, found {family!r:.40}")
    return family
