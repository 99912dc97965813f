"""Routed experts of a request, as vLLM hands them out: arrays with all hidden layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt import array_files
from moeopt.supplement import Supplement
from moeopt.trace import DECODE, PREFILL, Trace


@dataclass(frozen=True, eq=False)
class RoutedRequest:
    """What an engine returns of one request.

    | field | holds |
    |---|---|
    | rows | integers [tokens, all hidden layers, k]: logical expert ids; rows of dense layers are zero |
    | start | position of the first token recorded |
    | prompt | tokens of the prompt; None where nobody says: every token counts as prefill |
    | family | task family; None where nobody says |

    The last token of a request is sampled and never forwarded, so that a whole request of n tokens has n - 1 rows.
    """

    rows: NDArray[Any]
    start: int = 0
    prompt: int | None = None
    family: str | None = None


@dataclass(frozen=True)
class RoutedExperts:
    """Reader of the routed experts of one request as a `.npy` file.

    | part | holds |
    |---|---|
    | axes | [tokens, all hidden layers, k]; tokens: prompt + generated - 1 - start, the last one is never forwarded |
    | type | uint8 up to 256 experts, uint16 above |
    | values | logical expert ids, zero in the rows of dense layers |

    Source: vLLM 0.33.0, `CompletionOutput.routed_experts` of `enable_return_routed_experts=True`, saved by numpy.save.
    The user says which layers are MoE layers and how many experts one has. Positions count from 0 and every token is
    prefill, unless a manifest says how long the prompt is. `limit` bounds the size of the file in bytes.
    """

    limit: int = 8 * 2**30

    name: ClassVar[str] = "routed-experts"

    def accepts(self, path: Path, head: bytes) -> bool:
        if not head.startswith(array_files.MAGIC):
            return False
        try:
            with path.open("rb") as file:
                shape, _, dtype = array_files.array_header(file, name=path.name)
        except (ValueError, OSError):
            return False
        return len(shape) == 3 and dtype.kind == "u" and dtype.itemsize <= 2

    def read(self, path: Path, supplement: Supplement) -> Trace:
        return trace_of([RoutedRequest(array_files.read_npy(path, limit=self.limit))], supplement)


def trace_of(requests: Sequence[RoutedRequest], supplement: Supplement) -> Trace:
    """The trace of requests, numbered as they come; of their rows only those of the MoE layers.

    Raises ValueError naming the request whose rows are of another shape, and a dense layer among the MoE layers.
    """
    first = requests[0].rows
    if first.ndim != 3 or 0 in first.shape[1:]:
        raise ValueError(f"rows must have axes [tokens, hidden layers, k], found shape {first.shape}")
    for index, request in enumerate(requests):
        if request.rows.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"request {index}: {request.rows.shape[1]} hidden layers and top-{request.rows.shape[2]}, "
                f"request 0 has {first.shape[1]} and top-{first.shape[2]}"
            )
    layers = supplement.moe_layers(first.shape[1])
    if supplement.top_k not in (None, first.shape[2]):
        raise ValueError(f"top_k is given as {supplement.top_k}, the recording says {first.shape[2]}")
    experts = np.concatenate([_ids(request.rows[:, layers], index) for index, request in enumerate(requests)])
    if not len(experts):
        raise ValueError("empty trace: no request has a row")
    refuse_dense(experts, layers)
    count = supplement.experts(least=int(experts.max()) + 1)
    if count > 256 and first.dtype == np.uint8:
        raise ValueError(f"n_experts is {count}, ids of 8 bits are written of at most 256 experts")
    lengths = np.array([len(request.rows) for request in requests])
    position = np.concatenate([np.arange(n) + r.start for n, r in zip(lengths, requests, strict=True)])
    prompts = np.array([np.iinfo(np.int64).max if r.prompt is None else r.prompt for r in requests])
    families, family = _families(requests)
    return Trace(
        experts,
        count,
        layer_ids=np.array(layers),
        families=families,
        family=np.repeat(family, lengths),
        request=np.repeat(np.arange(len(requests)), lengths),
        position=position,
        phase=np.where(position < np.repeat(prompts, lengths), PREFILL, DECODE),
        model=supplement.model or "",
    )


def _ids(rows: NDArray[Any], request: int) -> NDArray[np.uint16]:
    if rows.size and (rows.min() < 0 or rows.max() > 65_535):
        raise ValueError(f"request {request}: ids must lie from 0 to 65535, found {rows.min()}..{rows.max()}")
    return rows.astype(np.uint16)


def refuse_dense(experts: NDArray[np.uint16], layers: tuple[int, ...]) -> None:
    """A zero-filled row would be expert 0, chosen k times; with k = 1 nothing tells them apart."""
    if experts.shape[2] > 1:
        for index in np.flatnonzero(~experts.any(axis=(0, 2)))[:1]:
            raise ValueError(
                f"layer {layers[index]} holds expert 0 {experts.shape[2]} times in every token: it is dense, "
                "leave it out of layer_ids (--moe-layers)"
            )


def _families(requests: Sequence[RoutedRequest]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names in order of appearance and the index of each request's: of all of them, or of none."""
    names = [request.family for request in requests]
    if all(name is None for name in names):
        return ("all",), np.zeros(len(names), np.int64)
    if None in names:
        raise ValueError(
            f"request {names.index(None)} has no family, request {_first_named(names)} has one: all or none"
        )
    known = {name: index for index, name in enumerate(dict.fromkeys(names))}
    if len(known) > 256:
        raise ValueError(f"at most 256 families, found {len(known)}")
    return tuple(str(name) for name in known), np.array([known[name] for name in names])


def _first_named(names: Sequence[str | None]) -> int:
    return next(index for index, name in enumerate(names) if name is not None)
