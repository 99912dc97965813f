"""Records of SGLang's recorder in the mode per_token, joined to a trace."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.sglang_requests import Requests
from moeopt.supplement import Supplement
from moeopt.trace import DECODE, Trace

EXTEND, DECODED, MIXED, IDLE = 1, 2, 3, 4  # ForwardMode of srt/model_executor/forward_batch_info.py
Record = dict[str, Any]


def joined(
    records: Sequence[Record], *, experts: NDArray[np.int64], n_experts: int, supplement: Supplement
) -> Trace:
    """The trace of the records of all ranks; `experts` [layers, slots] is the expert in each slot.

    Raises ValueError naming pass, rank and layer.
    """
    kept = [record for record in _once(records) if _number(record, "forward_mode") != IDLE]
    batches = [(record, _slots(record, experts.shape)) for record in kept]
    batches = [(record, slots) for record, slots in batches if slots.shape[1]]
    layers = _moe_layers(batches, supplement)
    top_k = max((int((slots[layers] >= 0).sum(axis=2).max()) for _, slots in batches), default=0)
    ranks: dict[int, Requests] = {}
    chosen, request, position, phase = [], [], [], []
    for record, slots in batches:
        try:
            ids = _chosen(slots, experts, layers=layers, top_k=top_k)
            places = whole(record, "positions")[: len(ids)]
            requests = ranks.setdefault(record["rank"], Requests())
            own, phases = _followed(record, requests, places)
        except ValueError as error:
            raise ValueError(f"pass {record['forward_pass_id']}, rank {record['rank']}: {error}") from error
        chosen.append(ids.astype(np.uint16))
        request.append((own, record["rank"]))
        position.append(places)
        phase.append(phases)
    sizes = [ranks[rank].known for rank in sorted(ranks)]
    first = dict(zip(sorted(ranks), np.cumsum([0, *sizes[:-1]]), strict=True))
    return Trace(
        np.concatenate(chosen),
        n_experts,
        layer_ids=np.array(layers, np.int32),
        request=np.concatenate([own + first[rank] for own, rank in request]),
        position=np.concatenate(position),
        phase=np.concatenate(phase),
    )


def whole(record: Record, name: str, *, axes: int = 1) -> NDArray[np.int64]:
    """int64: whole numbers of a record, a tensor or a list."""
    return _whole(record, name, axes=axes).astype(np.int64, copy=False)


def _whole(record: Record, name: str, *, axes: int) -> NDArray[Any]:
    value = record.get(name)
    if isinstance(value, list):
        if not all(type(number) is int for number in value):
            raise ValueError(f"{name} must hold whole numbers, found others")
        value = np.array(value, np.int64)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.ndim != axes:
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name} must be whole numbers with {axes} axes, found {found}")
    return value


def _number(record: Record, name: str) -> int:
    value = record.get(name)
    if type(value) is not int:
        raise ValueError(f"{name} must be a whole number, found {type(value).__name__}")
    return value


def _once(records: Sequence[Record]) -> list[Record]:
    """Records in order of passes, without those of ranks that ran the same tokens as a lower one all along."""
    digests: dict[int, Any] = {}
    ordered = sorted(records, key=lambda record: (record["forward_pass_id"], record["rank"]))
    for record in ordered:
        digest = digests.setdefault(record["rank"], hashlib.sha256())
        tokens, places = whole(record, "input_ids"), whole(record, "positions")
        digest.update(f"{record['forward_pass_id']} {len(tokens)} {len(places)} ".encode())
        digest.update(tokens.tobytes() + places.tobytes())
    lowest: dict[bytes, int] = {}
    for rank in sorted(digests):
        lowest.setdefault(digests[rank].digest(), rank)
    return [record for record in ordered if record["rank"] in lowest.values()]


def _slots(record: Record, shape: tuple[int, ...]) -> NDArray[Any]:
    """integers [layers, tokens, width]: slots chosen, -1 for none, without the padding behind the tokens."""
    slots = _whole(record, "topk_ids_of_layer", axes=3)
    tokens = len(whole(record, "positions"))
    if slots.shape[:2] != (shape[0], tokens):
        raise ValueError(
            f"topk_ids_of_layer must be of {shape[0]} layers and {tokens} tokens, found {slots.shape}"
        )
    if slots.size and (slots.min() < -1 or slots.max() >= shape[1]):
        raise ValueError(
            f"slots must lie from -1 to {shape[1] - 1}, found {slots.min()} to {slots.max()}: "
            "with shared experts fused the recorder's ids are not those of slots"
        )
    used = np.flatnonzero((slots >= 0).any(axis=(0, 2)))
    if (count := len(used)) != (end := int(used.max(initial=-1)) + 1):
        raise ValueError(
            f"pass {record['forward_pass_id']}, rank {record['rank']}: {end - count} tokens before the last have "
            "no experts: this rank kept a part of the tokens that it names"
        )
    return slots[:, :count]


def _moe_layers(batches: list[tuple[Record, NDArray[Any]]], supplement: Supplement) -> list[int]:
    """Layers with experts: those given, or all but those whose every row is -1."""
    if not batches:
        raise ValueError("empty trace: no record has tokens with experts")
    seen = np.any([(slots >= 0).any(axis=(1, 2)) for _, slots in batches], axis=0)
    for layer in supplement.layer_ids or ():
        if layer >= len(seen) or not seen[layer]:
            raise ValueError(
                f"layer {layer} has no experts, those that have are {np.flatnonzero(seen).tolist()}"
            )
    if supplement.layer_ids is not None:
        return list(supplement.layer_ids)
    found = [int(layer) for layer in np.flatnonzero(seen)]
    for layer in found:
        if all(
            (slots[layer] <= 0).all() and (slots[layer] == 0).sum() > slots.shape[1] for _, slots in batches
        ):
            raise ValueError(
                f"layer {layer} chose slot 0 again and again for every token, as dense layers seem to: "
                "give layer_ids of the MoE layers (--moe-layers)"
            )
    return found


def _chosen(
    slots: NDArray[Any], experts: NDArray[np.int64], *, layers: list[int], top_k: int
) -> NDArray[np.int64]:
    """int [tokens, layers, k]: the experts in the slots chosen."""
    own = slots[layers]
    if (wrong := (own[:, :, :top_k] < 0) | (own[:, :, top_k:] >= 0).any(axis=2, keepdims=True)).any():
        layer, token, _ = np.argwhere(wrong)[0]
        raise ValueError(
            f"layer {layers[layer]}, token {token}: {top_k} slots must come before the -1, "
            f"found {own[layer, token].tolist()}"
        )
    found = experts[np.array(layers)[:, None, None], own[:, :, :top_k]]
    return np.ascontiguousarray(found.transpose(1, 0, 2))


def _followed(
    record: Record, requests: Requests, positions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Request and phase of every token of a pass."""
    mode = _number(record, "forward_mode")
    if len(positions) and (positions.min() < 0 or positions.max() >= 1 << 31):
        raise ValueError(f"positions must lie from 0 to 2^31, found {positions.min()} to {positions.max()}")
    if mode == DECODED:
        return requests.decoded(positions), np.full(len(positions), DECODE)
    if mode not in (EXTEND, MIXED):
        raise ValueError(
            f"forward_mode must be 1 (prefill), 2 (decode), 3 (mixed) or 4 (idle), found {mode}: "
            "drafts of speculative decoding are no tokens of a request"
        )
    return requests.extended(positions, whole(record, "extend_seq_lens"), mixed=mode == MIXED)
