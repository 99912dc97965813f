"""The verb `allocate`: one replica budget for all layers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moeopt import flags
from moeopt.terminal import check_folder, progress, show


def allocate(
    trace: flags.TraceFile,
    *,
    gpus: flags.Gpus,
    total_replicas: Annotated[int, typer.Option(help="Copies beyond the first, over all layers, at most.")],
    replicas: Annotated[int, typer.Option(help="Copies beyond the first, per layer, at most.")] = 4,
    slots: flags.Slots = None,
    load_tolerance: flags.Tolerance = None,
    weights: flags.Weights = None,
    method: Annotated[str, typer.Option(help="auto, or a name from `moeopt methods`.")] = "auto",
    seconds: Annotated[
        float,
        typer.Option(
            help="Time limit per layer and number of copies; checking what was proved comes on top."
        ),
    ] = 60.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    layers: flags.Layers = None,
    output: flags.Output = None,
    certificate: Annotated[
        Path | None, typer.Option(help="File for the bound and what it rests on.", show_default=False)
    ] = None,
    workers: flags.Workers = None,
    as_json: flags.AsJson = False,
) -> None:
    """Spend a replica budget on the layers where copies save most; each layer is solved with 0, 1, ... copies."""
    from dataclasses import replace

    from moeopt import registry, storage
    from moeopt.allocation import allocate as spend
    from moeopt.options import recorded, stated, worker_count
    from moeopt.parallel import processes
    from moeopt.stop import Stop

    for path in (output, certificate):
        check_folder(path)
    problem, note = stated(
        recorded(trace, layers),
        path=trace,
        gpus=gpus,
        nodes=1,
        slots=slots,
        replicas=replicas,
        load_tolerance=load_tolerance,
        weights=weights,
        objective="fan-out",
        gpu_cost=1,
        node_cost=0,
    )
    problem = replace(problem, total_replicas=total_replicas)
    count = len(problem.workload.layers) * (min(replicas, total_replicas) + 1)
    chosen = registry.named_method(method)
    with progress(quiet=as_json) as follow, processes(worker_count(workers, layers=count)) as executor:
        step = follow(f"{method}, {count} layers and budgets", count)
        found = spend(
            problem,
            chosen,
            stop=Stop(seconds=seconds),
            seed=seed,
            executor=executor,
            on_result=lambda _: step(),
        )
    if output is not None:
        storage.write_json(output, found.placement.to_dict())
    if certificate is not None:
        storage.write_json(certificate, found.to_dict())
    answer = {
        "status": found.status,
        "cost": found.cost,
        "bound": found.bound,
        "replicas": dict(zip(problem.workload.layer_ids, found.replicas, strict=True)),
        "message": note,
    }
    show(answer, lambda: [_table(problem.workload.layer_ids, found), note], as_json=as_json)


def _table(layer_ids: tuple[int, ...], found: Any) -> Any:
    from rich.table import Table

    drawn = Table(
        "layer", "copies", "cost", "bound", "without copies", title=f"{found.status}: {found.cost:,}"
    )
    for layer, copies, row in zip(layer_ids, found.replicas, found.table, strict=True):
        chosen = row[copies]
        bound = "–" if chosen.bound is None else f"{chosen.bound:,}"
        drawn.add_row(str(layer), str(copies), f"{chosen.cost:,}", bound, f"{row[0].cost:,}")
    return drawn
