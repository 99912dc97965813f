"""Plans that somebody runs, from whatever file holds them: a document of ours or an engine's map."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np

from moeopt import registry, storage
from moeopt.allocation_checker import FORMAT as ALLOCATION
from moeopt.certificate import FORMAT as CERTIFICATE
from moeopt.dispatch import FORMAT as PLAN
from moeopt.engine import PhysicalMap, agreed, placement_of, repeated
from moeopt.placement import FORMAT as PLACEMENT
from moeopt.placement import Placement
from moeopt.result import FORMAT as RESULT
from moeopt.storage import PathLike
from moeopt.trace import Trace
from moeopt.workload import Workload

MOST_BYTES = 1 << 30
CARRIERS = (PLAN, RESULT, CERTIFICATE, ALLOCATION)  # documents with a placement in them


@dataclass(frozen=True)
class Running:
    """A placement in use.

    | field | holds |
    |---|---|
    | placement | of the layers asked for |
    | source | what the file is: "moeopt-certificate", "map of sglang", ... |
    | duplicates | copies left out of `placement`: the GPU held the expert already |
    | left_out | layers of the file that were not asked for |
    """

    placement: Placement
    source: str
    duplicates: int = 0
    left_out: tuple[int, ...] = ()


def read_running(
    path: PathLike,
    traffic: Trace | Workload,
    *,
    gpus: int | None = None,
    nodes: int | None = None,
    layers: Sequence[int] | None = None,
) -> Running:
    """The placement in a file; what the file is, its content tells, never its name.

    Its layers are those of `traffic`, and the file must have no others, except a row for every hidden layer; or
    `layers`, some of both. A map without layer ids has the layers of the traffic in ascending order, or `layers`.

    Documents of ours say their GPUs and nodes: `gpus` and `nodes` must be the same where given. Of an engine's map
    `gpus` is needed, `nodes` is 1 unless given, and an expert held twice by one GPU counts as one copy.

    Raises ValueError naming the file, the rule broken and the value found, whatever is wrong with the file.
    """
    try:
        content = _content(Path(path))
        try:
            document = json.loads(content) if content.lstrip()[:1] == b"{" else None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error
        if isinstance(document, dict) and "format" in document:
            placement = _placement(document)
            for name, found, asked in (("gpus", placement.gpus, gpus), ("nodes", placement.nodes, nodes)):
                if asked is not None and asked != found:
                    raise ValueError(f"{name} are {found} in the placement, asked for were {asked}")
            return _of_layers(placement, traffic, source=document["format"], layers=layers)
        return _of_map(content, traffic, gpus=gpus, nodes=1 if nodes is None else nodes, layers=layers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def ranges(layers: Sequence[int]) -> str:
    """Ascending ids as `--layers` takes them: 0, 1, 2, 7 as "0-2,7"."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1][1:] = [layer]
        else:
            parts.append([layer])
    return ",".join("-".join(map(str, part)) for part in parts)


def _content(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ValueError("a placement is a file, found a folder")
        about = path.stat()
        if not S_ISREG(about.st_mode):  # a pipe would be waited for, a device never ends
            raise ValueError("a placement is a regular file, found something else")
        if (size := about.st_size) > MOST_BYTES:
            raise ValueError(f"a placement has at most {MOST_BYTES} bytes, found {size}")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error


def _placement(document: dict[str, Any]) -> Placement:
    """That of a document of ours, or of the document that carries it."""
    kind = document["format"]
    if kind == PLACEMENT:
        return Placement.from_dict(document)
    if kind not in CARRIERS:
        known = ", ".join((PLACEMENT, *CARRIERS))
        raise ValueError(f"format must be one with a placement ({known}), found {kind!r:.80}")
    storage.expect(document, kind=kind)
    held = storage.field(document, "placement", kind=(dict, type(None)))
    if held is None:
        raise ValueError(f"the {kind} carries no placement")
    return Placement.from_dict(held)


def _of_layers(
    placement: Placement, traffic: Trace | Workload, *, source: str, layers: Sequence[int] | None
) -> Running:
    if placement.n_experts != traffic.n_experts:
        raise ValueError(
            f"the placement has {placement.n_experts} experts a layer, the trace {traffic.n_experts}"
        )
    chosen, left_out = _choice(placement.layer_ids, traffic, layers=layers)
    parts = [placement.layer(placement.layer_ids.index(layer)) for layer in chosen]
    return Running(Placement.join(parts), source, left_out=left_out)


def _choice(
    held: Sequence[int], traffic: Trace | Workload, *, layers: Sequence[int] | None
) -> tuple[list[int], tuple[int, ...]]:
    """(layers to judge, layers of the file left out); ValueError where file or traffic lacks one."""
    recorded = traffic.layer_ids if isinstance(traffic, Workload) else traffic.layer_ids.tolist()
    if len(set(held)) < len(held):
        raise ValueError(f"layer ids must be distinct, found {list(held)}")
    chosen = sorted(set(recorded if layers is None else layers))
    for whose, found in (("trace", recorded), ("placement", held)):
        if missing := sorted(set(chosen) - set(found)):
            raise ValueError(
                f"layer {missing[0]} is not in the {whose}, whose layers are {ranges(sorted(found))}"
            )
    left_out = tuple(sorted(set(held) - set(chosen)))
    if left_out and layers is None:
        raise ValueError(
            f"the placement has layers {ranges(left_out)}, which the trace lacks: choose some of {ranges(chosen)}"
        )
    return chosen, left_out


def _of_map(
    content: bytes, traffic: Trace | Workload, *, gpus: int | None, nodes: int, layers: Sequence[int] | None
) -> Running:
    name, found = _engine_map(content)
    rows, experts, ids = found.rows, traffic.n_experts, found.layer_ids
    if found.gpus is not None:
        gpus = agreed("gpus", gpus, found=found.gpus)
    if gpus is None:
        raise ValueError(
            f"a map of {name} does not say which of its {rows.shape[1]} slots share a GPU: gpus is needed"
        )
    recorded = [int(layer) for layer in traffic.layer_ids]
    if found.shared:
        ids = tuple(sorted(set(recorded if layers is None else layers)))
        rows = np.tile(rows, (len(ids), 1))
    if ids is None:
        named = recorded if layers is None or len(rows) != len(set(layers)) else sorted(set(layers))
        if len(rows) != len(named):
            raise ValueError(
                f"the map has {len(rows)} layers and no layer ids, the trace {len(named)} ({ranges(named)})"
            )
        ids = tuple(named)
    if found.hidden and layers is None:
        layers = recorded
    chosen, left_out = _choice(ids, traffic, layers=layers)
    rows = rows[[ids.index(layer) for layer in chosen]]
    if found.experts not in (None, experts):
        raise ValueError(f"the map has {found.experts} experts a layer, the trace {experts}")
    if (highest := int(rows.max())) >= experts:
        raise ValueError(f"the map has expert {highest}, those of the trace are 0..{experts - 1}")
    placement = placement_of(
        rows,
        experts=experts,
        gpus=gpus,
        nodes=nodes,
        layer_ids=tuple(chosen),
        model=traffic.model,
        once=False,
    )
    return Running(placement, f"map of {name}", len(repeated(rows, gpus=gpus)), left_out)


def _engine_map(content: bytes) -> tuple[str, PhysicalMap]:
    """The engine whose file this is, and the map."""
    points = entry_points(group=registry.ENGINES)
    # Ours come last: a form added by others may be a special case of theirs.
    names = sorted(points.names, key=lambda name: (points[name].value.startswith("moeopt."), name))
    for name in names:
        engine = registry.named_engine(name)
        if engine.accepts(content):
            found: PhysicalMap = engine.read(content)
            return name, found
    raise ValueError(
        f"content must be a placement document or the map of an engine ({', '.join(names)}), "
        f"found {content[:12]!r} at the start"
    )
