"""The verb `certify`: how far a placement in use is from the best one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeopt import flags
from moeopt.terminal import check_folder, exit_code, progress, show

if TYPE_CHECKING:
    from rich.table import Table

    from moeopt.distance import Certified
    from moeopt.problem import Problem
    from moeopt.running import Running


def certify(
    placement: Annotated[
        Path,
        typer.Argument(
            help="Placement in use: of `place`, in a certificate or result, or an engine's map.",
            show_default=False,
        ),
    ],
    trace: flags.TrafficFile,
    *,
    gpus: Annotated[
        int | None, typer.Option(help="GPUs in all: an engine's map does not say.", show_default=False)
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Nodes. Default: as in the placement; 1 for a map.", show_default=False)
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            help="Copies beyond the first, per layer, at most. Default: those of the fullest layer."
        ),
    ] = None,
    load_tolerance: flags.Tolerance = None,
    weights: flags.Weights = None,
    objective: flags.Objective = "fan-out",
    gpu_cost: flags.GpuCost = 1,
    node_cost: flags.NodeCost = 0,
    speeds: flags.Speeds = None,
    tail: flags.Tail = None,
    method: Annotated[str, typer.Option(help="auto, or a name from `moeopt methods`.")] = "auto",
    seconds: flags.Seconds = 60.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    layers: flags.Layers = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File for the certificate.", show_default=False)
    ] = None,
    better: Annotated[
        Path | None, typer.Option(help="File for a better placement, if one is found.", show_default=False)
    ] = None,
    workers: flags.Workers = None,
    as_json: flags.AsJson = False,
) -> None:
    """How far a placement in use is from the best one, proved; and a better one where there is one."""
    from moeopt import distance, storage
    from moeopt.options import (
        family_shares,
        layer_list,
        named_families,
        number_list,
        recorded_traffic,
        worker_count,
    )
    from moeopt.parallel import processes
    from moeopt.running import read_running
    from moeopt.stop import Stop

    _check_files(outputs=(output, better), inputs=(placement, trace))
    shares, pace, stop = family_shares(weights), number_list("--speeds", speeds), Stop(seconds=seconds)
    traffic = recorded_traffic(trace, None)
    running = read_running(placement, traffic, gpus=gpus, nodes=nodes, layers=layer_list(layers))
    count = len(running.placement.layer_ids)
    begun = time.perf_counter()
    with progress(quiet=as_json) as follow, processes(worker_count(workers, layers=count)) as executor:
        step = follow(f"{method}, {count} layers", count)
        try:
            found = distance.certify(
                running.placement,
                traffic,
                method=method,
                objective=objective,
                family_weights=shares,
                load_tolerance=load_tolerance,
                gpu_cost=gpu_cost,
                node_cost=node_cost,
                speeds=1 if pace is None else pace,
                tail=tail,
                replicas=replicas,
                stop=stop,
                seed=seed,
                executor=executor,
                on_layer=lambda _: step(),
            )
        except ValueError as error:
            raise ValueError(f"{placement} on {trace}: {error}") from error
    if output is not None and found.certificate is not None:
        storage.write_json(output, found.certificate.to_dict())
    if better is not None and found.better is not None:
        storage.write_json(better, found.better.to_dict())
    notes = (_read(running), found.message, named_families(shares, traffic.families))
    answer = {
        **answer_of(found, seconds=time.perf_counter() - begun),
        "source": running.source,
        "duplicates": running.duplicates,
        "left_out": list(running.left_out),
        "message": "; ".join(filter(None, notes)),
    }
    show(answer, lambda: [_table(answer), _headline(answer), answer["message"]], as_json=as_json)
    if output is not None and found.certificate is None:
        typer.echo(f"moeopt: no certificate written: nothing was proved ({found.status})", err=True)
    if better is not None and found.better is None:
        typer.echo("moeopt: no better placement written: none was found", err=True)
    raise typer.Exit(exit_code(found.status))


def answer_of(found: Certified, *, seconds: float) -> dict[str, Any]:
    """The JSON answer without what concerns the file; costs are integers, `cost_unit` one GPU for everybody."""
    from moeopt.summary import per_token

    problem, result = found.problem, found.result
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(found.layers):
        own = problem.layer(index)
        rows.append(
            {
                "layer": layer.layer_id,
                "status": layer.status,
                "cost": layer.cost,
                "bound": layer.bound,
                "distance": layer.distance,
                "best_cost": layer.best_cost,
                "best_status": layer.result.status,
                "fan_out": _fan_out(own, found, index),
                "fan_out_bound": per_token(own, layer.bound),
                "certified_share": layer.share,
                "load_max_over_mean": layer.max_over_mean,
                "broken": layer.broken,
                "seconds": layer.result.seconds,
                "method": layer.result.method,
                "message": layer.result.message,
            }
        )
    return {
        "status": found.status,
        "fan_out": sum(row["fan_out"] for row in rows) / len(rows) if problem.workload.complete else None,
        "bound": per_token(problem, found.bound),
        "certified_share": found.share,
        "seconds": seconds,
        "objective": problem.objective,
        "cost": found.cost,
        "cost_bound": found.bound,
        "distance": found.distance,
        "best_cost": result.cost,
        "best_status": result.status,
        "cost_unit": problem.total_weight,
        "broken": found.broken,
        "tolerance": found.tolerance,
        "method": result.method,
        "seed": result.seed,
        "layers": rows,
    }


def _fan_out(problem: Problem, found: Certified, index: int) -> float | None:
    """Further GPUs a token touches in a layer; None where pair counts do not tell it."""
    from moeopt.comparison import mean_fan_out
    from moeopt.summary import per_token

    if not problem.workload.complete:
        return None
    exact = per_token(problem, found.layers[index].cost)
    return mean_fan_out(problem, found.placement.layer(index)) if exact is None else exact


def _check_files(*, outputs: tuple[Path | None, ...], inputs: tuple[Path, ...]) -> None:
    """Before the work: every file to write has a folder, and is no other file of this call."""
    used = {path.resolve() for path in inputs}
    for path in filter(None, outputs):
        check_folder(path)
        if path.resolve() in used:
            raise ValueError(f"{path}: a file to write is wanted that this call does not use otherwise")
        used.add(path.resolve())


def _read(running: Running) -> str:
    """What was read, and what of it does not count."""
    from moeopt.running import ranges

    text = running.source
    if running.duplicates:
        text += f": {running.duplicates} duplicates dropped (an expert twice on one GPU is one copy)"
    if running.left_out:
        text += f", without its layers {ranges(running.left_out)}"
    return text


def _headline(answer: dict[str, Any]) -> str:
    """One sentence."""
    cost, bound, best = answer["cost"], answer["cost_bound"], answer["best_cost"]
    if bound is None:
        open_layers = sum(row["bound"] is None for row in answer["layers"])
        text = f"cost {cost:,}; no bound for {open_layers} of {len(answer['layers'])} layers"
    elif cost == bound and not answer["broken"]:
        return f"no placement is better: cost {cost:,} is proved least"
    else:
        text = f"cost {cost:,}, no admissible placement costs less than {bound:,}"
    if answer["broken"]:
        found = "" if best is None else f"; found {best:,} within the rule"
        return f"{text}{found}; not admissible: {answer['broken']}, {answer['tolerance']:g} would allow it"
    if bound is not None:
        text += f": distance {cost - bound:,}"
    if answer["certified_share"] is not None:
        text += f", certified share of the attainable saving {answer['certified_share']:.2%}"
    if best == cost:
        return f"{text}; nothing better was found"
    return f"{text}; found {best:,}, {cost - best:,} less" + (", proved least" if best == bound else "")


def _table(answer: dict[str, Any]) -> Table:
    """Layers, per token."""
    from rich.table import Table

    from moeopt.tables import number, per_token

    table = Table(title="Placement in use", title_justify="left")
    for name in ("layer", "status", "in use", "bound", "above", "share", "found"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)

    def add(name: str, row: dict[str, Any], bound: int | None, unit: int) -> None:
        costs = (per_token(value, unit) for value in (row["cost"], bound, row["distance"]))
        share, best = number(row["certified_share"], ".2%"), per_token(row["best_cost"], unit)
        table.add_row(name, row["status"], *costs, share, best)

    unit = answer["cost_unit"]
    for row in answer["layers"]:
        add(str(row["layer"]), row, row["bound"], unit)
    table.add_section()
    add("all", answer, answer["cost_bound"], unit * len(answer["layers"]))
    table.caption = "costs per token and layer; above: in use - bound; share: of the attainable saving"
    table.caption_justify = "left"
    return table
