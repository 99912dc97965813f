"""python -m benchmarks.convert_traces esft | fingerprints FOLDER -o out.parquet

Two public repositories hold routes token by token in layouts of their own; this makes traces of their checkouts.

| command | repository, licence | layout |
|---|---|---|
| esft | deepseek-ai/ESFT 579a7711, MIT | `results/expert_scores/<family>/expert_weights_<layer>.txt` |
| fingerprints | AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting 72b368f6, Apache-2.0 | `data/*/*/*_examples.json` |
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from moeopt import storage
from moeopt.recording import write_trace
from moeopt.trace import DECODE, PREFILL, Trace

LIMIT = 1 << 30  # bytes of one file

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@dataclass(frozen=True, eq=False)
class Routed:
    """Tokens of one sequence: experts [tokens, layers, k], position [tokens]."""

    family: str
    experts: NDArray[Any]
    position: NDArray[Any]


def esft_trace(
    folder: Path, *, top_k: int = 6, n_experts: int = 64, model: str = "DeepSeek-V2-Lite"
) -> Trace:
    """The trace of a checkout of deepseek-ai/ESFT, or of a folder of its `expert_scores`; all of it is prefill.

    A file holds a layer, named by its absolute id, of a family; those in folders `rank_<i>` of the family come one
    after another. A line holds a sequence: the ids of the k experts of all its tokens, with tabs between them, two
    tabs, and as many gates, which are not read. Raises ValueError naming the file and line that do not fit.
    """
    scores = folder / "results" / "expert_scores"
    scores = scores if scores.is_dir() else folder
    places = [
        (family.name, place)
        for family in sorted(scores.iterdir())
        if family.is_dir()
        for place in [family, *sorted(rank for rank in family.glob("rank_*") if rank.is_dir())]
    ]
    sequences: list[Routed] = []
    layers: list[int] = []
    for family, place in places:
        files = {int(path.stem.rpartition("_")[2]): path for path in place.glob("expert_weights_*.txt")}
        if not files:
            continue
        if layers and sorted(files) != layers:
            raise ValueError(f"{place}: layers are {sorted(files)}, other folders have {layers}")
        layers = sorted(files)
        by_layer = [list(_lines(files[layer], top_k)) for layer in layers]
        for layer, lines in zip(layers, by_layer, strict=True):
            shapes, wanted = ([line.shape for line in some] for some in (lines, by_layer[0]))
            if shapes != wanted:
                raise ValueError(
                    f"{files[layer]}: {len(shapes)} sequences of {_total(shapes)} tokens, layer {layers[0]} has "
                    f"{len(wanted)} of {_total(wanted)}"
                )
        for parts in zip(*by_layer, strict=True):
            sequences.append(Routed(family, np.stack(parts, axis=1), np.arange(len(parts[0]))))
    return _trace(sequences, layers, n_experts=n_experts, phase=PREFILL, model=model, folder=folder)


def fingerprints_trace(
    folder: Path, *, by: str = "dataset", n_experts: int = 32, model: str = "gpt-oss-20b"
) -> Trace:
    """The trace of a checkout of GPT-OSS-MoE-ExpertFingerprinting, or of its folder `data`; all of it is decode.

    A file holds an example, or a list of them: `router_data` is a list of objects with fields `token_<position>`, of
    fields `layer_<id>`, whose `selected_experts` are the k ids. `by`: the field that names the family, dataset or
    category. Raises ValueError naming the file and token that do not fit.
    """
    if by not in ("dataset", "category"):
        raise ValueError(f"families are by dataset or by category, found {by!r}")
    data = folder / "data" if (folder / "data").is_dir() else folder
    sequences: list[Routed] = []
    layers: list[int] = []
    for path in sorted(data.rglob("*_examples.json")):
        try:
            document = json.loads(_content(path))
            for example in document if isinstance(document, list) else [document]:
                family = storage.field(example, by, kind=str)
                rows, position, layers = _example(example, layers)
                sequences.append(Routed(family, rows, position))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from error
    return _trace(sequences, layers, n_experts=n_experts, phase=DECODE, model=model, folder=folder)


def _content(path: Path) -> str:
    if (size := path.stat().st_size) > LIMIT:
        raise ValueError(f"{path}: a file may have {LIMIT} bytes, found {size}")
    return path.read_text(encoding="utf-8")


def _total(shapes: list[tuple[int, ...]]) -> int:
    return sum(shape[0] for shape in shapes)


def _lines(path: Path, top_k: int) -> Iterator[NDArray[np.int64]]:
    """int64 [tokens, k] of every line."""
    for number, line in enumerate(_content(path).splitlines(), 1):
        ids, between, gates = line.partition("\t\t")
        try:
            found = np.array(ids.split("\t"), np.int64)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}, line {number}: ids must be whole numbers: {error}") from error
        if not between or len(gates.split("\t")) != len(found):
            raise ValueError(f"{path}, line {number}: {len(found)} ids need as many gates after two tabs")
        if len(found) % top_k:
            raise ValueError(f"{path}, line {number}: {len(found)} ids are no tokens of top-{top_k}")
        yield found.reshape(-1, top_k)


def _example(
    example: dict[str, Any], layers: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """(experts [tokens, layers, k], position [tokens], layers) of an example; layers as the ones before."""
    tokens: dict[int, Any] = {}
    for step in storage.field(example, "router_data", kind=list):
        if not isinstance(step, dict):
            raise ValueError(f"router_data must list objects, found {step!r:.40}")
        for name, by_layer in step.items():
            position = _numbered(name, "token_")
            if position in tokens:
                raise ValueError(f"{name} is there twice")
            if not isinstance(by_layer, dict):
                raise ValueError(f"{name} must hold layers, found {type(by_layer).__name__}")
            for layer, chosen in by_layer.items():
                if not isinstance(chosen, dict) or "selected_experts" not in chosen:
                    raise ValueError(f"{name}, {layer}: no selected_experts")
            tokens[position] = {_numbered(layer, "layer_"): chosen for layer, chosen in by_layer.items()}
    if not tokens:
        raise ValueError("router_data must hold tokens, found none")
    layers = layers or sorted(next(iter(tokens.values())))
    for position, by_layer in tokens.items():
        if sorted(by_layer) != layers:
            raise ValueError(f"token_{position}: layers are {sorted(by_layer)}, other tokens have {layers}")
    order = sorted(tokens)
    nested = [[tokens[position][layer]["selected_experts"] for layer in layers] for position in order]
    return storage.whole_numbers({"selected_experts": nested}, "selected_experts"), np.array(order), layers


def _numbered(name: str, prefix: str) -> int:
    number = name.removeprefix(prefix)
    if number == name or not number.isdecimal() or len(number) > 9:
        raise ValueError(f"a name must be {prefix}<number>, found {name!r:.40}")
    return int(number)


def _trace(
    sequences: list[Routed], layers: list[int], *, n_experts: int, phase: int, model: str, folder: Path
) -> Trace:
    if not sequences:
        raise ValueError(f"{folder}: no file of the layout was found")
    families = tuple(sorted({sequence.family for sequence in sequences}))
    lengths = [len(sequence.experts) for sequence in sequences]
    tokens = sum(lengths)
    return Trace(
        np.concatenate([sequence.experts for sequence in sequences]),
        n_experts,
        layer_ids=np.array(layers),
        families=families,
        family=np.repeat([families.index(sequence.family) for sequence in sequences], lengths),
        request=np.repeat(np.arange(len(sequences)), lengths),
        position=np.concatenate([sequence.position for sequence in sequences]),
        phase=np.full(tokens, phase, np.uint8),
        model=model,
    )


Folder = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The checkout.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Parquet file to write.")]


@app.command("esft")
def convert_esft(folder: Folder, output: Output) -> None:
    """A checkout of deepseek-ai/ESFT."""
    _write(lambda: esft_trace(folder), output)


@app.command("fingerprints")
def convert_fingerprints(
    folder: Folder,
    output: Output,
    by: Annotated[str, typer.Option(help="Field that names the family: dataset or category.")] = "dataset",
) -> None:
    """A checkout of AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting."""
    _write(lambda: fingerprints_trace(folder, by=by), output)


def _write(read: Callable[[], Trace], output: Path) -> None:
    try:
        trace = read()
        write_trace(trace, output)
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(
        f"{output}: {trace.n_tokens} tokens of {len(np.unique(trace.request))} sequences, "
        f"{trace.n_layers} layers, families {', '.join(trace.families)}"
    )


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.convert_traces")
