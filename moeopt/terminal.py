"""What the command line shows: answers on standard output, progress on standard error."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

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


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Start bars on standard error where somebody looks at it: follow(text, total) gives a function that steps one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bars:

        def follow(text: str, total: int) -> Callable[[], None]:
            task = bars.add_task(text, total=total)
            return lambda: bars.advance(task)

        yield follow
