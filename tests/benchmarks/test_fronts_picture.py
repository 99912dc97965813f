"""The README's picture: what the rows say, drawn again when they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import fronts_picture
from benchmarks.fronts_picture import EXPERIMENT, FILE, MODELS, NAMES, curve, drawn_fronts, refresh
from benchmarks.run import RESULTS, shown
from moeopt.bench_files import publish
from moeopt.bench_rows import Key, Row
from moeopt.bench_store import Store


def made(scheme: str, replicas: int, seed: int, saved: float | None) -> list[Row]:
    """A row of each model."""
    served = None
    if saved is not None:
        served = {"cover": {"reduction": saved + 0.1}, "guard 0.15": {"reduction": saved}}
        served = served if replicas else {"cover": {"reduction": saved}}
    found: dict[str, Any] = {"scheme": scheme, "replicas": replicas, "tolerance": 0.15, "served": served}
    return [
        Key(f"{model}, {replicas}", None, scheme, seed, "").row("done", model=model, **found)
        for model in MODELS
    ]


ROWS = [
    row
    for scheme in NAMES
    for replicas in (0, 8)
    for seed in (0, 1)
    for row in made(scheme, replicas, seed, 0.2 + 0.01 * replicas + 0.02 * seed)
]


def test_a_curve_is_the_mean_over_splits_as_served_by_the_guard() -> None:
    (none, few), (some, more) = curve(ROWS, MODELS[0], "search")
    assert (none, some) == (0, 8)
    assert (few, more) == pytest.approx((0.21, 0.29))


def test_where_a_split_has_no_placement_there_is_no_point() -> None:
    rows = [*ROWS, *made("search", 8, 2, None)]
    assert [replicas for replicas, _ in curve(rows, MODELS[0], "search")] == [0]


def test_the_picture_names_every_method_and_model_and_stays_inside() -> None:
    tree = ElementTree.fromstring(drawn_fronts(ROWS))
    texts = [element.text or "" for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert all(texts.count(name) == len(MODELS) for name in NAMES.values())
    assert all(any(model in text for text in texts) for model in MODELS)
    for circle in tree.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 < float(circle.attrib["cx"]) < fronts_picture.WIDTH
        assert fronts_picture.TOP <= float(circle.attrib["cy"]) <= fronts_picture.HEIGHT


def test_it_is_drawn_again_when_rows_change(tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    assert refresh(folder=tmp_path, file=file) == []
    store = Store(tmp_path / "rows.sqlite")
    store.append(ROWS, experiment=EXPERIMENT)
    publish(store, tmp_path, experiments=[EXPERIMENT])
    assert refresh(folder=tmp_path, file=file, write=False) == ["picture.svg"]
    assert not file.exists()
    assert refresh(folder=tmp_path, file=file) == ["picture.svg"]
    assert refresh(folder=tmp_path, file=file) == []


def test_the_picture_is_that_of_the_stored_rows() -> None:
    assert shown(EXPERIMENT)
    assert refresh(folder=RESULTS, write=False) == []
    assert FILE.exists()
