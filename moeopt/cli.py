"""The command line: thin verbs over the library."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from moeopt import __version__

app = typer.Typer(
    name="moeopt",
    help="Proved placements of Mixture-of-Experts experts on GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

TraceFile = Annotated[Path, typer.Argument(help="Routing trace: Parquet or .npz.", show_default=False)]
Gpus = Annotated[int, typer.Option(help="GPUs in all.")]
Nodes = Annotated[int, typer.Option(help="Nodes; GPU g belongs to node g // (gpus / nodes).")]
Slots = Annotated[
    int | None,
    typer.Option(help="Experts of one layer a GPU can hold, at most. Default: what an even share needs."),
]
Replicas = Annotated[int, typer.Option(help="Copies beyond the first, per layer, at most.")]
Tolerance = Annotated[
    str | None,
    typer.Option("--load-tolerance", help="Each GPU serves at most (1 + this) x mean. Default: free."),
]
Weights = Annotated[
    str | None, typer.Option(help="Shares of families in the objective: code=2,math=1. Default: by traffic.")
]
Objective = Annotated[str, typer.Option(help="fan-out (GPUs touched, exact) or cut (pairs separated).")]
GpuCost = Annotated[int, typer.Option(help="Cost of a further GPU.")]
NodeCost = Annotated[int, typer.Option(help="Cost of a further node.")]
Layers = Annotated[str | None, typer.Option(help="Layers by absolute id: 0-3,7. Default: all.")]
Seconds = Annotated[float, typer.Option(help="Time limit per layer and method.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes that solve layers in parallel. Default: the cores.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of tables.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="File to write.", show_default=False)]


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files.")] = Path(
        "moeopt-demo"
    ),
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Place a real MoE's experts on 8 GPUs, prove it, compare it, export it."""
    from moeopt.demonstration import demonstrate

    with _progress(quiet=as_json) as follow:
        answer, show = demonstrate(folder, workers=_workers(workers), follow=follow)
    _show(answer, show, as_json=as_json)


@app.command()
def convert(
    source: TraceFile, output: Annotated[Path, typer.Option("-o", "--output", help="Parquet file to write.")]
) -> None:
    """Write a trace of any known format as Parquet."""
    from moeopt.recording import read_trace, write_trace

    trace = read_trace(source)
    write_trace(trace, output)
    typer.echo(f"{output}: {trace.n_tokens:,} tokens, {trace.n_layers} layers x {trace.n_experts} experts")


@app.command()
def profile(trace: TraceFile, layers: Layers = None, as_json: AsJson = False) -> None:
    """Loads, families and phases of a trace."""
    from moeopt import characteristics, tables

    answer = characteristics.profile(_trace(trace, layers))
    _show(answer.to_dict(), lambda: tables.profiled(answer), as_json=as_json)


@app.command()
def place(
    trace: TraceFile,
    gpus: Gpus,
    nodes: Nodes = 1,
    slots: Slots = None,
    replicas: Replicas = 0,
    load_tolerance: Tolerance = None,
    weights: Weights = None,
    objective: Objective = "fan-out",
    gpu_cost: GpuCost = 1,
    node_cost: NodeCost = 0,
    method: Annotated[str, typer.Option(help="auto, or a name from `moeopt methods`.")] = "auto",
    seconds: Seconds = 60.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    layers: Layers = None,
    output: Output = None,
    certificate: Annotated[
        Path | None, typer.Option(help="File for the certificate.", show_default=False)
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Place experts, layer by layer, and prove how good the placement is."""
    from moeopt import registry, storage, tables
    from moeopt.api import solve
    from moeopt.parallel import processes
    from moeopt.stop import Stop
    from moeopt.summary import summarise

    for path in (output, certificate):
        _check_folder(path)
    chosen, stop = registry.method(method), Stop(seconds=seconds)
    problem, note = _problem(
        _trace(trace, layers),
        gpus,
        nodes,
        slots,
        replicas,
        load_tolerance,
        weights,
        objective,
        gpu_cost,
        node_cost,
    )
    count = len(problem.workload.layers)
    begun = time.perf_counter()
    with _progress(quiet=as_json) as follow, processes(min(_workers(workers), count)) as executor:
        step = follow(f"{method}, {count} layers", count)
        result = solve(problem, chosen, stop=stop, seed=seed, executor=executor, on_layer=lambda _: step())
    answer = summarise(problem, result, seconds=time.perf_counter() - begun)
    answer["message"] = "; ".join(text for text in (answer["message"], note) if text)
    if output is not None and result.placement is not None:
        storage.write_json(output, result.placement.to_dict())
    if certificate is not None and result.certificate is not None:
        storage.write_json(certificate, result.certificate.to_dict())
    _show(answer, lambda: [tables.placed(answer), answer["message"]], as_json=as_json)
    if certificate is not None and result.certificate is None:
        typer.echo(f"moeopt: no certificate written: nothing was proved ({result.status})", err=True)
    raise typer.Exit(_exit_code(result.status))


@app.command()
def compare(
    trace: TraceFile,
    gpus: Gpus,
    nodes: Nodes = 1,
    slots: Slots = None,
    replicas: Replicas = 0,
    load_tolerance: Tolerance = None,
    weights: Weights = None,
    objective: Objective = "fan-out",
    gpu_cost: GpuCost = 1,
    node_cost: NodeCost = 0,
    methods: Annotated[
        str, typer.Option(help="Names, separated by commas.")
    ] = "linear,random,balance,swap,auto",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of each method.")] = 1,
    held_out: Annotated[
        float, typer.Option(help="Share of requests set aside, split anew for each seed.")
    ] = 0.0,
    null: Annotated[
        bool, typer.Option("--null", help="Shuffle co-activation away first: the control.")
    ] = False,
    seconds: Seconds = 60.0,
    layers: Layers = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Methods side by side, on the traffic they saw and on traffic they did not."""
    from dataclasses import asdict

    from moeopt import comparison, control, tables
    from moeopt.options import name_list
    from moeopt.parallel import processes
    from moeopt.stop import Stop

    if held_out and not 0 < held_out < 1:
        raise ValueError(f"--held-out must lie between 0 and 1, found {held_out}")
    names = name_list(methods)
    recorded = _trace(trace, layers)
    recorded = control.null(recorded, seed=0) if null else recorded
    problem, note = _problem(
        recorded, gpus, nodes, slots, replicas, load_tolerance, weights, objective, gpu_cost, node_cost
    )
    count = len(problem.workload.layers)
    with _progress(quiet=as_json) as follow, processes(min(_workers(workers), count)) as executor:
        step = follow(f"{len(names)} methods, {seeds} seeds", count * len(names) * seeds)
        rows = comparison.compare(
            problem,
            names,
            seeds=range(seeds),
            stop=Stop(seconds=seconds),
            trace=recorded,
            held_out=held_out,
            executor=executor,
            on_layer=lambda _: step(),
        )
    answer = {"rows": [asdict(row) for row in rows], "null": null, "held_out": held_out, "message": note}
    _show(answer, lambda: [tables.compared(rows), note], as_json=as_json)


@app.command()
def evaluate(placement: Annotated[Path, typer.Argument()], trace: TraceFile, as_json: AsJson = False) -> None:
    """Judge a placement on a trace."""
    from moeopt import comparison, tables
    from moeopt.api import read_placement
    from moeopt.recording import read_trace

    placed = read_placement(placement)
    recorded = read_trace(trace)
    try:
        answer = comparison.evaluate(placed, recorded)
    except ValueError as error:
        raise ValueError(f"{placement} on {trace}: {error}") from error
    _show(answer.to_dict(), lambda: [tables.evaluated(answer)], as_json=as_json)


@app.command()
def export(
    placement: Annotated[Path, typer.Argument()],
    engine: Annotated[str, typer.Option(help="sglang, eplb, or the name of a plug-in.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    pad: Annotated[bool, typer.Option("--pad", help="Fill free slots with further copies.")] = False,
) -> None:
    """Write a placement as a file that an engine loads."""
    from moeopt import api

    placed = api.read_placement(placement)
    try:
        api.export(placed, output, engine=engine, pad=pad)
    except ValueError as error:
        raise ValueError(f"{placement}: {error}") from error
    typer.echo(f"{output}: {len(placed.layer_ids)} layers for {engine}")


@app.command()
def verify(certificate: Annotated[Path, typer.Argument()], trace: TraceFile, as_json: AsJson = False) -> None:
    """Re-prove a certificate from the trace alone, without a solver."""
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
    _show(answer, lambda: [text], as_json=as_json)
    raise typer.Exit(0 if verdict.accepted else 1)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """All methods and what they do."""
    from rich.table import Table

    from moeopt import registry

    known = registry.methods()

    def table() -> list[Any]:
        drawn = Table("method", "what it does", "settings")
        for method in known:
            drawn.add_row(method.name, method.summary, repr(method))
        return [drawn]

    answer = [{"name": method.name, "summary": method.summary, "settings": repr(method)} for method in known]
    _show({"methods": answer}, table, as_json=as_json)


def main() -> None:
    """Run the command line: exit code 2 and one line for bad input, 130 for an interrupt."""
    try:
        app()
    except ValueError as error:
        typer.echo(f"moeopt: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("moeopt: interrupted", err=True)
        sys.exit(130)


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


def _trace(path: Path, layers: str | None) -> Any:
    from moeopt.options import layer_list
    from moeopt.recording import read_trace

    wanted = layer_list(layers)
    trace = read_trace(path)
    try:
        return trace if wanted is None else trace.layers(wanted)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _problem(
    trace: Any,
    gpus: int,
    nodes: int,
    slots: int | None,
    replicas: int,
    load_tolerance: str | None,
    weights: str | None,
    objective: str,
    gpu_cost: int,
    node_cost: int,
) -> tuple[Any, str]:
    """The problem of the options, and a line on families that got no weight."""
    from moeopt.cluster import Cluster
    from moeopt.options import family_shares, named_families
    from moeopt.problem import Problem

    if gpus < 1:
        raise ValueError(f"gpus must be at least 1, found {gpus}")
    even = -(-(trace.n_experts + max(replicas, 0)) // gpus)
    cluster = Cluster.of(
        gpus=gpus, nodes=nodes, slots=even if slots is None else slots, gpu_cost=gpu_cost, node_cost=node_cost
    )
    shares = family_shares(weights)
    problem = Problem.from_trace(
        trace,
        cluster,
        replicas=replicas,
        family_weights=shares,
        objective=objective,
        load_tolerance=load_tolerance,
    )
    problem.total_weight  # noqa: B018 - raises for weights that do not fit the trace before anything runs
    return problem, named_families(shares, trace.families)


def _check_folder(path: Path | None) -> None:
    """Before the work, not after it."""
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"{path}: folder {path.parent} does not exist")


def _workers(asked: int | None) -> int:
    from moeopt.parallel import available_cores

    return available_cores() if asked is None else asked


def _exit_code(status: str) -> int:
    return {"infeasible-claimed": 3, "none-found": 3, "interrupted": 130, "disagreement": 1}.get(status, 0)


def _show(answer: dict[str, Any], draw: Callable[[], list[Any]], *, as_json: bool) -> None:
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
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int], Callable[[], None]]]:
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
