"""The verb `moves`: what each change of a placement is worth."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moeopt import flags
from moeopt.terminal import check_folder, progress, show


def moves(
    trace: flags.TraceFile,
    *,
    incumbent: Annotated[Path, typer.Option(help="Placement in use, a file of `place`.")],
    max_moves: Annotated[int, typer.Option(min=0, help="Largest budget: copies that move, a layer.")] = 8,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Step between budgets. Default: 2 where every slot is in use, else 1."),
    ] = None,
    load_tolerance: flags.Tolerance = None,
    weights: flags.Weights = None,
    objective: flags.Objective = "fan-out",
    gpu_cost: flags.GpuCost = 1,
    node_cost: flags.NodeCost = 0,
    method: Annotated[str, typer.Option(help="auto, migration (proves) or migrate (searches).")] = "auto",
    seconds: flags.Seconds = 60.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    layers: flags.Layers = None,
    output: flags.Output = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, .svg, .pdf.", show_default=False)
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """How much each move from a placement in use saves, and the best placement within each budget.

    The file of --output is the placement of the largest budget.
    """
    from moeopt import storage
    from moeopt.api import read_placement
    from moeopt.cluster import Cluster
    from moeopt.migration import front
    from moeopt.options import family_shares, of_layers, recorded
    from moeopt.problem import Problem
    from moeopt.stop import Stop

    for path in (output, figure):
        check_folder(path)
    recording = recorded(trace, layers)
    used = of_layers(read_placement(incumbent), recording.layer_ids.tolist())
    cluster = Cluster(used.nodes, used.gpus // used.nodes, used.slots, gpu_cost, node_cost)
    problem = Problem.from_trace(
        recording,
        cluster,
        family_weights=family_shares(weights),
        objective=objective,
        load_tolerance=load_tolerance,
        incumbent=used,
    )
    step = every or (2 if cluster.slots_of.sum() == recording.n_experts else 1)
    budgets = sorted({*range(0, max_moves + 1, step), max_moves})
    with progress(quiet=as_json) as follow:
        advance = follow(method, len(budgets))
        steps = front(
            problem,
            budgets,
            method=method,
            stop=Stop(seconds=seconds),
            seed=seed,
            on_step=lambda _: advance(),
        )
    if output is not None:
        storage.write_json(output, steps[-1].placement.to_dict())
    if figure is not None:
        import matplotlib.pyplot as plt

        from moeopt.figures import draw_front

        draw_front(steps)
        plt.savefig(figure)
        plt.close()

    def draw() -> list[Any]:
        from rich.table import Table

        table = Table("budget", "moves", "fan-out", "bound", "saving", "a move", "seconds", "status")
        for row in steps:
            unit = row.cost / row.fan_out if row.fan_out else 1.0
            table.add_row(
                str(row.budget),
                str(row.moves),
                f"{row.fan_out:.3f}",
                "" if row.bound is None else f"{row.bound / unit:.3f}",
                f"{row.saving:.3f}",
                f"{row.saving_per_move:.4f}",
                f"{row.seconds:.1f}",
                row.status,
            )
        return [table]

    show({"steps": [row.to_dict() for row in steps]}, draw, as_json=as_json)
