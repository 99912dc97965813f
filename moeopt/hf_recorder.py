"""Traces of Hugging Face models, taken while they run: the experts every token was sent to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.hf_layers import MoeLayer, moe_layers
from moeopt.trace import DECODE, PREFILL, Trace

__all__ = ["HF", "Recorder"]

HF = "pip install 'moeopt[hf]'"


class Recorder:
    """Records which experts a Hugging Face MoE model uses, by hooks that last as long as the `with` block:

        with Recorder(model) as recorder:
            recorder.run(tokenizer(texts)["input_ids"], family="code")
        trace = recorder.trace()

    The ids are those handed to the experts, so a bias, group limits, or ties in half precision need no imitation; in
    the router's order, logical, shared experts left out. `name` is the trace's `model`, by default the name in the
    model's configuration. A token takes layers x k bytes of memory (twice that above 256 experts).

    Raises ValueError for a model without MoE layers (see `moeopt.hf_layers`).
    """

    def __init__(self, model: Any, *, name: str = "") -> None:
        self._layers = moe_layers(model)
        self._model = model
        config = getattr(model, "config", None)
        self._name = name or getattr(config, "name_or_path", "") or getattr(config, "model_type", "")
        self._hooks: list[Any] = []
        self._chosen: list[list[Any]] | None = None  # by layer, ids of each call; None between runs
        self._experts: list[NDArray[Any]] = []
        self._tokens: list[NDArray[np.int32]] = []  # rows request, position, phase, family
        self._families: dict[str, int] = {}
        self._requests = 0

    def __enter__(self) -> Self:
        if self._hooks:
            raise ValueError("the recorder records already: leave its `with` block before entering another")
        for index, layer in enumerate(self._layers):
            self._hooks.append(layer.experts.register_forward_pre_hook(self._hook(index), with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def run(
        self,
        input_ids: Any,
        *,
        attention_mask: Any = None,
        family: str = "all",
        prompt_lengths: Sequence[int] | None = None,
    ) -> None:
        """One forward pass over a batch of sequences, each recorded as the next request, all their tokens.

        `input_ids` is [sequences, positions] (tensor, array or lists) or lists of different lengths;
        `attention_mask`, of the same shape, is 0 at padding, on either side, which is dropped before the pass.
        The first `prompt_lengths[i]` tokens of sequence i are prefill and the others decode; by default all are
        prefill. A server never forwards the last token that it samples: to compare with its recordings leave that
        token out, rows = prompt + generated - 1, as `moeopt.record` does.

        Raises ValueError outside the `with` block, for a model in training mode, for masks, lengths or ids that do
        not fit, and when a layer was not called once with ids for every token; nothing of the batch is kept then.
        ImportError naming the extra without torch.
        """
        if not self._hooks:
            raise ValueError("run must be called within `with Recorder(model) as recorder`")
        if self._model.training:
            raise ValueError("the model must not be in training mode, which changes its routes: model.eval()")
        sequences = _sequences(input_ids, attention_mask)
        lengths = np.array([len(sequence) for sequence in sequences])
        prompts = lengths if prompt_lengths is None else np.asarray(prompt_lengths)
        if prompts.shape != lengths.shape or (prompts < 0).any() or (prompts > lengths).any():
            raise ValueError(
                f"prompt_lengths must lie between 0 and the lengths {lengths.tolist()}, found {prompt_lengths}"
            )
        experts = self._forward(sequences, lengths)
        requests = np.repeat(np.arange(len(lengths)), lengths)
        position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        phase = np.where(position < prompts[requests], PREFILL, DECODE)
        number = self._families.setdefault(family, len(self._families))
        tokens = [requests + self._requests, position, phase, np.full(len(position), number)]
        self._tokens.append(np.stack(tokens).astype(np.int32))
        self._experts.append(experts)
        self._requests += len(lengths)

    def trace(self) -> Trace:
        """All that was recorded, families in the order of their first batch; ValueError when that is nothing."""
        if not self._experts:
            raise ValueError("nothing was recorded: call run first")
        request, position, phase, family = np.concatenate(self._tokens, axis=1)
        return Trace(
            np.concatenate(self._experts),
            self._layers[0].n_experts,
            layer_ids=np.array([layer.layer for layer in self._layers], np.int32),
            families=tuple(self._families),
            family=family,
            request=request,
            position=position,
            phase=phase,
            model=self._name,
        )

    def _hook(self, index: int) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], None]:
        argument = self._layers[index].argument

        def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._chosen is not None:
                ids = kwargs[argument] if argument in kwargs else args[1]
                self._chosen[index].append(ids.detach().clone())

        return note

    def _forward(self, sequences: list[NDArray[np.int64]], lengths: NDArray[np.int64]) -> NDArray[Any]:
        """ids [tokens, layers, k] of the sequences, padded on the right, where no causal model looks."""
        try:
            import torch
        except ImportError as missing:
            raise ImportError(f"recording needs PyTorch and transformers: {HF}") from missing
        mask = np.arange(lengths.max()) < lengths[:, None]
        padded = np.zeros(mask.shape, np.int64)
        padded[mask] = np.concatenate(sequences)
        device = next(self._model.parameters()).device
        body = getattr(self._model, "base_model", self._model)  # without the head: nobody reads its logits
        self._chosen = [[] for _ in self._layers]
        try:
            with torch.no_grad():
                body(
                    input_ids=torch.from_numpy(padded).to(device),
                    attention_mask=torch.from_numpy(mask.astype(np.int64)).to(device),
                    use_cache=False,
                )
            chosen = self._chosen
        finally:
            self._chosen = None
        ids = [
            _whole(calls, layer, tokens=mask.size) for calls, layer in zip(chosen, self._layers, strict=True)
        ]
        if len(widths := {found.shape[1] for found in ids}) > 1:
            raise ValueError(f"layers must choose equally many experts, found {sorted(widths)}")
        return np.stack([found[mask.ravel()] for found in ids], axis=1)


def _sequences(input_ids: Any, attention_mask: Any) -> list[NDArray[np.int64]]:
    """Token ids of each sequence, padding dropped."""
    rows = [_row(row) for row in input_ids]
    if not rows:
        raise ValueError("input_ids must hold at least one sequence, found none")
    if attention_mask is not None:
        masks = [_row(mask) for mask in attention_mask]
        if [len(mask) for mask in masks] != [len(row) for row in rows]:
            raise ValueError(
                f"attention_mask must have the shape of input_ids, found rows of {[len(mask) for mask in masks]} "
                f"for {[len(row) for row in rows]}"
            )
        rows = [row[mask != 0] for row, mask in zip(rows, masks, strict=True)]
    if empty := [index for index, row in enumerate(rows) if not len(row)]:
        raise ValueError(f"every sequence must have a token, found none in sequence {empty[0]}")
    return rows


def _row(values: Any) -> NDArray[np.int64]:
    found = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iub"):
        raise ValueError(
            f"input_ids and attention_mask must be whole numbers [sequences, positions], "
            f"found {found.dtype} with a row of shape {found.shape}"
        )
    return found.astype(np.int64)


def _whole(calls: list[Any], layer: MoeLayer, *, tokens: int) -> NDArray[Any]:
    """ids [tokens, k] of one layer's only call, as uint8 or uint16."""
    if len(calls) != 1:
        raise ValueError(
            f"{layer.path} must be called once in a forward pass, found {len(calls)} calls"
            + ("" if calls else ": a kernel that replaces the whole MoE block hides its routes")
        )
    ids: NDArray[Any] = calls[0].reshape(-1, calls[0].shape[-1]).cpu().numpy()
    if ids.dtype.kind not in "iu" or len(ids) != tokens:
        raise ValueError(f"{layer.path} must be given ids for {tokens} tokens, found {ids.dtype} {ids.shape}")
    if int(ids.min()) < 0 or int(ids.max()) >= layer.n_experts:
        raise ValueError(
            f"{layer.path} must be given ids below {layer.n_experts}, found {int(ids.min())}..{int(ids.max())}: "
            "experts split over processes, or extra experts that do nothing, cannot be recorded"
        )
    return ids.astype(np.uint8 if layer.n_experts <= 256 else np.uint16)
