"""The page of a profile: one file, well formed, safe to open, with commands that exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt.cli import app
from moeopt.control import null
from moeopt.load_counts import load_workload
from moeopt.pair_counts import PairCounts
from moeopt.profile_counts import Traffic
from moeopt.profile_page import page_of, topics_of, write_page
from moeopt.profile_pairs import chosen_layers, pair_picture
from moeopt.workload import Workload
from tests.pages import checked
from tests.strategies import traces

SAMPLE = mo.sample("tiny-moe")
WORKLOAD = Workload.from_trace(SAMPLE)
PAIRS = replace(WORKLOAD, layers=tuple(PairCounts.of_sets(sets) for sets in WORKLOAD.layers))
LOADS = load_workload(
    np.stack([sets.load for sets in WORKLOAD.layers]), layer_ids=WORKLOAD.layer_ids, top_k=SAMPLE.top_k
)


def page(traffic: Traffic, **options: Any) -> str:
    return page_of(mo.profile(traffic), traffic=traffic, **options)


@pytest.mark.parametrize("traffic", [SAMPLE, WORKLOAD, PAIRS, LOADS], ids=["trace", "sets", "pairs", "loads"])
def test_a_page_is_one_well_formed_file_for_any_form_of_traffic(traffic: Traffic) -> None:
    text = page(traffic)
    reader = checked(text)
    assert "prefers-color-scheme:dark" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in reader.elements
    assert "default-src 'none'" in text
    assert len(text) < 300_000
    for word in ("nan", "None", "inf "):
        assert word not in re.sub("<style>.*</style>", "", text, flags=re.DOTALL).split()


def test_every_figure_has_a_sentence_with_a_number_and_a_name_for_those_who_do_not_see_it() -> None:
    topics = topics_of(mo.profile(SAMPLE), traffic=SAMPLE)
    assert [len(topic.figures) for topic in topics] == [1, 1, 1, 3, 1, 1]
    for topic in topics:
        assert all(len(row) == len(topic.columns) for row in topic.rows)
        for figure in topic.figures:
            assert re.search(r"\d", figure.sentence)
            assert ElementTree.fromstring(figure.svg).get("aria-label")


@pytest.mark.parametrize("traffic", [SAMPLE, WORKLOAD, PAIRS, LOADS], ids=["trace", "sets", "pairs", "loads"])
def test_what_to_do_next_is_a_command_that_exists(traffic: Traffic) -> None:
    verbs: Any = typer.main.get_command(app)
    for topic in topics_of(mo.profile(traffic), traffic=traffic):
        assert bool(topic.advice) == bool(topic.command) == bool(topic.figures)
        if not topic.command:
            assert topic.why
            continue
        name, verb, *words = shlex.split(topic.command)
        assert name == "moeopt"
        flags = {flag for option in verbs.commands[verb].params for flag in option.opts}
        assert {word for word in words if word.startswith("-")} <= flags


def test_kinds_of_requests_are_a_topic_when_asked_for() -> None:
    found = mo.profile(SAMPLE, classify=True)
    assert found.classification is not None
    recorded, shuffled = found.classification.recorded, found.classification.shuffled
    assert recorded == mo.classify(SAMPLE, seed=0)
    assert shuffled == mo.classify(null(SAMPLE, seed=0), seed=0)
    text = page_of(found, traffic=SAMPLE)
    checked(text)
    assert "Kinds of requests" in text
    assert f"{100 * recorded.mean:.1f} % of {recorded.held_out} held-out requests" in text
    assert "Kinds of requests" not in page(SAMPLE)
    for topic in topics_of(found, traffic=SAMPLE):
        assert shlex.split(topic.command)[0] == "moeopt"


@pytest.mark.parametrize("traffic", [WORKLOAD, PAIRS, LOADS], ids=["sets", "pairs", "loads"])
def test_counts_do_not_tell_kinds_of_requests(traffic: Traffic) -> None:
    with pytest.raises(ValueError, match="a trace is needed, not counts"):
        mo.profile(traffic, classify=True)


def test_loads_without_a_top_k_do_not_claim_one() -> None:
    loads = np.stack([sets.load for sets in WORKLOAD.layers])
    unknown = load_workload(loads, layer_ids=WORKLOAD.layer_ids)
    found = mo.profile(unknown)
    assert found.top_k is None
    assert f"{found.tokens:,} activations · 6 layers · 32 experts, top-k not recorded" in page(unknown)
    assert "needs tokens or pair counts, not loads" in page(unknown)
    assert f"top-{SAMPLE.top_k}" in page(LOADS)


def test_transfers_name_both_layers() -> None:
    chosen = SAMPLE.layers([0, 3, 5])
    flow = next(topic for topic in topics_of(mo.profile(chosen), traffic=chosen) if "layer to" in topic.title)
    assert [row[0] for row in flow.rows] == ["0 → 3", "3 → 5"]


def test_a_recording_without_a_topic_says_why() -> None:
    text = page(LOADS)
    assert "Not told by this recording: needs tokens or pair counts, not loads." in text
    assert "Not told by this recording: needs tokens: a trace, not counts." in text
    assert "--objective load" in text
    assert "--objective cut" in page(PAIRS)


@settings(max_examples=20, deadline=None)
@given(traces(), st.lists(st.text(min_size=1), min_size=3, max_size=3, unique=True), st.text())
def test_text_of_the_recording_stays_text(trace: mo.Trace, names: list[str], model: str) -> None:
    checked(page(replace(trace, families=tuple(names[: len(trace.families)]), model=model)))


def test_names_that_are_markup_are_shown_not_run() -> None:
    names = (
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</style></title>",
        "a\x00\u202eb",
    )
    text = page(replace(SAMPLE, families=names, model="</title><script>"))
    checked(text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text
    assert "<img" not in text
    assert "\x00" not in text
    assert "\u202e" not in text


def test_experts_stand_by_gpu_when_a_placement_is_given() -> None:
    gpu_of = [[(7 * expert + layer) % 4 for expert in range(32)] for layer in range(6)]
    placement = mo.Placement.partition(gpu_of, mo.Cluster.of(gpus=4, slots=8), layer_ids=range(6))
    picture = pair_picture(SAMPLE, 2, placement=placement)
    assert picture is not None
    assert (picture.groups, picture.edges) == (4, (8, 16, 24))
    sets = WORKLOAD.layers[2]
    affinity, same = sets.affinity(sets.counts.sum(axis=1)), np.equal.outer(gpu_of[2], gpu_of[2])
    assert picture.inside == pytest.approx(affinity[same].sum() / affinity.sum())
    order = np.argsort(gpu_of[2], kind="stable")
    assert (affinity[np.ix_(order, order)][picture.levels > 0] > 0).all()
    assert "4 GPUs hold" in page(SAMPLE, placement=placement)


def test_spectral_groups_hold_more_pairs_than_independent_choice_puts_there() -> None:
    pictures = [pair_picture(SAMPLE, at) for at in chosen_layers(mo.profile(SAMPLE))]
    assert len(pictures) == 3
    for picture in pictures:
        assert picture is not None
        assert picture.groups == 8
        assert picture.inside > 1.5 * picture.expected


def test_many_experts_share_cells() -> None:
    rng = np.random.default_rng(0)
    trace = mo.Trace(np.argsort(rng.random((300, 1, 400)), axis=2)[:, :, :4], 400)
    picture = pair_picture(trace, 0)
    assert picture is not None
    assert (picture.block, picture.levels.shape) == (3, (134, 134))
    checked(page(trace))


def test_a_placement_of_another_model_is_refused() -> None:
    small = mo.Placement.partition([[0, 1]] * 6, mo.Cluster.of(gpus=2, slots=1), layer_ids=range(6))
    with pytest.raises(ValueError, match="2 experts a layer, the recording 32"):
        page(SAMPLE, placement=small)
    other = mo.Placement.partition([[0] * 32], mo.Cluster.of(gpus=1, slots=32), layer_ids=[40])
    with pytest.raises(ValueError, match="layer 4 is not in the placement"):
        page(SAMPLE.layers([4]), placement=other)


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    found = mo.profile(SAMPLE)
    write_page(found, tmp_path / "page.html", traffic=SAMPLE)
    checked((tmp_path / "page.html").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="does not exist"):
        write_page(found, tmp_path / "absent" / "page.html", traffic=SAMPLE)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_noise_is_called_noise() -> None:
    rng = np.random.default_rng(0)
    trace = mo.Trace(
        np.argsort(rng.random((6000, 2, 64)), axis=2)[:, :, :4],
        64,
        families=("a", "b"),
        family=rng.integers(0, 2, 6000).astype(np.uint8),
        request=np.arange(6000, dtype=np.int32) // 20,
        phase=rng.integers(0, 2, 6000).astype(np.uint8),
    )
    _, families, phases, pairs, flow, drift = topics_of(mo.profile(trace), traffic=trace)
    assert families.advice.startswith("Halves of one family differ as well")
    assert phases.advice.startswith("Halves of the requests differ as well")
    assert pairs.advice.startswith("Experts are chosen almost independently")
    assert flow.advice.startswith("Layers choose almost independently")
    assert drift.advice.startswith("Too little traffic")
    assert not re.search(r"-0\.?0*(?![\d.])", re.sub("<style>.*</style>", "", page(trace), flags=re.DOTALL))


def test_structure_is_called_structure() -> None:
    _, families, phases, pairs, flow, drift = topics_of(mo.profile(SAMPLE), traffic=SAMPLE)
    assert families.advice.startswith("Families use different experts")
    assert phases.advice.startswith("Both phases load the same experts")
    assert pairs.advice.startswith("Experts go together")
    assert flow.advice.startswith("The expert of a layer tells about that of the next")
    assert drift.advice.startswith("Loads move")
