"""Router logits of Hugging Face transformers: the experts chosen are the largest."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt import array_files
from moeopt.supplement import Supplement
from moeopt.trace import DECODE, PREFILL, Trace

LOGITS = "router_logits"
OF_LAYER = re.compile(rf"{LOGITS}_(\d{{1,5}})")
OTHERS = ("attention_mask", "request", "family", "prompt_tokens")


@dataclass(frozen=True)
class RouterOutputs:
    """Reader of `.npz` archives of a forward pass with `output_router_logits=True`.

    | array | holds |
    |---|---|
    | router_logits | floats [MoE layers, batch x sequence, E] |
    | router_logits_<i>, instead | floats [batch x sequence, E] of one sparse layer, with id i |
    | attention_mask | integers [batch, sequence]: 0 of padding, which is dropped; without it a single request |
    | request | integers [batch]: numbers of the requests, 0, 1, ... without |
    | family | text [batch]: task families, "all" without |
    | prompt_tokens | integers [batch]: positions below it are prefill, the others decode; all are prefill without |

    Other arrays are refused, lest a misspelt name pass for a default. Positions count the tokens that are no padding,
    which may be on either side. Layers are 0, 1, ... or i, unless the user gives ids of the MoE layers; and top-k too.

    Source: transformers 5.23.0, `router_logits` of the model outputs: a tuple with an entry a sparse layer, the raw
    output of the gate, saved by numpy.savez after `.float()`. In models of softmax and top-k (Mixtral, Qwen, OLMoE) and
    in gpt-oss the k largest logits are the choice, before or after softmax; of equal ones the lower id is taken.
    Models with sigmoid scores, a correction bias and groups of experts (DeepSeek-V3, GLM-4, Kimi) choose by numbers
    that the logits do not hold: their routes cannot be told from this file and need a recorder in the router itself.

    Raises ValueError for a logit that is not finite. `limit` bounds the uncompressed size of the arrays in bytes.
    """

    limit: int = 8 * 2**30

    name: ClassVar[str] = "router-outputs"

    def accepts(self, path: Path, head: bytes) -> bool:
        if not head.startswith(array_files.ZIP):
            return False
        names = array_files.member_names(path)
        return LOGITS in names or any(OF_LAYER.fullmatch(name) for name in names)

    def read(self, path: Path, supplement: Supplement) -> Trace:
        if (top_k := supplement.top_k) is None:
            raise ValueError("logits do not say how many experts a token chooses: give top_k (--top-k)")
        names = array_files.member_names(path)
        split = {int(found[1]): name for name in names if (found := OF_LAYER.fullmatch(name))}
        logits = [LOGITS] if LOGITS in names else [split[index] for index in sorted(split)]
        if unknown := sorted(names - {*logits, *OTHERS}):
            raise ValueError(
                f"array {unknown[0]!r:.60} is none of {LOGITS}, {LOGITS}_<i>, {', '.join(OTHERS)}, or beside {LOGITS}"
            )
        arrays = array_files.read_npz(path, names, limit=self.limit)
        layers = _layers([arrays[name] for name in logits], whole=LOGITS in names)
        tokens, experts = layers[0].shape
        if supplement.n_experts not in (None, experts):
            raise ValueError(f"n_experts is given as {supplement.n_experts}, logits are of {experts}")
        if top_k > experts:
            raise ValueError(f"top_k {top_k} exceeds the {experts} experts of the logits")
        if supplement.layer_ids is None and LOGITS not in names:
            ids = tuple(sorted(split))
        else:
            ids = supplement.named_layers(len(layers))
        mask = _mask(arrays.get("attention_mask"), tokens)
        real = mask.reshape(-1)
        chosen = [_largest(layer[real], top_k, ids[index]) for index, layer in enumerate(layers)]
        return Trace(
            np.stack(chosen, axis=1),
            experts,
            layer_ids=np.array(ids),
            model=supplement.model or "",
            **_tokens(arrays, mask),
        )


def _layers(found: list[NDArray[Any]], *, whole: bool) -> list[NDArray[Any]]:
    """Logits [tokens, E] of every layer, all of one shape."""
    if whole and found[0].ndim != 3:
        raise ValueError(f"{LOGITS} must have axes [layers, tokens, E], found shape {found[0].shape}")
    layers = list(found[0]) if whole else found
    for index, layer in enumerate(layers):
        if layer.ndim != 2 or layer.dtype.kind != "f" or 0 in layer.shape:
            raise ValueError(
                f"layer {index} in order must hold floats [tokens, E], found {layer.dtype} of shape {layer.shape}"
            )
        if layer.shape != layers[0].shape:
            raise ValueError(
                f"all layers must be of shape {layers[0].shape} as the first, layer {index} in order is {layer.shape}"
            )
    if not layers:
        raise ValueError(f"empty trace: {LOGITS} has no layers")
    return layers


def _largest(logits: NDArray[Any], top_k: int, layer: int) -> NDArray[np.uint16]:
    """uint16 [tokens, k]: ids of the largest logits, descending; of equal ones the lower id."""
    for token, expert in np.argwhere(~np.isfinite(logits))[:1]:
        raise ValueError(
            f"layer {layer}, token {token}, expert {expert}: a logit must be finite, found {logits[token, expert]}"
        )
    left = logits.astype(np.promote_types(logits.dtype, np.float32))
    rows = np.arange(len(left))
    chosen = np.empty((len(left), top_k), np.uint16)
    for place in range(top_k):  # argmax takes the first of equals, and k scans cost less than a stable sort
        chosen[:, place] = left.argmax(axis=1)
        left[rows, chosen[:, place]] = -np.inf
    return chosen


def _mask(found: NDArray[Any] | None, tokens: int) -> NDArray[np.bool_]:
    """bool [batch, sequence]: tokens that are no padding."""
    if found is None:
        return np.ones((1, tokens), bool)
    if found.ndim != 2 or found.dtype.kind not in "iub":
        raise ValueError(
            f"attention_mask must be integers [batch, sequence], found {found.dtype} of shape {found.shape}"
        )
    if found.size != tokens:
        raise ValueError(f"attention_mask is of {found.shape} = {found.size} tokens, logits are of {tokens}")
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"attention_mask must hold 0 and 1, found {found.min()}..{found.max()}")
    if not found.any():
        raise ValueError("empty trace: attention_mask marks every token as padding")
    return found.astype(bool)


def _tokens(arrays: dict[str, NDArray[Any]], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Token fields of the trace, of the tokens that are no padding."""
    batch = len(mask)
    row = np.nonzero(mask)[0]
    position = (np.cumsum(mask, axis=1) - 1)[mask]
    fields: dict[str, Any] = {"request": row, "position": position}
    for name in OTHERS[1:]:
        if name in arrays and arrays[name].shape != (batch,):
            raise ValueError(f"{name} must be of {batch} sequences, found shape {arrays[name].shape}")
    if "request" in arrays:
        request = array_files.integers("request", arrays["request"], axes=1)
        if len(np.unique(request)) != batch:
            raise ValueError(f"request must hold distinct numbers, found {request.tolist()!s:.80}")
        fields["request"] = request[row]
    if "prompt_tokens" in arrays:
        prompt = array_files.integers("prompt_tokens", arrays["prompt_tokens"], axes=1)
        fields["phase"] = np.where(position < prompt[row], PREFILL, DECODE)
    if "family" in arrays:
        if arrays["family"].dtype.kind != "U":
            raise ValueError(f"family must be text, found {arrays['family'].dtype}")
        names = list(dict.fromkeys(arrays["family"].tolist()))
        if len(names) > 256:
            raise ValueError(f"at most 256 families, found {len(names)}")
        index = np.array([names.index(name) for name in arrays["family"].tolist()])
        fields |= {"families": tuple(names), "family": index[row]}
    return fields
