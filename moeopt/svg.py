"""Pictures as SVG text; colours are classes of the page that holds them, see `moeopt.page`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

__all__ = ["picture", "readable", "round_step"]


def readable(text: object, *, most: int | None = None) -> str:
    """Text for HTML and SVG: escaped, what cannot be printed shown as a dot, shortened to `most` characters."""
    shown = "".join(letter if letter.isprintable() else "·" for letter in str(text))
    return escape(shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…")


def picture(parts: Sequence[str], label: str, *, width: float, height: float, crisp: bool = False) -> str:
    """The parts as one picture of that size; `label` is for those who do not see it."""
    edges = ' shape-rendering="crispEdges"' if crisp else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{readable(label)}"{edges}>'
        f"{''.join(parts)}</svg>"
    )


def round_step(spread: float) -> float:
    """Distance of at most six round numbers over a spread."""
    spread = max(spread, 1e-9)
    power: float = 10.0 ** float(np.floor(np.log10(spread / 4)))
    return next(power * unit for unit in (1, 2, 2.5, 5, 10) if spread / (power * unit) <= 5)
