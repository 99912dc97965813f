"""A small MoE model, its tokenizer and its training from scratch, all resumable from one folder.

The architecture is OLMoE's, every layer MoE, with a load-balancing loss a layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tiny_texts import FAMILIES, documents

END = 0  # token between documents
HELD_OUT = 0.05  # of the documents


@dataclass(frozen=True)
class Shape:
    """Sizes of the model and of its batches.

    | field | holds |
    |---|---|
    | vocabulary | tokens of the byte-level BPE |
    | layers, experts, top_k | all layers are MoE |
    | hidden, intermediate, heads | widths: of the model, of an expert; attention heads |
    | rows, context | sequences a batch, a multiple of the families, and tokens each |
    """

    vocabulary: int = 4096
    layers: int = 8
    experts: int = 64
    top_k: int = 8
    hidden: int = 128
    intermediate: int = 64
    heads: int = 4
    rows: int = 8
    context: int = 256


def tokenizer(folder: Path, *, shape: Shape, seed: int) -> Any:
    """The tokenizer of `folder`, trained on a part of the texts at first use."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = folder / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = [text for family in FAMILIES for text in documents(family, seed=seed, characters=1_000_000)]
    found.train_from_iterator(sample, trainer)
    found.save(str(path))
    return found


def tokens(folder: Path, family: str, *, shape: Shape, seed: int, characters: int) -> dict[str, NDArray[Any]]:
    """`train` uint16 [tokens], `held` uint16 [tokens] and `starts` int64 of the held-out documents in it."""
    path = folder / f"tokens_{family}.npz"
    if not path.exists():
        encoder = tokenizer(folder, shape=shape, seed=seed)
        texts = documents(family, seed=seed, characters=characters)
        rows = [np.array([*found.ids, END], np.uint16) for found in encoder.encode_batch_fast(texts)]
        kept = max(int(len(rows) * HELD_OUT), 1)
        starts = np.cumsum([0, *(len(row) for row in rows[:kept])])[:-1]
        np.savez(path, train=np.concatenate(rows[kept:]), held=np.concatenate(rows[:kept]), starts=starts)
    with np.load(path) as archive:
        return dict(archive)


def model(shape: Shape, *, seed: int) -> Any:
    """An OLMoE model with random weights."""
    import torch
    from transformers import OlmoeConfig, OlmoeForCausalLM

    torch.manual_seed(seed)
    config = OlmoeConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_experts=shape.experts,
        num_experts_per_tok=shape.top_k,
        max_position_embeddings=4 * shape.context,
        router_aux_loss_coef=0.0,  # see `unevenness`
        eos_token_id=END,
        bos_token_id=None,
        pad_token_id=None,
    )
    return OlmoeForCausalLM(config)


def train(
    network: Any,
    data: dict[str, NDArray[Any]],
    *,
    folder: Path,
    shape: Shape,
    seed: int,
    steps: int,
    minutes: float,
    balance: float = 0.01,
    rate: float = 2e-3,
) -> int:
    """Steps done in all, `steps` at most, when `minutes` are over; goes on from the folder's checkpoint.

    Batch s depends on the seed and s alone, the learning rate on s and `steps`: a run in parts is the whole run.
    `balance` is the coefficient of `unevenness`.
    """
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    path, step = folder / "checkpoint.pt", 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        network.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    first, began, kept = step, time.monotonic(), time.monotonic()
    network.train()
    while step < steps and time.monotonic() - began < 60 * minutes:
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 100, 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))
        ids = torch.from_numpy(_batch(data, shape, seed=seed, step=step))
        found = network(input_ids=ids, labels=ids, output_router_logits=True)
        uneven = unevenness(found.router_logits, top_k=shape.top_k)
        (found.loss + balance * uneven).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        now = time.monotonic()
        if step % 50 == 0 or step in (1, steps):
            pace = (step - first) / (now - began)
            print(
                f"step {step}: loss {found.loss.item():.3f}, unevenness {uneven.item():.2f}, {pace:.2f} steps/s",
                flush=True,
            )
        if now - kept > 120:
            _keep(path, network, optimizer, step)
            kept = now
    _keep(path, network, optimizer, step)
    network.eval()
    return step


def unevenness(logits: Sequence[Any], *, top_k: int) -> Any:
    """Load-balancing loss of arXiv 2101.03961, section 2.2: E sum_e share_e gate_e, 1 when loads are even.

    `logits` is [tokens, experts] of each layer; the mean over layers is taken, so that each is balanced on its own.
    The loss within transformers pools the layers, and leaves single layers as uneven as they like.
    """
    import torch

    total = 0.0
    for layer in logits:
        gates = layer.float().softmax(-1)
        chosen = torch.zeros_like(gates).scatter_(1, gates.topk(top_k).indices, 1 / top_k)
        total = total + layer.shape[1] * (chosen.mean(0) @ gates.mean(0))
    return total / len(logits)


def _batch(data: dict[str, NDArray[Any]], shape: Shape, *, seed: int, step: int) -> NDArray[np.int64]:
    """int64 [rows, context]: as many excerpts of every family."""
    rng = np.random.default_rng([seed, step])
    rows = []
    for text in data.values():
        starts = rng.integers(len(text) - shape.context, size=shape.rows // len(data))
        rows.append(text[starts[:, None] + np.arange(shape.context)])
    return np.concatenate(rows).astype(np.int64)


def _keep(path: Path, network: Any, optimizer: Any, step: int) -> None:
    import torch

    part = path.with_suffix(".part")
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, part)
    part.replace(path)
