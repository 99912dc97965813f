"""Markdown tables, the numbers in them and the order of their lines."""

import re
from collections.abc import Sequence

NONE = "–"


def drawn(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    table = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in table)


def percent(value: float | None) -> str:
    """A share as per cent; a dash for None."""
    return NONE if value is None else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """Two digits, whole seconds from ten on; a dash for None."""
    if value is None:
        return NONE
    if value < 0.001:
        return "< 1 ms"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def numbered(name: str) -> list[tuple[str, int]]:
    """A name to sort by: its numbers count as numbers."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
