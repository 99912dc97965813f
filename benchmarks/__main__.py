"""python -m benchmarks smoke | run NAME | report | list"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

import benchmarks.layouts
import benchmarks.sizes  # noqa: F401 - both register their experiments
from benchmarks.cases import CASES
from benchmarks.report import README, update
from benchmarks.run import RESULTS, Row, Store, perform_all
from benchmarks.suite import EXPERIMENTS, Experiment, trouble

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def _run(experiment: Experiment, folder: Path, limit: int | None) -> list[Row]:
    """Run what is missing, with a line a row; the rows of all runs."""
    store = Store(folder / f"{experiment.name}.jsonl")
    begun = time.perf_counter()

    def follow(rows: list[Row]) -> None:
        for row in rows:
            what = row["reason"] if row["outcome"] != "done" else row["found"].get("status", "")
            layer = "" if row["layer"] is None else f", layer {row['layer']}"
            typer.echo(
                f"{time.perf_counter() - begun:6.0f} s  {row['case']}{layer}, {row['method']}, "
                f"seed {row['seed']}: {row['outcome']} {what}"
            )

    perform_all(experiment.tasks(), store, workers=experiment.workers, limit=limit, follow=follow)
    return store.latest()


@app.command()
def smoke() -> None:
    """Every case by every method, briefly, in a temporary folder; exit code 1 when anything is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        rows = _run(EXPERIMENTS["smoke"], Path(folder), None)
    wrong = trouble(rows)
    for line in wrong:
        typer.echo(line, err=True)
    skipped = sum(row["outcome"] == "skipped" for row in rows)
    typer.echo(f"{len(rows)} rows, {skipped} cases skipped, {len(wrong)} wrong")
    raise typer.Exit(1 if wrong else 0)


@app.command("run")
def run_one(
    name: Annotated[str, typer.Argument(help=", ".join(EXPERIMENTS))],
    limit: Annotated[int | None, typer.Option(min=1, help="Tasks at most; the rest another time.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the rows are kept.")] = RESULTS,
) -> None:
    """Run what an experiment has no rows of yet, and keep its rows."""
    known = [experiment.name for experiment in EXPERIMENTS.values() if experiment.stored]
    if name not in known:
        typer.echo(f"no stored experiment is named {name!r}; known are {', '.join(known)}", err=True)
        raise typer.Exit(2)
    for line in trouble(_run(EXPERIMENTS[name], folder, limit)):
        typer.echo(line, err=True)


@app.command("report")
def write_report(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 when stale.")] = False,
    readme: Annotated[Path, typer.Option(help="File with the markers.")] = README,
    folder: Annotated[Path, typer.Option(help="Where the rows are kept.")] = RESULTS,
) -> None:
    """Put the tables of the stored rows between the markers of README.md."""
    stale = update(readme, folder=folder, write=not check)
    for name in stale:
        typer.echo(f"{readme.name}: table {name} {'is stale' if check else 'rewritten'}")
    raise typer.Exit(1 if check and stale else 0)


@app.command("list")
def list_all() -> None:
    """Experiments and cases."""
    for experiment in EXPERIMENTS.values():
        typer.echo(f"{experiment.name:14} {experiment.summary}")
    typer.echo("")
    for case in CASES.values():
        typer.echo(f"{case.name:32} {case.gpus} GPUs x {case.slots}, {case.objective}")


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
