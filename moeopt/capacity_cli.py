"""The verb `capacity`: slots from GPU memory."""

from typing import Annotated, Any

import typer

from moeopt import flags
from moeopt.terminal import show


def capacity(
    model: Annotated[str, typer.Argument(help="deepseek-v3, gpt-oss-20b, ...; an unknown name lists all.")],
    *,
    gpus: flags.Gpus,
    gpu_memory: Annotated[float, typer.Option(help="Memory of one GPU, GiB.")],
    kv_cache: Annotated[float, typer.Option(help="KV cache of one GPU, GiB.")] = 0.0,
    reserve: Annotated[float, typer.Option(help="Fraction for activations and buffers.")] = 0.05,
    precision: Annotated[
        str, typer.Option(help="Routed experts: fp32, bf16, fp16, fp8, int8, int4, mxfp4, nvfp4.")
    ] = "bf16",
    dense_precision: Annotated[str, typer.Option(help="All other weights.")] = "bf16",
    dense_shards: Annotated[int, typer.Option(help="GPUs that share the other weights.")] = 1,
    other_weights: Annotated[
        float | None, typer.Option(help="Other weights on each GPU, GiB. Default: the model's.")
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """How many experts of one layer a GPU can hold."""
    from moeopt.memory import GIB, Capacity

    found = Capacity.of(
        model,
        gpus=gpus,
        gpu_memory_gib=gpu_memory,
        kv_cache_gib=kv_cache,
        reserve=reserve,
        precision=precision,
        dense_precision=dense_precision,
        dense_shards=dense_shards,
        other_weights_gib=other_weights,
    )

    def draw() -> list[Any]:
        from rich.table import Table

        table = Table("", "how", title=f"Memory of one GPU: {found.model.name}", title_justify="left")
        for name in ("bytes", "GiB"):
            table.add_column(name, justify="right", no_wrap=True)
        for what, how, size in found.terms():
            table.add_row(what, how, f"{size:,}", f"{size / GIB:.3f}")
        table.add_section()
        table.add_row("= slots", "a GPU and layer", str(found.slots), "")
        return [table, found.answer()]

    show(found.to_dict(), draw, as_json=as_json)
