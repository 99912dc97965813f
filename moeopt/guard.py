"""The dispatch under a load cap: which tokens leave the cheapest copies so that no GPU serves too much."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.dispatch import Dispatch, Plan
from moeopt.expert_sets import ExpertSets
from moeopt.workload import Workload


def guarded_plan(
    plan: Plan, workload: Workload, *, cluster: Cluster, weights: NDArray[np.int64], cap: int
) -> Plan:
    """`plan` with tokens moved between copies until no GPU serves more than `cap` activations of a layer.

    `weights` int64 [families]: objective weight of one token; loads count tokens, unweighted. Layers within the cap
    stay as they are. The others meet it whenever any dispatch over these copies does, and come down to the least
    possible peak otherwise (`least_peak`). The extra cost is kept low but not proved least.
    """
    layers = (
        guarded(part, sets, hosts=hosts, cluster=cluster, weights=weights, cap=cap)[0]
        for part, sets, hosts in zip(plan.dispatches, workload.layers, plan.placement.hosts, strict=True)
    )
    return Plan(plan.placement, tuple(layers))


def guarded(
    dispatch: Dispatch,
    sets: ExpertSets,
    *,
    hosts: NDArray[np.bool_],
    cluster: Cluster,
    weights: NDArray[np.int64],
    cap: int,
) -> tuple[Dispatch, NDArray[np.float64]]:
    """One layer of `guarded_plan`, and the price of an activation that every GPU [gpus] ended at.

    `hosts` bool [experts, gpus]. A price is about what the objective gains when the GPU may serve one activation more.
    """
    loads = dispatch.gpu_loads(cluster.gpus)
    if loads.max(initial=0) <= cap:
        return dispatch, np.zeros(cluster.gpus)
    from moeopt.relief import relieve

    choice = (hosts.sum(axis=1) > 1)[sets.members[dispatch.sets]].any(axis=1)
    row, family = np.nonzero((dispatch.tokens > 0) & choice[:, None])
    if not len(row):
        return dispatch, np.zeros(cluster.gpus)
    starts, gpus = _host_lists(hosts)
    origin, served, tokens, prices = relieve(
        sets.members[dispatch.sets[row]],
        weights[family].astype(float),
        dispatch.tokens[row, family],
        dispatch.gpus[row],
        loads,
        starts,
        gpus,
        cluster.node_of,
        cluster.gpu_cost,
        cluster.node_cost,
        _reachable(sets.load, hosts, cap=cap),
    )
    return _with_parts(dispatch, row[origin], family[origin], served, tokens), prices


def least_peak(load: NDArray[np.int64], hosts: NDArray[np.bool_]) -> int:
    """The least load of the fullest GPU over all dispatches: `load` int64 [experts], `hosts` bool [experts, gpus].

    Exact: any split of an expert's load over its GPUs is a dispatch, so this is a flow from experts to GPUs.
    """
    return _reachable(load, hosts, cap=-(-int(load.sum()) // hosts.shape[1]))


def shortfall(
    load: NDArray[np.int64], hosts: NDArray[np.bool_], *, cap: int
) -> tuple[int, NDArray[np.bool_]]:
    """(activations that no dispatch brings under the cap, bool [gpus]: GPUs too full together, 0 and none if it holds).

    The second is a minimum cut: only copies of these GPUs' experts on other GPUs can help.
    """
    from moeopt.spread import shortage

    missing, stuck = shortage(load, *_host_lists(hosts), hosts.shape[1], cap)
    return int(missing), stuck


def _reachable(load: NDArray[np.int64], hosts: NDArray[np.bool_], *, cap: int) -> int:
    """The cap itself when some dispatch meets it, otherwise the least peak."""
    from moeopt.spread import reachable_cap

    return int(reachable_cap(load, *_host_lists(hosts), hosts.shape[1], max(0, cap)))


def _host_lists(hosts: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(starts [experts + 1], GPUs): the hosts of each expert, ascending."""
    starts = np.concatenate([[0], hosts.sum(axis=1).cumsum()])
    return starts.astype(np.int64), np.nonzero(hosts)[1].astype(np.int32)


def _with_parts(
    dispatch: Dispatch,
    row: NDArray[np.int64],
    family: NDArray[np.int64],
    served: NDArray[np.int32],
    tokens: NDArray[np.int64],
) -> Dispatch:
    """`dispatch` with `tokens` [parts] of a row and family served by `served` [parts, k]; equal rows merged."""
    kept = dispatch.tokens.copy()
    moved = (served != dispatch.gpus[row]).any(axis=1)
    np.subtract.at(kept, (row[moved], family[moved]), tokens[moved])
    row, family, served = row[moved], family[moved], served[moved]
    extra = np.zeros((len(row), dispatch.tokens.shape[1]), np.int64)
    extra[np.arange(len(row)), family] = tokens[moved]
    sets: NDArray[Any] = np.concatenate([dispatch.sets, dispatch.sets[row]])
    gpus = np.concatenate([dispatch.gpus, served])
    counts = np.concatenate([kept, extra])
    occupied = counts.any(axis=1)
    sets, gpus, counts = sets[occupied], gpus[occupied], counts[occupied]
    order = np.lexsort((*gpus.T[::-1], sets))
    sets, gpus, counts = sets[order], gpus[order], counts[order]
    new = np.append(True, (sets[1:] != sets[:-1]) | (gpus[1:] != gpus[:-1]).any(axis=1))
    first = np.flatnonzero(new)
    return Dispatch(sets[first], gpus[first], np.add.reduceat(counts, first, axis=0))
