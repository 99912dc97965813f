"""Pictures, with matplotlib from the extra `figures`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moeopt.comparison import Row
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.tables import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moeopt.migration import Step

INK, MUTED, ACCENT = "#1f2933", "#9aa5b1", "#2f6f9f"


def draw_coactivation(problem: Problem, placement: Placement, *, layer: int = 0, axes: Any = None) -> "Axes":
    """Co-activation of one layer (by position), experts ordered by GPU; lines divide the GPUs.

    What a placement keeps together lies in the squares on the diagonal. Shades are the share of the pair's rarer
    expert that fires with the other; the scale ends at its 99th percentile.
    """
    sets = problem.workload.layers[layer]
    order = np.argsort(placement.primary[layer], kind="stable")
    affinity = sets.affinity(problem.set_weights(sets)).astype(float)
    weight = np.maximum(sets.weighted_load(problem.set_weights(sets)), 1)
    share = affinity / np.minimum.outer(weight, weight)
    axes = _axes(axes, (4.2, 4.0))
    axes.imshow(share[np.ix_(order, order)], cmap="Blues", vmin=0, vmax=np.quantile(share, 0.99))
    sizes = np.bincount(placement.primary[layer], minlength=placement.gpus)
    for edge in np.cumsum(sizes)[:-1] - 0.5:
        axes.axhline(edge, color=INK, linewidth=0.6)
        axes.axvline(edge, color=INK, linewidth=0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"experts of layer {placement.layer_ids[layer]}, by GPU")
    return axes  # type: ignore[no-any-return]


def draw_comparison(rows: Sequence[Row], *, axes: Any = None) -> "Axes":
    """Mean fan-out of each method as bars, the best proved bound as a line."""
    methods = list(dict.fromkeys(row.method for row in rows))
    values = [mean([row.fan_out for row in rows if row.method == method]) or 0.0 for method in methods]
    proved = [row.fan_out for row in rows if row.status == "certified-optimal"]
    axes = _axes(axes, (5.5, 0.5 + 0.38 * len(methods)))
    axes.barh(
        methods, values, color=[ACCENT if value == min(values) else MUTED for value in values], height=0.7
    )
    for position, value in enumerate(values):
        axes.text(value, position, f" {value:.3f}", va="center", color=INK, fontsize=9)
    if (bound := mean(proved)) is not None:
        axes.axvline(bound, color=INK, linewidth=1, linestyle="--")
        axes.set_title("dashed: proved optimum", fontsize=9, loc="right", color=INK)
    axes.invert_yaxis()
    axes.set_xlabel("fan-out (further GPUs per token and layer)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlim(0, max(values) * 1.12)
    return axes  # type: ignore[no-any-return]


def draw_front(steps: "Sequence[Step]", *, axes: Any = None) -> "Axes":
    """Fan-out against the copies moved a layer, a dot for each budget; where a bound is known, what no plan undercuts.

    Dots are filled where the placement is proved best within its budget.
    """
    layers = len(steps[0].placement.layer_ids)
    moved = [step.moves / layers for step in steps]
    axes = _axes(axes, (5.5, 3.2))
    axes.plot(moved, [step.fan_out for step in steps], color=ACCENT, linewidth=1, zorder=1)
    for at, step in zip(moved, steps, strict=True):
        proved = step.bound == step.cost
        axes.scatter(at, step.fan_out, color=ACCENT if proved else "white", edgecolor=ACCENT, zorder=2)
    known = [
        (step.budget, step.bound * step.fan_out / step.cost) for step in steps if step.bound and step.cost
    ]
    if known:
        axes.plot(*zip(*known, strict=True), color=INK, linewidth=1, linestyle="--", drawstyle="steps-pre")
        axes.set_title("dashed: bound within the budget", fontsize=9, loc="right", color=INK)
    axes.set_xlabel("copies moved a layer")
    axes.set_ylabel("fan-out")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes  # type: ignore[no-any-return]


def _axes(axes: Any, size: tuple[float, float]) -> Any:
    if axes is not None:
        return axes
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=size, layout="constrained")
    return axes
