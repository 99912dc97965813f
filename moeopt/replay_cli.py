"""The verb `replay`: a trace served batch by batch under a dispatch rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeopt import flags
from moeopt.terminal import show

if TYPE_CHECKING:
    from rich.table import Table

    from moeopt.architectures import Architecture
    from moeopt.trace import Trace


def replay(
    placement: Annotated[
        Path,
        typer.Argument(
            help="Placement: of `place`, in a certificate or result, or an engine's map.", show_default=False
        ),
    ],
    trace: flags.TraceFile,
    *,
    rule: Annotated[
        str, typer.Option(help="Which copy serves: cover, equal, nearest, static, guarded, load-priced.")
    ] = "cover",
    batch: Annotated[int, typer.Option(help="Tokens of a batch.")] = 256,
    order: Annotated[
        str, typer.Option(help="steps: all requests advance together; recorded: as in the trace.")
    ] = "steps",
    gpus: Annotated[
        int | None, typer.Option(help="GPUs in all: an engine's map does not say.", show_default=False)
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Nodes. Default: as in the placement; 1 for a map.", show_default=False)
    ] = None,
    gpu_cost: flags.GpuCost = 1,
    node_cost: flags.NodeCost = 0,
    layers: flags.Layers = None,
    model: Annotated[
        str | None,
        typer.Option(help="For seconds: as in `moeopt capacity`. Default: the trace's, where it is known."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the experts' weights: bf16, fp8, mxfp4, ...")] = "bf16",
    compute: Annotated[str, typer.Option(help="Of the arithmetic: bf16 or fp8.")] = "bf16",
    gpu: Annotated[str, typer.Option(help="For seconds: h100-sxm, b200, mi300x, ...")] = "h100-sxm",
    link: Annotated[
        str,
        typer.Option(help="For seconds: nvlink, xgmi or pcie; then -ib-hdr, -ib-ndr, -ib-xdr, -roce-400."),
    ] = "nvlink-ib-ndr",
    hidden: Annotated[
        int | None, typer.Option(min=1, help="Numbers of a token's vector. Default: the model's width.")
    ] = None,
    number_bytes: Annotated[int, typer.Option("--bytes", min=1, help="Of one number of a vector.")] = 2,
    as_json: flags.AsJson = False,
) -> None:
    """Serve a trace batch by batch: fan-out, balance, bytes, and seconds by a documented model."""
    from moeopt import replaying
    from moeopt.latency import Machine
    from moeopt.options import layer_list
    from moeopt.recording import read_trace
    from moeopt.replay_rules import named_rule
    from moeopt.running import read_running

    chosen, machine, wanted = named_rule(rule), Machine.of(gpu, link, compute=compute), layer_list(layers)
    recorded = read_trace(trace)
    running = read_running(placement, recorded, gpus=gpus, nodes=nodes, layers=wanted)
    shape = _architecture(model, recorded)
    width = shape.hidden if hidden is None and shape is not None else hidden
    try:
        found = replaying.replay(
            running.placement,
            recorded,
            rule=chosen,
            batch=batch,
            order=order,
            gpu_cost=gpu_cost,
            node_cost=node_cost,
            model=shape,
            precision=precision,
            vector_bytes=None if width is None else width * number_bytes,
            machine=None if shape is None else machine,
        )
    except ValueError as error:
        raise ValueError(f"{placement} on {trace}: {error}") from error
    answer = {
        **found.to_dict(),
        "source": running.source,
        "model": None if shape is None else shape.name,
        "machine": None if shape is None else machine.name,
    }
    show(
        answer,
        lambda: [_by_layer(answer), _volumes(answer), _times(answer), _headline(answer)],
        as_json=as_json,
    )


def _architecture(model: str | None, trace: Trace) -> Architecture | None:
    """The named one, or the trace's own where its name and experts are known."""
    from moeopt.architectures import ARCHITECTURES, architecture

    if model is not None:
        return architecture(model)
    known = ARCHITECTURES.get(trace.model.rpartition("/")[2].lower())
    return known if known is not None and known.experts == trace.n_experts else None


def _headline(answer: dict[str, Any]) -> str:
    """How it was replayed, and what was timed."""
    text = (
        f"{answer['source']}; {answer['rule']}; {answer['tokens']:,} tokens on {answer['gpus']} GPUs in "
        f"{answer['batches']:,} batches of {answer['batch']} ({answer['order']})"
    )
    if answer["seconds"] is None:
        return f"{text}; for seconds --model is needed"
    mean = 1e6 * answer["seconds"]["total"] / answer["batches"]
    return f"{text}; {mean:,.0f} µs a batch for the experts of {answer['model']} on {answer['machine']} (modelled)"


def _by_layer(answer: dict[str, Any]) -> Table:
    """Traffic and balance of layers, and of all of them."""
    from rich.table import Table

    from moeopt.tables import number

    table = Table(title="Replay", title_justify="left")
    for name in ("layer", "fan-out", "nodes", "MaxVio", "Jain", "active", "sent", "padded"):
        table.add_column(name, justify="right", no_wrap=True)

    def add(name: str, row: dict[str, Any], layers: int) -> None:
        unit = answer["tokens"] * layers
        table.add_row(
            name,
            *(number(row[key]) for key in ("fan_out", "node_fan_out", "max_violation")),
            number(row["jain"], ".4f"),
            number(row["activated"], ".1f"),
            *(number(row["vectors"][key] / unit) for key in ("remote_gpus", "padded")),
        )

    for row in answer["layers"]:
        add(str(row["layer"]), row, 1)
    table.add_section()
    add("all", answer, len(answer["layers"]))
    table.caption = (
        "active: most experts that one GPU uses, mean of batches; sent, padded: vectors a token and layer, one way; "
        "MaxVio, Jain of all: loads summed over layers"
    )
    table.caption_justify = "left"
    return table


def _volumes(answer: dict[str, Any]) -> Table:
    """Vectors sent, counted in every way."""
    from rich.table import Table

    from moeopt.replay_layers import VOLUMES
    from moeopt.tables import number

    table = Table(title="Volumes, one way", title_justify="left")
    known = answer["vector_bytes"]
    for name in ("volume", "a token", *(("GB in all",) if known else ()), "one vector for"):
        table.add_column(name, justify="left" if "v" in name else "right", no_wrap=True)
    unit = answer["tokens"] * len(answer["layers"])
    for name, meaning in VOLUMES.items():
        vectors = answer["vectors"][name]
        size = (number(vectors * known / 1e9),) if known else ()
        table.add_row(name, number(vectors / unit), *size, meaning)
    table.caption = "a token: and layer; padded: every message between two GPUs as the largest of its batch"
    table.caption_justify = "left"
    return table


def _times(answer: dict[str, Any]) -> Table | str:
    """Modelled times of layers; nothing where there are none."""
    from rich.table import Table

    from moeopt.tables import number

    if answer["seconds"] is None:
        return ""
    table = Table(title="Modelled µs a batch", title_justify="left")
    for name in ("layer", "dispatch", "compute", "combine", "in all", "utilisation"):
        table.add_column(name, justify="right", no_wrap=True)

    def add(name: str, spent: dict[str, float]) -> None:
        each = 1e6 / answer["batches"]
        parts = (number(each * spent[key], ",.1f") for key in ("dispatch", "compute", "combine", "total"))
        table.add_row(name, *parts, number(spent["utilisation"], ".1%"))

    for row in answer["layers"]:
        add(str(row["layer"]), row["seconds"])
    table.add_section()
    add("all", answer["seconds"])
    table.caption = "utilisation: mean / largest computing time of the GPUs; left out: see moeopt.latency"
    table.caption_justify = "left"
    return table
