"""The verb `profile`: what a recording's traffic looks like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeopt import flags
from moeopt.terminal import check_folder, progress, show

if TYPE_CHECKING:
    from moeopt.placement import Placement


def profile(
    trace: flags.Recording,
    *,
    layers: flags.Layers = None,
    placement: Annotated[
        Path | None,
        typer.Option(help="Orders the experts of the page's figures by GPU.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="One page with figures to write, for any browser.", show_default=False)
    ] = None,
    classify: Annotated[
        bool,
        typer.Option("--classify", help="Also how well its first tokens tell the family of a request."),
    ] = False,
    as_json: flags.AsJson = False,
) -> None:
    """Loads, families, phases, co-activation and drift of any recording."""
    from moeopt import characteristics
    from moeopt.options import data_set, recorded_traffic

    if placement is not None and html is None:
        raise ValueError("--placement orders the figures of a page: --html is needed")
    check_folder(html)
    with progress(quiet=as_json) as follow:
        counted = data_set(trace, layers, follow=follow)
    traffic, placed = recorded_traffic(trace, layers) if counted is None else counted, _placed(placement)
    try:
        found = characteristics.profile(traffic, classify=classify)
    except ValueError as error:
        raise ValueError(f"{trace}: {error}") from error
    if html is not None:
        _write(html, found, traffic, placed, f"{placement} on {trace}" if placed else str(trace))
    show(found.to_dict(), lambda: _drawn(found, html), as_json=as_json)


def _placed(path: Path | None) -> Placement | None:
    from moeopt.api import read_placement

    return None if path is None else read_placement(path)


def _write(path: Path, found: Any, traffic: Any, placed: Placement | None, what: str) -> None:
    from moeopt import storage
    from moeopt.profile_page import page_of

    try:
        page = page_of(found, traffic=traffic, placement=placed)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    storage.write_bytes(path, page.encode())


def _drawn(found: Any, html: Path | None) -> list[Any]:
    from rich.markup import escape

    from moeopt.profile_tables import tables_of

    return [*tables_of(found), "" if html is None else f"{escape(str(html))}: open it in a browser"]
