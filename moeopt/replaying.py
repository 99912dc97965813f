"""A trace replayed: tokens in batches through a placement and a dispatch rule, and the traffic that makes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt.architectures import Architecture, architecture
from moeopt.cluster import Cluster
from moeopt.latency import ExpertWork, Machine, Seconds
from moeopt.placement import Placement
from moeopt.replay_layers import VOLUMES, Pass
from moeopt.replay_rules import Rule, named_rule
from moeopt.trace import Trace
from moeopt.traffic import Traffic, jain, max_violation, variation

MOST_GPUS = 4096  # messages are counted for every pair
ORDERS = ("steps", "recorded")


@dataclass(frozen=True, eq=False)
class Replay:
    """What a trace does to a placement under a dispatch rule.

    | field | holds |
    |---|---|
    | rule, order, batch | how it was replayed; `batch` tokens at a time |
    | traffic | GPUs and nodes touched, loads: layer by layer, as `moeopt.traffic.Traffic` counts them |
    | volumes | int64 [layers, volumes]: vectors sent one way, columns as in `moeopt.replay_layers.VOLUMES` |
    | batch_volumes | int64 [batches, volumes]: the same of each batch, summed over layers |
    | activated | float64 [layers]: mean over batches of the most experts that one GPU activates |
    | vector_bytes | of one token's vector; None: not known |
    | batch_seconds, layer_seconds | of each batch, of each layer, by `moeopt.latency`; None without a machine |
    """

    rule: Rule
    order: str
    batch: int
    traffic: Traffic
    volumes: NDArray[np.int64]
    batch_volumes: NDArray[np.int64]
    activated: NDArray[np.float64]
    vector_bytes: int | None = None
    batch_seconds: Seconds | None = None
    layer_seconds: Seconds | None = None

    @property
    def batches(self) -> int:
        """Of each layer; the last may be smaller."""
        return len(self.batch_volumes)

    @property
    def local_share(self) -> float:
        """Share of the activations that the home GPU of the token serves."""
        return 1 - float(self.vectors("remote_experts").sum() / self.vectors("experts").sum())

    def vectors(self, name: str) -> NDArray[np.int64]:
        """int64 [layers]: the volume of this name, in vectors; KeyError for an unknown name."""
        return self.volumes[:, {known: column for column, known in enumerate(VOLUMES)}[name]]

    def dispatched_bytes(self, name: str) -> NDArray[np.int64]:
        """int64 [layers]: the volume of this name, in bytes one way; ValueError where a vector's are not known."""
        if self.vector_bytes is None:
            raise ValueError("the bytes of a vector are not known: give replay a model or vector_bytes")
        return self.vectors(name) * self.vector_bytes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: all layers together, and one row each; `seconds` are sums over batches."""
        traffic = self.traffic
        rows = []
        for index, layer in enumerate(traffic.layer_ids):
            touched = traffic.nodes_touched[index].sum() / traffic.tokens.sum()
            rows.append(
                {
                    "layer": layer,
                    "fan_out": float(traffic.layer_fan_out[index]),
                    "node_fan_out": float(touched - 1),
                    **_balance(traffic.loads[index]),
                    "activated": float(self.activated[index]),
                    "vectors": dict(zip(VOLUMES, self.volumes[index].tolist(), strict=True)),
                    "seconds": None
                    if self.layer_seconds is None
                    else self.layer_seconds.only(index).to_dict(),
                }
            )
        totals = self.volumes.sum(axis=0).tolist()
        return {
            "rule": repr(self.rule),
            "order": self.order,
            "batch": self.batch,
            "batches": self.batches,
            "tokens": int(traffic.tokens.sum()),
            "gpus": int(traffic.loads.shape[1]),
            "fan_out": traffic.fan_out,
            "node_fan_out": traffic.node_fan_out,
            "families": traffic.family_fan_out,
            **_balance(traffic.summed),
            "activated": float(self.activated.mean()),
            "local_share": self.local_share,
            "vectors": dict(zip(VOLUMES, totals, strict=True)),
            "median_batch": dict(zip(VOLUMES, np.median(self.batch_volumes, axis=0).tolist(), strict=True)),
            "vector_bytes": self.vector_bytes,
            "seconds": None if self.layer_seconds is None else self.layer_seconds.to_dict(),
            "layers": rows,
        }


def replay(
    placement: Placement,
    trace: Trace,
    *,
    rule: str | Rule = "cover",
    batch: int = 256,
    order: str = "steps",
    ranks: ArrayLike | None = None,
    gpu_cost: int = 1,
    node_cost: int = 0,
    model: str | Architecture | None = None,
    precision: str = "bf16",
    vector_bytes: int | None = None,
    machine: Machine | None = None,
) -> Replay:
    """Serve `trace` with `placement`, every layer of which the trace must have.

    `rule` is one of `moeopt.replay_rules`, by name or with settings; `cover` minds gpu_cost and node_cost.
    `batch` tokens make a batch: consecutive ones in the order "recorded", or in "steps", where all requests advance
    together, a token each: by phase, then position, then request, as when requests are decoded side by side.
    `ranks` int [tokens] are the home GPUs, in the trace's order; without them request r lives on GPU r modulo GPUs.
    A token's vector has `vector_bytes`, by default the model's width x 2. With `model` (a name of
    `moeopt.architectures` or an architecture; experts stored in `precision`) and `machine` there are seconds.

    Memory beyond the trace: some numbers a token and a batch, and one slice of one layer.
    Raises ValueError naming what is unknown, out of range or does not fit.
    """
    chosen = named_rule(rule) if isinstance(rule, str) else rule
    cluster = Cluster(
        placement.nodes, placement.gpus // placement.nodes, placement.slots, gpu_cost, node_cost
    )
    layers = _layer_positions(placement, trace)
    _check(batch, order, placement.gpus)
    source = _home_gpus(ranks, trace, placement.gpus)
    shape = architecture(model) if isinstance(model, str) else model
    width = _vector_bytes(vector_bytes, shape, trace=trace)
    work = None
    if machine is not None:
        if shape is None or width is None:
            raise ValueError("seconds need the model's experts: model is None")
        work = ExpertWork.of(shape, precision=precision, vector_bytes=width)
    rows = _in_steps(trace) if order == "steps" else None
    size = min(int(batch), trace.n_tokens)
    run = Pass(placement, trace, chosen, cluster, size, rows, source, machine, work)
    batches = -(-trace.n_tokens // size)
    touched, loads, volumes, activated, times = [], [], [], [], []
    batch_volumes, batch_times = np.zeros((batches, len(VOLUMES)), np.int64), None
    for index, at in enumerate(layers):
        layer = run.layer(index, at)
        touched.append(layer.touched)
        loads.append(layer.loads)
        volumes.append(layer.volumes.sum(axis=0))
        activated.append(layer.activated / batches)
        batch_volumes += layer.volumes
        if layer.seconds is not None:
            times.append(layer.seconds.summed)
            batch_times = layer.seconds if batch_times is None else batch_times + layer.seconds
    tokens = np.bincount(trace.family, minlength=len(trace.families)).astype(np.int64)
    gpus, nodes = np.moveaxis(np.array(touched), 2, 0)
    return Replay(
        rule=chosen,
        order=order,
        batch=int(batch),
        traffic=Traffic(placement.layer_ids, trace.families, tokens, gpus, nodes, np.array(loads)),
        volumes=np.array(volumes),
        batch_volumes=batch_volumes,
        activated=np.array(activated),
        vector_bytes=width,
        batch_seconds=batch_times,
        layer_seconds=Seconds.join(times) if times else None,
    )


def _in_steps(trace: Trace) -> NDArray[np.intp]:
    """Tokens by phase, position, request."""
    return np.lexsort((trace.request, trace.position, trace.phase))


def _vector_bytes(given: int | None, shape: Architecture | None, *, trace: Trace) -> int | None:
    """As given, or 2 for each number of the model's width; None where neither is known."""
    if shape is not None and shape.experts != trace.n_experts:
        raise ValueError(f"{shape.name} has {shape.experts} experts a layer, the trace {trace.n_experts}")
    if given is None:
        return None if shape is None else 2 * shape.hidden
    if not isinstance(given, int) or given < 1:
        raise ValueError(f"vector_bytes must be a whole number, at least 1, found {given!r}")
    return given


def _home_gpus(ranks: ArrayLike | None, trace: Trace, gpus: int) -> NDArray[np.int32]:
    """int32 [tokens]: as given, or the request modulo GPUs."""
    if ranks is None:
        return trace.request % np.int32(gpus)
    found = np.asarray(ranks)
    if found.shape != (trace.n_tokens,) or found.dtype.kind not in "iu":
        raise ValueError(
            f"ranks must be whole numbers, one for each of {trace.n_tokens} tokens, "
            f"found shape {found.shape} of {found.dtype}"
        )
    if found.min() < 0 or found.max() >= gpus:
        wrong = found[(found < 0) | (found >= gpus)][0]
        raise ValueError(f"ranks must be GPUs 0..{gpus - 1}, found {wrong}")
    return found.astype(np.int32)


def _layer_positions(placement: Placement, trace: Trace) -> list[int]:
    """Where the trace has each layer of the placement."""
    if placement.n_experts != trace.n_experts:
        raise ValueError(
            f"the placement has {placement.n_experts} experts a layer, the trace {trace.n_experts}"
        )
    at = {int(layer): index for index, layer in enumerate(trace.layer_ids)}
    if missing := [layer for layer in placement.layer_ids if layer not in at]:
        raise ValueError(f"layer {missing[0]} is not in the trace, whose layers are {sorted(at)}")
    return [at[layer] for layer in placement.layer_ids]


def _check(batch: int, order: str, gpus: int) -> None:
    if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
        raise ValueError(f"batch must be a whole number, at least 1, found {batch!r}")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, found {order!r}")
    if gpus > MOST_GPUS:
        raise ValueError(f"messages are counted for every pair of GPUs, at most {MOST_GPUS}, found {gpus}")


def _balance(loads: NDArray[np.int64]) -> dict[str, float]:
    return {"jain": jain(loads), "max_violation": max_violation(loads), "variation": variation(loads)}
