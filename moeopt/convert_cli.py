"""The verb `convert`: any recording as the project's own file."""

from pathlib import Path
from typing import Annotated

import typer

from moeopt import flags
from moeopt.terminal import show


def convert(
    source: flags.Recording,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    *,
    experts: Annotated[
        int | None, typer.Option(help="Routed experts of a layer, where the recording does not say.")
    ] = None,
    moe_layers: Annotated[
        str | None,
        typer.Option(help="Absolute indices of the MoE layers: 1-26. Where the recording does not say."),
    ] = None,
    hidden_layers: Annotated[
        int | None, typer.Option(help="Layers of the model, dense ones included: of SGLang's answers.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Experts that a token chooses, where the recording does not say.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV or JSONL with the family and phase of each request.", show_default=False),
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Write a recording of any known format as a trace (Parquet); counts without tokens as a workload (JSON)."""
    from moeopt.options import layer_list
    from moeopt.recording import read_recording, write_recording
    from moeopt.running import ranges
    from moeopt.supplement import Supplement
    from moeopt.trace import Trace

    layers = layer_list(moe_layers, flag="--moe-layers")
    supplement = Supplement(experts, None if layers is None else tuple(layers), top_k, model, hidden_layers)
    found = read_recording(source, supplement=supplement, manifest=manifest)
    write_recording(found, output)
    tokens = found.n_tokens if isinstance(found, Trace) else int(found.tokens.sum())
    kind = "tokens" if isinstance(found, Trace) else "tokens or activations, counts alone"
    layers_read = ranges([int(layer) for layer in found.layer_ids])
    answer = {
        "file": str(output),
        "tokens": tokens,
        "sets": isinstance(found, Trace),
        "layers": [int(layer) for layer in found.layer_ids],
        "experts": found.n_experts,
    }
    if as_json:
        show(answer, list, as_json=True)
        return
    typer.echo(
        f"{output}: {tokens:,} {kind}, {len(found.layer_ids)} layers x {found.n_experts} experts, "
        f"layers {layers_read}"
    )
