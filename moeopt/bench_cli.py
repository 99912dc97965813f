"""The verb `bench`: sweeps of methods over problems and seeds that survive interruption; packaged instances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeopt import flags
from moeopt.bench_runs import LARGEST
from moeopt.terminal import check_folder, progress, show

if TYPE_CHECKING:
    from moeopt.bench_measures import MethodSummary
    from moeopt.bench_rows import Row

bench = typer.Typer(
    no_args_is_help=True,
    help="Sweeps of methods over problems and seeds, stored row by row; and packaged instances.",
)
StoreFile = Annotated[Path, typer.Option("--store", help="SQLite file that keeps the rows.")]
SWEEP = "sweep"  # name of the experiment


@bench.command()
def run(
    trace: flags.TraceFile,
    *,
    store: StoreFile,
    gpus: flags.Gpus,
    nodes: flags.Nodes = 1,
    slots: flags.Slots = None,
    replicas: flags.Replicas = 0,
    load_tolerance: flags.Tolerance = None,
    weights: flags.Weights = None,
    objective: flags.Objective = "fan-out",
    gpu_cost: flags.GpuCost = 1,
    node_cost: flags.NodeCost = 0,
    methods: flags.Methods = "linear,random,lpt,swap,auto",
    seeds: flags.Seeds = 1,
    held_out: flags.HeldOut = 0.0,
    seconds: flags.Seconds = 60.0,
    layers: flags.Layers = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Runs at a time; their times are those of a machine they share. Default: the cores."
        ),
    ] = None,
    memory: Annotated[
        int, typer.Option(min=1, max=LARGEST, help="MiB that each process of a run may allocate.")
    ] = 8192,
    limit: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds that a run may take. Default: twice its own, and an hour."),
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Run every method with every seed that the store has no rows of; a run is a process of its own.

    Interrupt it and start it again with the same words: it goes on. Crashed and ended runs are rows with their reason.
    """
    from dataclasses import replace

    from moeopt.bench_measures import named_rows
    from moeopt.bench_origins import mixed_origins
    from moeopt.bench_rows import Key
    from moeopt.bench_runs import Limits
    from moeopt.bench_solving import Question, tasks
    from moeopt.bench_store import Store, newest
    from moeopt.bench_sweep import left, sweep
    from moeopt.options import name_list, worker_count
    from moeopt.stop import Stop

    if held_out and not 0 < held_out < 1:
        raise ValueError(f"--held-out must lie between 0 and 1, found {held_out}")
    check_folder(store)
    if store.suffix in (".parquet", ".csv"):
        raise ValueError(f"{store}: a store is a SQLite file, `bench export` writes tables")
    options = {
        "gpus": gpus,
        "nodes": nodes,
        "slots": slots,
        "replicas": replicas,
        "load_tolerance": load_tolerance,
        "weights": weights,
        "objective": objective,
        "gpu_cost": gpu_cost,
        "node_cost": node_cost,
    }
    question = Question(trace.resolve(), layers, options, held_out)
    wanted = list(tasks(question, name_list(methods), seeds=range(seeds), stop=Stop(seconds=seconds)))
    kept = Store(store)
    todo = left(wanted, kept, experiment=SWEEP)
    with progress(quiet=as_json) as follow:
        step = follow(f"{len(todo)} of {len(wanted)} runs", len(todo))
        sweep(
            todo,
            kept,
            experiment=SWEEP,
            workers=worker_count(workers, layers=max(len(todo), 1)),
            limits=Limits(limit or 3600 + 2 * max((task.seconds for task in wanted), default=0.0), memory),
            follow=lambda rows: step(),
        )
    place = {task.key: at for at, task in enumerate(wanted)}
    known = [row for row in kept.rows(SWEEP) if replace(Key.of(row), layer=None) in place]
    rows = sorted(newest(known), key=lambda row: place[replace(Key.of(row), layer=None)])
    rows = named_rows(rows)
    remarks = mixed_origins(rows)
    if other := len(known) - len(rows):
        remarks.append(f"{other} rows of other machines or versions are not shown: bench report shows them.")
    summed = _summed(rows, remarks)
    failed = sum(one["failed"] for one in summed["methods"])
    answer = {"store": str(store), "ran": len(todo), "failed": failed, **summed}
    show(answer, lambda: _drawn(rows, store, remarks), as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _drawn(rows: list[Row], written: Path | None, remarks: list[str]) -> list[Any]:
    from rich.markup import escape

    from moeopt.bench_tables import summary_table

    where = "" if written is None else f"{escape(str(written))}: "
    tables = [summary_table(found, title=escape(case)) for case, found in _by_case(rows).items()]
    return [*tables, *map(escape, [*_reasons(rows), *remarks]), f"{where}{len(rows)} rows"]


def _summed(rows: list[Row], remarks: list[str]) -> dict[str, Any]:
    """JSON-ready: the methods of each case, what went wrong, and what not to compare."""
    from dataclasses import asdict

    methods = [{"case": case, **asdict(one)} for case, found in _by_case(rows).items() for one in found]
    return {"methods": methods, "reasons": _reasons(rows), "remarks": remarks}


def _by_case(rows: list[Row]) -> dict[str, list[MethodSummary]]:
    from moeopt.bench_measures import summaries

    cases = dict.fromkeys(row["case"] for row in rows)
    return {case: summaries([row for row in rows if row["case"] == case]) for case in cases}


def _reasons(rows: list[Row]) -> list[str]:
    wrong = (row for row in rows if row["reason"] and row["layer"] is None)
    return [f"{row['found']['method']}, seed {row['seed']}: {row['reason']}" for row in wrong]


@bench.command()
def export(
    store: Annotated[Path, typer.Argument(help="SQLite file of a sweep.", show_default=False)],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table to write: .parquet or .csv.")],
    as_json: flags.AsJson = False,
) -> None:
    """Write the rows as a table, those of every machine and of all versions."""
    from moeopt.bench_files import write_rows

    check_folder(output)
    rows = stored(store)
    write_rows(rows, output, experiment=SWEEP)
    answer = {"file": str(output), "rows": len(rows)}
    show(answer, lambda: [f"{output}: {len(rows)} rows"], as_json=as_json)


def stored(path: Path) -> list[Row]:
    """The rows of a sweep's store or of a table of them; ValueError names a file without, or the row and the rule."""
    from moeopt.bench_checks import check_row, check_sweep_row
    from moeopt.bench_files import read_rows
    from moeopt.bench_store import Store

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    rows = read_rows(path) if path.suffix in (".parquet", ".csv") else Store(path).rows(SWEEP)
    if not rows:
        raise ValueError(f"{path}: no rows of a sweep")
    for number, row in enumerate(rows, start=1):
        try:
            check_row(row)
            check_sweep_row(row)
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from error
    return rows


@bench.command()
def report(
    stores: Annotated[list[Path], typer.Argument(help="Stores, or exported tables.", show_default=False)],
    *,
    html: Annotated[
        Path | None, typer.Option(help="One page with figures to write, for any browser.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="The tables as Markdown to write.", show_default=False)
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """What came of sweeps: methods side by side, profiles, gaps over time, fronts, where experts went."""
    from moeopt import storage
    from moeopt.bench_markdown import markdown_of
    from moeopt.bench_measures import named_rows
    from moeopt.bench_origins import mixed_origins, superseded
    from moeopt.bench_page import page_of

    for path in (html, markdown):
        check_folder(path)
    rows = [row for store in stores for row in stored(store)]
    if html is not None:
        storage.write_bytes(html, page_of(rows).encode())
    if markdown is not None:
        storage.write_bytes(markdown, markdown_of(rows).encode())
    named = named_rows(rows)
    remarks = [*mixed_origins(named), *superseded(rows, named)]
    answer = {"rows": len(named), **_summed(named, remarks)}
    show(answer, lambda: _drawn(named, html or markdown, remarks), as_json=as_json)


@bench.command("instance")
def packaged(
    name: Annotated[
        str | None, typer.Argument(help="Name of an instance. Default: list all.", show_default=False)
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for its files.", show_default=False)
    ] = None,
    formulation: Annotated[
        str | None, typer.Option(help="Whose model to write. Default: as listed.", show_default=False)
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Packaged problems with optima and bounds, as JSON and MPS: for testing solvers and heuristics."""
    from moeopt import instance_cli
    from moeopt.instance_library import VERSION, entries, named_entry

    if name is None:
        if output is not None or formulation is not None:
            raise ValueError("--output and --formulation are of one instance: give its name")
        known = entries()
        answer = {"set": VERSION, "instances": [instance_cli.answer_of(entry) for entry in known]}
        show(answer, lambda: [instance_cli.listing(known)], as_json=as_json)
        return
    if output is None:
        if formulation is not None:
            raise ValueError("--formulation says whose model to write: give a folder with --output")
        entry = named_entry(name)
        show(instance_cli.answer_of(entry), lambda: instance_cli.card(entry), as_json=as_json)
        return
    written = instance_cli.write_instance(name, output, formulation=formulation)
    show(written, lambda: instance_cli.told(written), as_json=as_json)
