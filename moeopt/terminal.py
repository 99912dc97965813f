"""What the command line shows: answers on standard output, progress on standard error."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from moeopt.news import News

EXIT_CODES = {"infeasible-claimed": 3, "none-found": 3, "interrupted": 130, "disagreement": 1}


def exit_code(status: str) -> int:
    """0 done, 1 a check failed, 3 infeasible, 130 interrupted."""
    return EXIT_CODES.get(status, 0)


def check_folder(path: Path | None) -> None:
    """Before the work, not after it."""
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"{path}: folder {path.parent} does not exist")
    if path is not None and path.is_dir():
        raise ValueError(f"{path}: a file to write is wanted, found a folder")


def show(answer: dict[str, Any], draw: Callable[[], list[Any]], *, as_json: bool) -> None:
    """JSON, or what `draw` gives, on standard output."""
    from moeopt.storage import plain

    if as_json:
        typer.echo(json.dumps(answer, default=plain, allow_nan=False))
        return
    from rich.console import Console

    console = Console()
    for item in draw():
        if item:
            console.print(item)


class Bar:
    """One bar: called, it steps; `hear` shows the last cost and bound of the layer that told them."""

    def __init__(self, bars: Any, text: str, total: int) -> None:
        self._bars, self._text, self._task = bars, text, bars.add_task(text, total=total)

    def __call__(self) -> None:
        """One step more is done."""
        self._bars.advance(self._task)

    def hear(self, news: News) -> None:
        """Write the values of a layer behind the text."""
        self._bars.update(self._task, description=f"{self._text} · {told(news)}")


def told(news: News) -> str:
    """What a layer has now, in a few words."""
    if news.cost is None:
        return f"layer {news.layer_id}: bound {news.bound:,}"
    if news.bound is None:
        return f"layer {news.layer_id}: cost {news.cost:,}"
    gap = (news.cost - news.bound) / news.cost if news.cost else 0.0
    return f"layer {news.layer_id}: cost {news.cost:,}, bound {news.bound:,} ({100 * gap:.2f} %)"


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int], Bar]]:
    """Start bars on standard error where somebody looks at it: follow(text, total) gives a bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bars:

        def follow(text: str, total: int) -> Bar:
            return Bar(bars, text, total)

        yield follow
