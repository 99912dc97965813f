"""Pictures show the numbers they are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest

import moeopt as mo
from moeopt.figures import draw_coactivation, draw_comparison

matplotlib.use("Agg")
FREELY = mo.Stop(seconds=None)
TRACE = mo.Generator(layers=2, experts=8, top_k=2, tokens=300, requests=24, groups=3, group_size=3).generate()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=2))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def test_bars_are_the_rows() -> None:
    rows = mo.compare(PROBLEM, ["linear", "random", "blocks"], seeds=(0, 1), stop=FREELY)
    axes: Any = draw_comparison(rows)
    axes.figure.canvas.draw()
    names = ["linear", "random", "blocks"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    for bar, name in zip(axes.patches, names, strict=True):
        values = [row.fan_out for row in rows if row.method == name and row.fan_out is not None]
        assert bar.get_width() == pytest.approx(np.mean(values))
    optimum = np.mean([row.fan_out for row in rows if row.method == "blocks" and row.fan_out is not None])
    assert axes.lines[0].get_xdata()[0] == pytest.approx(optimum)
    assert draw_comparison(rows[:1], axes=axes) is axes


def test_experts_stand_by_gpu() -> None:
    placement = mo.solve(PROBLEM, "blocks", stop=FREELY).placement
    assert placement is not None
    axes: Any = draw_coactivation(PROBLEM, placement, layer=1)
    axes.figure.canvas.draw()
    shown = axes.images[0].get_array()
    assert shown.shape == (8, 8)
    assert (shown == shown.T).all()
    assert len(axes.lines) == 2 * 3  # between four GPUs, both ways
    assert "layer 1" in axes.get_xlabel()
