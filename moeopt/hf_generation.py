"""Traces of prompts and of what a Hugging Face model makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moeopt.hf_recorder import HF, Recorder
from moeopt.trace import Trace

__all__ = ["completions", "record"]

Prompt = str | Sequence[int]


def record(
    model: Any,
    tokenizer: Any,
    *,
    prompts: Mapping[str, Sequence[Prompt]],
    max_new_tokens: int = 0,
    batch: int = 8,
    generation: Mapping[str, Any] | None = None,
    name: str = "",
) -> Trace:
    """The routes of all prompts of all families, a request each, numbered in the order given.

    Prompts are texts, tokenized as `tokenizer(text)` does, or token ids, and `tokenizer` may then be None; apply a
    chat template beforehand. With `max_new_tokens` the model first answers, `batch` prompts at a time, with the
    options `generation` of its `generate` (greedily unless the model's own configuration says otherwise); then one
    forward pass over prompt and answer records both, prompt as prefill, answer as decode. The last token of an
    answer is left out, since no server forwards it: prompt + generated - 1 rows a request.
    `name` is the trace's `model`; see `Recorder`.

    Raises ValueError as `Recorder` does, and for empty prompts or none; ImportError naming the extra without torch.
    """
    if batch < 1 or max_new_tokens < 0:
        raise ValueError(
            f"batch must be positive and max_new_tokens not negative, found {batch}, {max_new_tokens}"
        )
    if not isinstance(prompts, Mapping) or any(isinstance(texts, str) for texts in prompts.values()):
        raise ValueError(
            "prompts must be lists of texts or token ids by family: {'code': ['def f(x):', ...]}"
        )
    if not any(len(texts) for texts in prompts.values()):
        raise ValueError(f"there must be a prompt, found families {list(prompts)} without any")
    with Recorder(model, name=name) as recorder:
        for family, texts in prompts.items():
            for start in range(0, len(texts), batch):
                tokens = [_tokens(tokenizer, text) for text in texts[start : start + batch]]
                answers: list[list[int]] = [[]] * len(tokens)
                if max_new_tokens:
                    answers = completions(model, tokens, max_new_tokens=max_new_tokens, generation=generation)
                recorder.run(
                    [prompt + answer[:-1] for prompt, answer in zip(tokens, answers, strict=True)],
                    family=family,
                    prompt_lengths=[len(prompt) for prompt in tokens],
                )
    return recorder.trace()


def completions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    generation: Mapping[str, Any] | None = None,
) -> list[list[int]]:
    """The token ids that `model.generate` adds to each prompt of one batch, up to and with its end token.

    `generation` holds further options of `generate`, such as do_sample. Raises ValueError for an empty prompt and
    when not exactly one answer a prompt comes back; ImportError naming the extra without torch.
    """
    try:
        import torch
    except ImportError as missing:
        raise ImportError(f"generation needs PyTorch and transformers: {HF}") from missing
    if empty := [index for index, prompt in enumerate(prompts) if not len(prompt)]:
        raise ValueError(f"every prompt must have a token, found none in prompt {empty[0]} of its batch")
    settings = {**vars(model.generation_config), **(generation or {})}
    end, filler = settings.get("eos_token_id"), settings.get("pad_token_id")
    ends = set(np.atleast_1d([] if end is None else end).tolist())
    if filler is None:
        filler = min(ends, default=0)
    width = max(len(prompt) for prompt in prompts)
    padded = np.full((len(prompts), width), filler, np.int64)
    mask = np.zeros((len(prompts), width), np.int64)
    for row, prompt in enumerate(prompts):  # on the left: answers start in one column
        padded[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    device = next(model.parameters()).device
    found = model.generate(
        **{**(generation or {}), "pad_token_id": filler},
        input_ids=torch.from_numpy(padded).to(device),
        attention_mask=torch.from_numpy(mask).to(device),
        max_new_tokens=max_new_tokens,
        return_dict_in_generate=False,
    )
    if len(found) != len(prompts):
        raise ValueError(f"generation must return one answer a prompt, found {len(found)} for {len(prompts)}")
    return [_ended(answer, ends) for answer in found[:, width:].tolist()]


def _ended(answer: list[int], ends: set[int]) -> list[int]:
    """The answer up to and with its first end token; what follows is padding."""
    return answer[: next((place + 1 for place, token in enumerate(answer) if token in ends), len(answer))]


def _tokens(tokenizer: Any, prompt: Prompt) -> list[int]:
    if not isinstance(prompt, str):
        return [int(token) for token in prompt]
    if tokenizer is None:
        raise ValueError(f"texts need a tokenizer, found None for the prompt {prompt[:40]!r}")
    return [int(token) for token in tokenizer(prompt)["input_ids"]]
