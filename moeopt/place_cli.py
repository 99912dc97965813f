"""The verb `place`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from moeopt import flags
from moeopt.terminal import check_folder, exit_code, progress, show


def place(
    trace: flags.TrafficFile,
    *,
    gpus: flags.Gpus,
    nodes: flags.Nodes = 1,
    slots: flags.Slots = None,
    replicas: flags.Replicas = 0,
    total_replicas: Annotated[
        int | None,
        typer.Option(
            help="Copies over all layers, at most: of methods that place all layers together.",
            show_default=False,
        ),
    ] = None,
    load_tolerance: flags.Tolerance = None,
    weights: flags.Weights = None,
    objective: flags.Objective = "fan-out",
    gpu_cost: flags.GpuCost = 1,
    node_cost: flags.NodeCost = 0,
    speeds: flags.Speeds = None,
    tail: flags.Tail = None,
    incumbent: flags.Incumbent = None,
    max_moves: flags.MaxMoves = None,
    method: Annotated[str, typer.Option(help="auto, or a name from `moeopt methods`.")] = "auto",
    solver: Annotated[
        str, typer.Option(help="highs, cpsat, scip, gurobi: of methods that state rows.")
    ] = "highs",
    seconds: flags.Seconds = 60.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    layers: flags.Layers = None,
    output: flags.Output = None,
    certificate: Annotated[
        Path | None, typer.Option(help="File for the certificate.", show_default=False)
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Certificate of an earlier run to go on from.", show_default=False),
    ] = None,
    workers: flags.Workers = None,
    as_json: flags.AsJson = False,
) -> None:
    """Place experts, layer by layer or all layers together, and prove how good the placement is."""
    from dataclasses import replace

    from moeopt import registry, storage, tables
    from moeopt.api import solve
    from moeopt.options import data_set, recorded_traffic, stated, with_solver, worker_count
    from moeopt.parallel import processes
    from moeopt.stop import Stop
    from moeopt.summary import summarise
    from moeopt.trace import Trace

    for path in (output, certificate):
        check_folder(path)
    if output is not None and output == certificate:
        raise ValueError(f"{output}: placement and certificate need files of their own")
    chosen, stop = with_solver(registry.named_method(method), solver), Stop(seconds=seconds)
    with progress(quiet=as_json) as follow:
        counted = data_set(trace, layers, follow=follow)
    sampled = ""
    if counted is None:
        traffic = recorded_traffic(trace, layers)
    elif objective == "load":
        traffic = counted.load_counts  # of all tokens
    else:
        traffic = counted.workload
        sampled = "" if counted.exact else "; ".join(counted.statement())
    problem, note = stated(
        traffic,
        path=trace,
        gpus=gpus,
        nodes=nodes,
        slots=slots,
        replicas=replicas,
        load_tolerance=load_tolerance,
        weights=weights,
        objective=objective,
        gpu_cost=gpu_cost,
        node_cost=node_cost,
        speeds=speeds,
        tail=tail,
        incumbent=incumbent,
        max_moves=max_moves,
    )
    if total_replicas is not None:
        problem = replace(problem, total_replicas=total_replicas)
    count = len(problem.workload.layers)
    begun = time.perf_counter()
    with progress(quiet=as_json) as follow, processes(worker_count(workers, layers=count)) as executor:
        bar = follow(f"{method}, {count} layers", count)
        result = solve(
            problem,
            chosen,
            stop=stop,
            seed=seed,
            resume=resume,
            trace=traffic if isinstance(traffic, Trace) else None,
            executor=executor,
            on_layer=lambda _: bar(),
            on_news=bar.hear,
        )
    answer = summarise(problem, result, seconds=time.perf_counter() - begun)
    answer["message"] = "; ".join(text for text in (answer["message"], note, sampled) if text)
    if output is not None and result.placement is not None:
        storage.write_json(output, result.placement.to_dict())
    if certificate is not None and result.certificate is not None:
        storage.write_json(certificate, result.certificate.to_dict())
    show(answer, lambda: [tables.placed(answer), answer["message"]], as_json=as_json)
    if certificate is not None and result.certificate is None:
        typer.echo(f"moeopt: no certificate written: nothing was proved ({result.status})", err=True)
    raise typer.Exit(exit_code(result.status))
