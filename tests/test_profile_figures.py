"""Figures show the numbers they are given."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moeopt.profile_figures import bar_chart, heat_map, line_chart, number_grid, readable


def boxes(svg: str) -> list[dict[str, float]]:
    names = ("x", "y", "width", "height")
    return [
        {name: float(box.get(name, "0")) for name in names}
        for box in ElementTree.fromstring(svg).iter("rect")
    ]


@example([7.785593368716472e-12])
@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=1, max_size=9))
def test_bars_are_as_high_as_their_values(values: list[float | None]) -> None:
    found = boxes(bar_chart(values, names=range(len(values)), axis="layer", label="bars"))
    known = [value for value in values if value is not None]
    assert len(found) == len(known)
    for box, value in zip(found, known, strict=True):
        tallest = max(b["height"] for b in found)
        assert box["height"] == pytest.approx(value / (max(known) or 1.0) * tallest, abs=0.2)
        assert box["height"] <= 215


def test_a_line_breaks_where_a_value_is_missing() -> None:
    svg = line_chart([("a", [0.5, None, 0.7, 0.9])], names=range(4), axis="layer", label="line")
    (path,) = [
        one.get("d", "") for one in ElementTree.fromstring(svg).iter("path") if one.get("class") == "l0"
    ]
    assert re.sub(r"[^ML]", "", path) == "MML"


def test_lines_stay_inside_the_figure() -> None:
    svg = line_chart([("a", [-1.0, 1.0])], names=range(2), axis="layer", label="line", line=-1.0)
    heights = [float(dot.get("cy", "nan")) for dot in ElementTree.fromstring(svg).iter("circle")]
    assert all(0 <= height <= 215 for height in heights)


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_heat_map_shades_each_cell_once(side: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 9, (side, side))
    drawn = np.zeros_like(levels)
    for path in ElementTree.fromstring(heat_map(levels, edges=(), label="pairs")).iter("path"):
        if path.get("class") == "s0":
            level = round(8 * float(path.get("fill-opacity", "0")))
            for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1", path.get("d", "")):
                drawn[int(y), int(x) : int(x) + int(width)] += level
    assert (drawn == levels).all()


def test_a_grid_writes_numbers_where_there_is_room_and_none_for_the_unknown() -> None:
    svg = number_grid([[0.987, -0.001], [None, -0.5]], names=["code", "math"], label="r")
    words = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert [word for word in words if word and word[-1].isdigit()] == ["0.99", "0.00", "-0.50"]
    assert [box.get("class") for box in ElementTree.fromstring(svg).iter("rect")] == ["s0", "cold", "cold"]
    crowded = number_grid([[1.0] * 24] * 24, names=[f"family {at}" for at in range(24)], label="r")
    assert ">1.00<" not in crowded


@given(st.text())
def test_any_text_becomes_well_formed_and_nothing_else(text: str) -> None:
    found = ElementTree.fromstring(f"<p>{readable(text)}</p>")
    assert len(found) == 0
    assert len(found.text or "") == len(text)


def test_long_and_unprintable_text_is_cut_and_marked() -> None:
    assert readable("abcdef", most=4) == "abc…"
    assert readable("a\x00\u202eb\ud800") == "a··b·"
    assert readable('<a href="x">&') == "&lt;a href=&quot;x&quot;&gt;&amp;"
