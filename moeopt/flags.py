"""Arguments and options of the command line."""

from pathlib import Path
from typing import Annotated

import typer

TraceFile = Annotated[Path, typer.Argument(help="Routing trace: Parquet or .npz.", show_default=False)]
Recording = Annotated[
    Path, typer.Argument(help="What an engine recorded: a file, or a folder of files.", show_default=False)
]
TrafficFile = Annotated[
    Path, typer.Argument(help="Routing trace: Parquet or .npz; or pair counts: JSON.", show_default=False)
]
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
Objective = Annotated[
    str, typer.Option(help="fan-out (GPUs touched, exact), cut (pairs separated) or load (fullest GPU).")
]
GpuCost = Annotated[int, typer.Option(help="Cost of a further GPU.")]
NodeCost = Annotated[int, typer.Option(help="Cost of a further node.")]
Speeds = Annotated[
    str | None, typer.Option(help="Relative speeds of the GPUs: 2,2,1,1. Shares of the load tolerance.")
]
Tail = Annotated[
    str | None,
    typer.Option(
        help="Count the mean over the worst share of the families: 0 the worst one, 0.5 the worse half."
    ),
]
Incumbent = Annotated[
    Path | None, typer.Option(help="Placement to change, a file of `place`.", show_default=False)
]
MaxMoves = Annotated[
    int | None, typer.Option(help="Copies of a layer that may leave the incumbent's places, at most.")
]
Methods = Annotated[str, typer.Option(help="Names, separated by commas.")]
Seeds = Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of each method.")]
HeldOut = Annotated[float, typer.Option(help="Share of requests set aside, split anew for each seed.")]
Null = Annotated[bool, typer.Option("--null", help="Shuffle co-activation away first: the control.")]
Layers = Annotated[str | None, typer.Option(help="Layers by absolute id: 0-3,7. Default: all.")]
Seconds = Annotated[
    float,
    typer.Option(help="Time limit per layer and method; checking what was proved comes on top."),
]
Workers = Annotated[
    int | None, typer.Option(help="Processes that solve layers in parallel. Default: the cores.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of tables.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="File to write.", show_default=False)]
