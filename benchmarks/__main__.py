"""python -m benchmarks smoke | run NAME | run all | report | page | show | list"""

import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cases import CASES
from benchmarks.fronts_picture import refresh
from benchmarks.report import PAGES, update
from benchmarks.run import RESULTS, shown, store_in
from benchmarks.suite import EXPERIMENTS, Experiment, trouble
from moeopt.bench_files import collect, publish, write_rows
from moeopt.bench_page import page_of
from moeopt.bench_rows import Key, Row
from moeopt.bench_runs import Limits
from moeopt.bench_store import Store
from moeopt.bench_sweep import forecast, left, sweep
from moeopt.storage import write_bytes

for _module in (
    "layouts",
    "sizes",
    "trials",
    "builders",
    "tiny",
    "agreement",
    "crossings",
    "request_groups",
    "multi_node",
    "papers",
    "partitioners",
    "shifts",
    "transfer",
    "sensitivity",
    "fronts",
    "full_plan",
    "streaming",
    "own_search",
    "races",
    "sweeping",
    "first_steps",
    "kernels",
    "fuzzing",
):  # each registers its experiments
    if find_spec(f"benchmarks.{_module}"):
        import_module(f"benchmarks.{_module}")

ALL, RACES = "all", "races"
LIMITS = Limits(seconds=4 * 3600, mebibytes=10 << 10)  # of a run: the longest takes an hour
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def _run(experiment: Experiment, store: Store, limit: int | None = None, *, again: bool = False) -> list[Row]:
    """Run what is missing, with a line a row; the rows of all runs."""
    name, workers = experiment.name, experiment.workers
    tasks = (list(experiment.tasks()) if again else left(experiment.tasks(), store, experiment=name))[:limit]
    typer.echo(f"{name}: {forecast(tasks, store.latest(name), workers=workers)}")
    begun = time.perf_counter()
    count = 0

    def follow(rows: list[Row]) -> None:
        nonlocal count
        count += 1
        spent = time.perf_counter() - begun
        about = f"{count}/{len(tasks)}, {spent / count * (len(tasks) - count) / 60:.0f} min left"
        for row in rows:
            what = row["reason"] if row["outcome"] != "done" else row["found"].get("status", "")
            layer = "" if row["layer"] is None else f", layer {row['layer']}"
            ratio = row["found"].get("ratio")
            times = "" if ratio is None else f", {ratio:.0f} times faster"
            typer.echo(
                f"{spent:6.0f} s ({about})  {row['case']}{layer}, {row['method']}, "
                f"seed {row['seed']}: {row['outcome']} {what}{times}"
            )

    sweep(
        tasks,
        store,
        experiment=name,
        workers=workers,
        limits=LIMITS,
        again=again,
        follow=follow,
        contradiction=experiment.contradiction,
    )
    return store.latest(name)


def unshown(experiment: Experiment, *, folder: Path = RESULTS) -> list[Key]:
    """What an experiment asks and the folder's rows do not answer, whatever the versions and the machine."""
    if not experiment.stored:
        return []
    known = {Key.of(row) for row in shown(experiment.name, folder=folder)}
    return [task.key for task in experiment.tasks() if task.key not in known]


@app.command()
def smoke() -> None:
    """Every case by every method and every formulation, briefly, in a temporary folder; exit code 1 when wrong."""
    with tempfile.TemporaryDirectory() as folder:
        brief = [experiment for experiment in EXPERIMENTS.values() if not experiment.stored]
        rows = [row for experiment in brief for row in _run(experiment, store_in(Path(folder)))]
    wrong = trouble(rows)
    for line in wrong:
        typer.echo(line, err=True)
    skipped = sum(row["outcome"] == "skipped" for row in rows)
    typer.echo(f"{len(rows)} rows, {skipped} cases skipped, {len(wrong)} wrong")
    raise typer.Exit(1 if wrong else 0)


@app.command("run")
def run_some(
    name: Annotated[str, typer.Argument(help=f"{ALL}: one after the other; {', '.join(EXPERIMENTS)}")],
    limit: Annotated[int | None, typer.Option(min=1, help="Tasks at most; the rest another time.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the rows are kept.")] = RESULTS,
    again: Annotated[
        bool, typer.Option("--again", help="Run all of it, and forget earlier rows when it is done.")
    ] = False,
) -> None:
    """Run what an experiment, or every one, has no rows of yet, and keep its rows; exit code 1 when a row is wrong."""
    known = [experiment.name for experiment in EXPERIMENTS.values() if experiment.stored]
    if name not in (ALL, *known):
        typer.echo(f"no stored experiment is named {name!r}; known are {', '.join(known)}, {ALL}", err=True)
        raise typer.Exit(2)
    store = store_in(folder)
    collect(folder, store)
    wrong = []
    for one in known if name == ALL else [name]:
        before = store.last()
        try:
            wrong += trouble(_run(EXPERIMENTS[one], store, limit, again=again))
            if again and limit is None:
                store.forget(one, until=before)  # and what no task asks for any more
        finally:
            publish(store, folder, experiments=[one])
    for line in wrong:
        typer.echo(line, err=True)
    raise typer.Exit(1 if wrong else 0)


@app.command("report")
def write_report(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 when stale.")] = False,
    page: Annotated[list[Path] | None, typer.Option(help="Files with the markers.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the rows are kept.")] = RESULTS,
) -> None:
    """Put the tables of the stored rows between the markers of README.md and FINDINGS.md, and draw the picture."""
    stale = update(page or PAGES, folder=folder, write=not check)
    stale += [] if page else refresh(folder=folder, write=not check)
    for name in stale:
        typer.echo(f"{name} {'is stale' if check else 'rewritten'}")
    raise typer.Exit(1 if check and stale else 0)


@app.command("page")
def write_page(
    html: Annotated[Path, typer.Argument(help="File to write.")],
    folder: Annotated[Path, typer.Option(help="Where the rows are kept.")] = RESULTS,
) -> None:
    """Write the page of the races: methods side by side, profiles, gaps over time, fronts, where experts went."""
    if not (rows := shown(RACES, folder=folder)):
        typer.echo(f"{folder}: no rows of {RACES}; python -m benchmarks run {RACES}", err=True)
        raise typer.Exit(2)
    write_bytes(html, page_of(rows, title="Methods on recorded traffic").encode())
    typer.echo(f"{html}: {len(rows)} rows")


@app.command()
def show(
    csv: Annotated[Path, typer.Option("--csv", help="Folder to write to, a file an experiment.")],
    folder: Annotated[Path, typer.Option(help="Where the rows are kept.")] = RESULTS,
) -> None:
    """Write the rows that are shown as CSV, for a spreadsheet."""
    csv.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.parquet")):
        write_rows(shown(path.stem, folder=folder), csv / f"{path.stem}.csv")
        typer.echo(str(csv / f"{path.stem}.csv"))


@app.command("list")
def list_all() -> None:
    """Experiments, with the tasks whose rows are not shown yet, and cases."""
    for experiment in EXPERIMENTS.values():
        missing = f" ({len(gone)} tasks to go)" if (gone := unshown(experiment)) else ""
        typer.echo(f"{experiment.name:14} {experiment.summary}{missing}")
    typer.echo("")
    for case in CASES.values():
        typer.echo(f"{case.name:32} {case.gpus} GPUs x {case.slots}, {case.objective}")


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
