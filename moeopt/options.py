"""Words of the command line turned into numbers; ValueError says what was wrong with which word."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from moeopt.api import read_placement
from moeopt.cluster import Cluster
from moeopt.method import Method
from moeopt.pair_counts import recorded_share
from moeopt.parallel import available_cores
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.recording import read_recording, read_trace
from moeopt.trace import Trace
from moeopt.workload import Workload

if TYPE_CHECKING:
    from moeopt.streamed import Streamed


def layer_list(text: str | None, *, flag: str = "--layers") -> list[int] | None:
    """ "0-3,7" as [0, 1, 2, 3, 7]; None stays None."""
    if text is None:
        return None
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise ValueError(f"{flag} must look like 0-3,7, found {part.strip()!r} in {text!r}")
        if int(last or first) > 100_000:
            raise ValueError(f"{flag} names layer {last or first}, no model has so many")
        layers.update(range(int(first), int(last or first) + 1))
    return sorted(layers)


def family_shares(text: str | None) -> dict[str, float] | None:
    """ "code=2,math=1" as a dictionary; None stays None."""
    if text is None:
        return None
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().rpartition("=")
        if not equals or not name:
            raise ValueError(f"--weights must look like code=2,math=1, found {part.strip()!r}")
        if name in weights:
            raise ValueError(f"--weights names family {name!r} twice")
        try:
            weights[name] = float(value)
        except ValueError:
            raise ValueError(f"--weights of family {name!r} must be a number, found {value!r}") from None
        if not math.isfinite(weights[name]):
            raise ValueError(f"--weights of family {name!r} must be finite, found {value!r}")
    return weights


def name_list(text: str) -> list[str]:
    """ "linear,swap" as a list."""
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise ValueError(f"--methods must be names separated by commas, found {text!r}")
    return names


def named_families(weights: dict[str, float] | None, families: Sequence[str]) -> str:
    """One line on families that the weights leave out; empty when there are none."""
    if weights is None:
        return ""
    left_out = [name for name in families if not weights.get(name)]
    return f"families without weight: {', '.join(left_out)}" if left_out else ""


def recorded(path: Path, layers: str | None) -> Trace:
    """The trace of a file, or the layers of it that `--layers` names."""
    wanted = layer_list(layers)
    trace = read_trace(path)
    try:
        return trace if wanted is None else trace.layers(wanted)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def recorded_traffic(path: Path, layers: str | None) -> Trace | Workload:
    """What a file holds, a trace or a workload without tokens, or the layers of it that `--layers` names."""
    wanted = layer_list(layers)
    found = read_recording(path)
    if wanted is None:
        return found
    try:
        return found.only(wanted) if isinstance(found, Workload) else found.layers(wanted)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def data_set(
    path: Path, layers: str | None, *, follow: Callable[[str, int], Callable[[], object]]
) -> Streamed | None:
    """A folder of Parquet files, counted in one pass, the layers that `--layers` names; None of anything else."""
    from moeopt.readers.shards import Shards

    if not path.is_dir() or not Shards().accepts(path, b""):
        return None
    from moeopt.streaming import stream_workload

    with ThreadPoolExecutor(available_cores()) as executor:
        return stream_workload(path, layer_ids=layer_list(layers), executor=executor, follow=follow)


def even_slots(copies: int, gpus: int) -> int:
    """Slots of a GPU that an even share of the copies needs."""
    return -(-copies // max(gpus, 1))


def stated(
    traffic: Trace | Workload,
    *,
    path: Path,
    gpus: int,
    nodes: int,
    slots: int | None,
    replicas: int,
    load_tolerance: str | None,
    weights: str | None,
    objective: str,
    gpu_cost: int,
    node_cost: int,
    speeds: str | None = None,
    tail: str | None = None,
    incumbent: Path | None = None,
    max_moves: int | None = None,
) -> tuple[Problem, str]:
    """The problem of the options, and a line on families that got no weight and pairs that were not recorded."""
    shares, pace = family_shares(weights), number_list("--speeds", speeds)
    running = None if incumbent is None else read_placement(incumbent)
    layer_ids = [int(layer) for layer in traffic.layer_ids]
    try:
        cluster = Cluster.of(
            gpus=gpus,
            nodes=nodes,
            slots=even_slots(traffic.n_experts + max(replicas, 0), gpus) if slots is None else slots,
            gpu_cost=gpu_cost,
            node_cost=node_cost,
            speeds=1 if pace is None else pace,
        )
        problem = Problem(
            traffic if isinstance(traffic, Workload) else Workload.from_trace(traffic),
            cluster,
            replicas=replicas,
            family_weights=shares,
            objective=objective,
            load_tolerance=load_tolerance,
            tail=tail,
            incumbent=None if running is None else of_layers(running, layer_ids),
            max_moves=max_moves,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    notes = [named_families(shares, traffic.families)]
    if problem.workload.paired and not problem.workload.complete:
        notes.append(f"cut of the recorded pairs, {recorded_share(problem.workload):.1%} of all")
    return problem, "; ".join(filter(None, notes))


def number_list(flag: str, text: str | None) -> tuple[int, ...] | None:
    """ "2,2,1" as (2, 2, 1); None stays None."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and len(part) < 10 for part in parts):
        raise ValueError(f"{flag} must be whole numbers separated by commas, found {text!r}")
    return tuple(int(part) for part in parts)


def of_layers(placement: Placement, layer_ids: Sequence[int]) -> Placement:
    """The layers of a placement that a trace has; ValueError names one that it lacks."""
    at = {layer: index for index, layer in enumerate(placement.layer_ids)}
    if missing := [layer for layer in layer_ids if layer not in at]:
        raise ValueError(
            f"the incumbent has no layer {missing[0]}, its layers are {list(placement.layer_ids)}"
        )
    return Placement.join([placement.layer(at[layer]) for layer in layer_ids])


def with_solver(method: Method, solver: str) -> Method:
    """The method with another solver for the statements that it searches; ValueError where it searches none."""
    from moeopt.exact import Exact
    from moeopt.solvers.offered import installed

    if solver == "highs":
        return method
    if reason := installed(solver):
        raise ValueError(f"--solver {solver}: {reason}")
    if not isinstance(method, Exact):
        raise ValueError(f"--solver {solver}: method {method.name} hands no statement to a solver")
    return replace(method, solver=solver)


def worker_count(asked: int | None, *, layers: int) -> int:
    """Processes to start: as asked or as many as there are cores, no more than layers."""
    if asked is not None and asked < 1:
        raise ValueError(f"--workers must be at least 1, found {asked}")
    return min(available_cores() if asked is None else asked, layers)
