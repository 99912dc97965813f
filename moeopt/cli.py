"""The command line: thin verbs over the library."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from moeopt import __version__, flags
from moeopt.allocate_cli import allocate
from moeopt.bench_cli import bench
from moeopt.capacity_cli import capacity
from moeopt.certify_cli import certify
from moeopt.compare_cli import compare
from moeopt.convert_cli import convert
from moeopt.deploy_cli import deploy_notes
from moeopt.export_cli import export
from moeopt.migration_cli import moves
from moeopt.place_cli import place
from moeopt.profile_cli import profile
from moeopt.replay_cli import replay
from moeopt.terminal import progress, show

# Typer brings its own Click, or uses the installed one.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="moeopt",
    help="Proved placements of Mixture-of-Experts experts on GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files.")] = Path(
        "moeopt-demo"
    ),
    workers: flags.Workers = None,
    as_json: flags.AsJson = False,
) -> None:
    """Place a real MoE's experts on 8 GPUs, prove it, compare it, export it."""
    from moeopt.demonstration import demonstrate

    with progress(quiet=as_json) as follow:
        answer, draw = demonstrate(folder, workers=workers, follow=follow)
    show(answer, draw, as_json=as_json)


app.command()(convert)
app.command()(profile)
app.command()(place)
app.command()(certify)
app.command()(compare)
app.command()(allocate)
app.command()(capacity)
app.command()(moves)
app.command()(replay)
app.command()(deploy_notes)
app.add_typer(bench, name="bench")


@app.command()
def evaluate(
    placement: Annotated[Path, typer.Argument()],
    trace: flags.TraceFile,
    *,
    load_tolerance: flags.Tolerance = None,
    as_json: flags.AsJson = False,
) -> None:
    """Judge a placement on a trace."""
    from moeopt import comparison, tables
    from moeopt.api import read_placement
    from moeopt.recording import read_trace

    placed = read_placement(placement)
    recorded = read_trace(trace)
    try:
        answer = comparison.evaluate(placed, recorded, load_tolerance=load_tolerance)
    except ValueError as error:
        raise ValueError(f"{placement} on {trace}: {error}") from error
    show(answer.to_dict(), lambda: [tables.evaluated(answer)], as_json=as_json)


app.command()(export)


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument()], trace: flags.TrafficFile, as_json: flags.AsJson = False
) -> None:
    """Re-prove a certificate from its trace, or from the document of its problem, without a solver."""
    from dataclasses import asdict

    from moeopt import api

    begun = time.perf_counter()
    verdict = api.verify(certificate, trace)
    answer = {**asdict(verdict), "seconds": time.perf_counter() - begun}
    optimal = sum(claim == "optimal" and not reason for _, claim, reason in verdict.layers)
    text = (
        f"accepted: {len(verdict.layers)} layers, {optimal} proved optimal ({answer['seconds']:.1f} s)"
        if verdict.accepted
        else f"rejected: {verdict.reason}"
    )
    show(answer, lambda: [text], as_json=as_json)
    raise typer.Exit(0 if verdict.accepted else 1)


@app.command()
def methods(as_json: flags.AsJson = False) -> None:
    """All methods and what they do."""
    from rich.table import Table

    from moeopt import registry

    known, others = registry.all_methods(), registry.other_formulations()

    def table() -> list[Any]:
        drawn = Table("method", "what it does", "settings")
        for method in known:
            drawn.add_row(method.name, method.summary, repr(method))
        further = Table(
            "formulation", "what it does", "problem", title="Of other problems: moeopt.solve_model"
        )
        for formulation in others:
            further.add_row(formulation.name, formulation.summary, registry.stated_problem(formulation))
        return [drawn, further]

    answer = {
        "methods": [{"name": one.name, "summary": one.summary, "settings": repr(one)} for one in known],
        "formulations": [
            {"name": one.name, "summary": one.summary, "problem": registry.stated_problem(one)}
            for one in others
        ],
    }
    show(answer, table, as_json=as_json)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moeopt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Proved placements of Mixture-of-Experts experts on GPUs."""


def main() -> None:
    """Run the command line: exit code 2 and one line for bad input or a missing extra, 130 for an interrupt."""
    try:
        code = app(standalone_mode=False)
    except (ValueError, UsageError, ImportError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise  # an extra that is missing is told by its name
        text = " ".join(getattr(error, "format_message", error.__str__)().split())
        if text:  # without arguments the help was shown already
            # Names of files may hold what a terminal obeys.
            plain = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
            typer.echo(f"moeopt: {plain}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("moeopt: interrupted", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
