"""The texts of the small model, the choice of what is recorded, and training in parts."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.tiny_texts import documents, unmarked
from benchmarks.tiny_training import Shape, model, train, unevenness
from benchmarks.train_tiny_moe import largest, prompts, richness
from moeopt.readers.parquet import encode
from moeopt.samples import sample

TINY = Shape(
    vocabulary=50, layers=2, experts=8, top_k=2, hidden=16, intermediate=8, heads=2, rows=4, context=16
)


@pytest.mark.parametrize("family", ["code", "math"])
def test_texts_follow_their_seed_and_none_is_there_twice(family: str) -> None:
    texts = documents(family, seed=3, characters=100_000)
    assert texts == documents(family, seed=3, characters=100_000)
    assert texts != documents(family, seed=4, characters=100_000)
    assert len(set(texts)) == len(texts)
    assert 100_000 <= sum(map(len, texts)) < 110_000


def test_every_step_of_the_mathematics_is_true() -> None:
    steps = 0
    for text in documents("math", seed=0, characters=50_000):
        for left, right in re.findall(r"^([\d+*/ -]+) = ([\d+*/ -]+)$", text, re.MULTILINE):
            assert value(left) == value(right), (left, right)
            steps += 1
        for slope, shift, total, answer in re.findall(
            r"Solve (\d+)x \+ (\d+) = (-?\d+) for x\.(?:\n.*){3}\nAnswer: x = (-?\d+)", text
        ):
            assert int(slope) * int(answer) + int(shift) == int(total)
            steps += 1
    assert steps > 500


def value(text: str) -> Fraction:
    """A sum of products and quotients of whole numbers."""
    total = Fraction(0)
    for sign, term in re.findall(r"([+-]?)\s*([\d*/ ]+)", text):
        product = Fraction(1)
        for operation, number in re.findall(r"([*/]?)\s*(\d+)", term):
            product = product / int(number) if operation == "/" else product * int(number)
        total += -product if sign == "-" else product
    return total


def test_manual_pages_lose_their_markup_and_keep_their_words() -> None:
    page = '.\\" comment\n.TH TAR 1\n.SH NAME\ntar \\- an \\fBarchiving\\fR \\(aqutility\\(aq\n.\n.B \\-\\-delete\n'
    assert unmarked(page) == "NAME\ntar - an archiving 'utility'\n--delete"


def test_prompts_lie_within_documents_and_the_starts_of_all_come_first() -> None:
    held = {"code": {"held": np.arange(40, dtype=np.uint16), "starts": np.array([0, 20, 25])}}
    found = prompts(held, requests=4, length=6, stride=8)["code"]
    assert [prompt[0] for prompt in found] == [0, 25, 8, 33]
    assert all(prompt == list(range(prompt[0], prompt[0] + 6)) for prompt in found)


def test_as_many_whole_requests_of_every_family_are_kept_as_fit() -> None:
    trace = sample("tiny-moe")
    kept, content = largest(trace, limit=100_000)
    assert content == encode(kept)
    assert len(content) <= 100_000
    requests, first, tokens = np.unique(kept.request, return_index=True, return_counts=True)
    assert tokens.tolist() == [int((trace.request == request).sum()) for request in requests]
    counts = np.bincount(kept.family[first])
    assert counts.min() == counts.max() > 1
    more, first = np.unique(trace.request, return_index=True)
    larger = [more[trace.family[first] == family][: counts[0] + 1] for family in range(4)]
    assert len(encode(trace.take(np.isin(trace.request, np.concatenate(larger))))) > 100_000


def test_the_report_shows_structure_in_a_trace_that_its_shuffle_lacks() -> None:
    trace = sample("tiny-moe")
    text = richness(trace.layers([0, 3]).take(trace.position < 64), gpus=8, seed=0)
    saved = [float(part) for part in re.findall(r": (-?[\d.]+)% less on 8 GPUs", text)]
    assert saved[0] > 5 > abs(saved[1])
    for heavy, flat in re.findall(r"([\d.]+)% \(([\d.]+)%\)", text):
        assert float(heavy) > float(flat)


def test_training_in_parts_is_the_whole_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra hf")
    pytest.importorskip("transformers", reason="needs the extra hf")
    data = {
        family: np.random.default_rng(seed).integers(50, size=200).astype(np.uint16)
        for seed, family in enumerate(("code", "math"))
    }
    options: dict[str, Any] = {"folder": tmp_path, "shape": TINY, "seed": 0}
    whole = model(TINY, seed=0)
    assert train(whole, data, steps=5, minutes=1, **options) == 5
    (tmp_path / "checkpoint.pt").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.tiny_training.time.monotonic", count(step=20).__next__)  # seconds
        assert 0 < train(model(TINY, seed=0), data, steps=5, minutes=2, **options) < 5
    fresh = model(TINY, seed=1)
    assert train(fresh, data, steps=5, minutes=1, **options) == 5
    for one, other in zip(whole.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not fresh.training


def test_unevenness_is_one_for_even_loads_in_every_layer_and_does_not_pool_layers() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra hf")
    even = 30.0 * torch.eye(4)  # each token to its own expert
    first = torch.full((4, 4), -30.0)
    first[:, 0] = 30.0
    assert unevenness([even, even], top_k=1).item() == pytest.approx(1)
    assert unevenness([first], top_k=1).item() == pytest.approx(4)
    opposite = [first.roll(shift, 1) for shift in range(4)]  # even when pooled
    assert unevenness(opposite, top_k=1).item() == pytest.approx(4)
