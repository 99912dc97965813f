"""Trains a small MoE model on four families of text and records its routes: python -m benchmarks.train_tiny_moe FOLDER

Everything is kept in FOLDER: tokenizer, tokens, checkpoint (a run that ended goes on from it), trace.parquet.
A folder has one seed and one amount of text. Needs torch, transformers and chitchat-dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.tiny_texts import FAMILIES
from benchmarks.tiny_training import Shape, model, tokens, train
from moeopt import api, storage
from moeopt.characteristics import profile
from moeopt.cluster import Cluster
from moeopt.comparison import mean_fan_out
from moeopt.control import null
from moeopt.hf_generation import record
from moeopt.problem import Problem
from moeopt.readers.parquet import encode
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload


def prompts(
    held: dict[str, dict[str, NDArray[Any]]], *, requests: int, length: int, stride: int = 512
) -> dict[str, list[list[int]]]:
    """`requests` excerpts of `length` tokens of each family's held-out documents.

    The start of every document, then what begins `stride` tokens later, and so on.
    """
    found = {}
    for family, data in held.items():
        ends = np.append(data["starts"][1:], len(data["held"]))
        places = [
            (start - first, start)
            for first, end in zip(data["starts"].tolist(), ends.tolist(), strict=True)
            for start in range(first, end - length, stride)
        ]
        found[family] = [data["held"][at : at + length].tolist() for _, at in sorted(places)[:requests]]
    return found


def largest(trace: Trace, *, limit: int) -> tuple[Trace, bytes]:
    """As many first requests of every family as fit `limit` bytes of Parquet, and their file."""
    requests, first = np.unique(trace.request, return_index=True)
    by_family = [requests[trace.family[first] == family] for family in range(len(trace.families))]
    fits, fails = 1, max(map(len, by_family)) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if len(encode(_first(trace, by_family, middle))) <= limit:
            fits = middle
        else:
            fails = middle
    best = _first(trace, by_family, fits)
    return best, encode(best)


def _first(trace: Trace, by_family: list[NDArray[Any]], count: int) -> Trace:
    return trace.take(np.isin(trace.request, np.concatenate([part[:count] for part in by_family])))


def richness(trace: Trace, *, gpus: int, seed: int) -> str:
    """How much structure there is to place by, as text: loads, families, and pairs against the shuffled trace."""
    control = null(trace, seed=seed)
    about = profile(trace)
    heavy, flat = _heavy(trace), _heavy(control)
    distinct = [len(sets) / trace.n_tokens for sets in Workload.from_trace(trace).layers]
    lines = ["layer  max/mean  families  prefill~decode  distinct sets  heaviest 5 % of pairs (shuffled)"]
    for index, layer in enumerate(about.layers):
        lines.append(
            f"{layer.layer:5}  {layer.max_over_mean:8.2f}  {_shown(layer.family_correlation):>8}  "
            f"{_shown(layer.phase_correlation):>14}  {distinct[index]:13.1%}  "
            f"{heavy[index]:.1%} ({flat[index]:.1%})"
        )
    lines += [f"{pair}: correlation of loads {value:.2f}" for pair, value in about.similarity.items()]
    for name, one in (("trace", trace), ("shuffled", control)):
        problem = Problem.from_trace(one, Cluster.of(gpus=gpus, slots=one.n_experts // gpus))
        found = [
            mean_fan_out(problem, result.placement)
            for method in ("linear", "spectral")
            if (result := api.solve(problem, method, stop=Stop(seconds=5), seed=seed)).placement is not None
        ]
        lines.append(
            f"{name}: further GPUs a token, linear {found[0]:.3f}, spectral {found[1]:.3f}: "
            f"{1 - found[1] / found[0]:.1%} less on {gpus} GPUs"
        )
    return "\n".join(lines)


def _heavy(trace: Trace) -> list[float]:
    """By layer, the share of all co-activations that the heaviest twentieth of the pairs of experts has."""
    upper = np.triu_indices(trace.n_experts, 1)
    shares = []
    for sets in Workload.from_trace(trace).layers:
        pairs = np.sort(sets.affinity(sets.counts.sum(axis=1))[upper])[::-1]
        shares.append(float(pairs[: len(pairs) // 20].sum() / pairs.sum()))
    return shares


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main(
    folder: Path,
    minutes: Annotated[float, typer.Option(help="of training in this run")] = 30,
    steps: Annotated[int, typer.Option(help="of training in all runs")] = 3000,
    threads: int = 2,
    seed: int = 0,
    characters: Annotated[int, typer.Option(help="of text a family")] = 6_000_000,
    balance: Annotated[float, typer.Option(help="coefficient of the load-balancing loss")] = 0.01,
    requests: Annotated[int, typer.Option(help="recorded of each family")] = 150,
    prompt: Annotated[int, typer.Option(help="tokens of a request's prompt")] = 96,
    answer: Annotated[int, typer.Option(help="tokens generated for it")] = 64,
    limit: Annotated[int, typer.Option(help="bytes of trace.parquet")] = 1_500_000,
) -> None:
    """Train for some minutes, then record held-out prompts and answers, and tell how rich the routes are."""
    import torch

    torch.set_num_threads(threads)
    shape = Shape()
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        family: tokens(folder, family, shape=shape, seed=seed, characters=characters) for family in FAMILIES
    }
    print({family: len(part["train"]) for family, part in data.items()}, "tokens to train on", flush=True)
    network = model(shape, seed=seed)
    print(f"{sum(part.numel() for part in network.parameters()) / 1e6:.1f} M parameters", flush=True)
    done = train(
        network,
        {family: part["train"] for family, part in data.items()},
        folder=folder,
        shape=shape,
        seed=seed,
        steps=steps,
        minutes=minutes,
        balance=balance,
    )
    torch.manual_seed(seed)
    trace = record(
        network,
        None,
        prompts=prompts(data, requests=requests, length=prompt),
        max_new_tokens=answer,
        batch=25,
        generation={"do_sample": True, "top_k": 50},
        name="tiny-olmoe",
    )
    kept, content = largest(trace, limit=limit)
    storage.write_bytes(folder / "trace.parquet", content)
    print(f"after {done} steps: {kept.n_tokens} of {trace.n_tokens} tokens recorded, {len(content)} bytes")
    print(richness(kept, gpus=8, seed=seed))


if __name__ == "__main__":
    typer.run(main)
