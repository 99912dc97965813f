"""The verb `export`: a placement as the file that an engine loads."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from moeopt import flags


def export(
    placement: Annotated[Path, typer.Argument()],
    *,
    engine: Annotated[
        str, typer.Option(help="sglang, vllm, tensorrt-llm, vllm-ascend, omniplacement, eplb, plain, ...")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    pad: Annotated[bool, typer.Option("--pad", help="Fill free slots with further copies.")] = False,
    loads: Annotated[
        Path | None,
        typer.Option(help="Recording whose hottest experts fill free slots.", show_default=False),
    ] = None,
    hidden_layers: Annotated[
        int | None, typer.Option(help="Layers of the model, dense ones included: sglang.")
    ] = None,
    moe_layers: Annotated[
        int | None, typer.Option(help="MoE layers of the model, of engines that number them.")
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Write a placement as a file that an engine loads; `moeopt deploy-notes ENGINE` says how to serve with it."""
    from moeopt import api, registry
    from moeopt.recording import read_workload
    from moeopt.terminal import show

    placed = api.read_placement(placement)
    settings: dict[str, Any] = {"pad": True} if pad else {}
    settings |= {} if hidden_layers is None else {"hidden_layers": hidden_layers}
    settings |= {} if moe_layers is None else {"moe_layers": moe_layers}
    if loads is not None:
        workload = read_workload(loads).only(placed.layer_ids)
        settings["loads"] = [sets.load for sets in workload.layers]
    known = inspect.signature(registry.named_engine(engine).dump).parameters
    if foreign := [name for name in settings if name not in known]:
        raise ValueError(f"engine {engine} takes no --{foreign[0].replace('_', '-')}")
    try:
        api.export(placed, output, engine=engine, **settings)
    except ValueError as error:
        raise ValueError(f"{placement}: {error}") from error
    answer = {"file": str(output), "engine": engine, "layers": len(placed.layer_ids)}
    show(answer, lambda: [f"{output}: {len(placed.layer_ids)} layers for {engine}"], as_json=as_json)
