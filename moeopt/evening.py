"""GPUs renamed layer by layer so that their loads, summed over layers, come out even; no layer's cost changes."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moeopt.comparison import served_traffic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.trace import Trace
from moeopt.workload import Workload

ROUNDS = 50  # through all layers, at most

__all__ = ["even_out", "evened", "paired"]


def evened(result: Result, problem: Problem) -> Result:
    """A result of several layers with the GPUs of its placement renamed by `even_out`; its costs hold for both.

    As it is, where names matter (an incumbent, GPUs of different speeds), where loads are not recorded with their
    sets, and where a certificate carries the placement.
    """
    named = problem.incumbent is not None or not isinstance(problem.cluster.speeds, int)
    if named or len(result.layers) < 2 or result.placement is None or result.certificate is not None:
        return result
    if not problem.workload.complete:
        return result
    placement = even_out(result.placement, problem.workload)
    layers = tuple(
        replace(layer, placement=placement.layer(index)) for index, layer in enumerate(result.layers)
    )
    return replace(result, placement=placement, layers=layers)


def even_out(placement: Placement, trace: Trace | Workload) -> Placement:
    """The placement with the GPUs of every layer renamed, nodes as a whole and GPUs within their node.

    A GPU may only take the name of one with as many slots. Loads are those of the trace at the cheapest dispatch.
    Rounds through the layers: each gives its heaviest GPU the name that the other layers load least, and so on, until
    the sum of squares of the summed loads falls no more. Raises ValueError as `moeopt.evaluate` does.
    """
    loads = served_traffic(placement, trace).loads
    names = paired(loads, nodes=placement.nodes, slots=np.broadcast_to(placement.slots, loads.shape[1:]))
    hosts = np.empty_like(placement.hosts)
    for layer, name in enumerate(names):
        hosts[layer][:, name] = placement.hosts[layer]
    primary = np.take_along_axis(names, placement.primary, axis=1).astype(placement.primary.dtype)
    return replace(placement, hosts=hosts, primary=primary)


def paired(loads: NDArray[np.int64], *, nodes: int, slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [layers, gpus]: the new name of each GPU; `loads` [layers, gpus], `slots` [gpus]."""
    layers, gpus = loads.shape
    names = np.tile(np.arange(gpus), (layers, 1))
    summed = loads.sum(axis=0)
    for _ in range(ROUNDS):
        before = names.copy()
        for layer in np.argsort(-loads.std(axis=1), kind="stable"):
            others = summed.copy()
            np.subtract.at(others, names[layer], loads[layer])
            fresh = _names(loads[layer], others, nodes=nodes, slots=slots)
            renamed, kept = others.copy(), others.copy()
            np.add.at(renamed, fresh, loads[layer])
            np.add.at(kept, names[layer], loads[layer])
            if renamed @ renamed < kept @ kept:
                names[layer], summed = fresh, renamed
            else:
                summed = kept
        if (names == before).all():
            break
    return names


def _names(
    load: NDArray[np.int64], others: NDArray[np.int64], *, nodes: int, slots: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Names for one layer: heavy nodes where the others are light, then heavy GPUs so within them."""
    gpus = len(load)
    own = np.arange(gpus).reshape(nodes, -1)
    to_node = _matched(
        load[own].sum(axis=1), others[own].sum(axis=1), kinds=[tuple(slots[row]) for row in own]
    )
    names = np.empty(gpus, np.int64)
    for node, target in enumerate(to_node):
        inside = _matched(load[own[node]], others[own[target]], kinds=slots[own[node]].tolist())
        names[own[node]] = own[target][inside]
    return names


def _matched(
    load: NDArray[np.int64], others: NDArray[np.int64], *, kinds: list[int] | list[tuple[int, ...]]
) -> NDArray[np.int64]:
    """For each item the place it takes, of the same kind: heaviest to lightest, the least sum of products."""
    places = np.empty(len(load), np.int64)
    for kind in dict.fromkeys(kinds):
        alike = np.array([at for at, one in enumerate(kinds) if one == kind])
        heavy = alike[np.argsort(-load[alike], kind="stable")]
        places[heavy] = alike[np.argsort(others[alike], kind="stable")]
    return places
