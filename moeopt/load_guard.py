"""The published serving rule of copies: reuse GPUs the token touches, unless they are loaded too much."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import Dispatch, Plan
from moeopt.placement import Placement
from moeopt.trace import Trace
from moeopt.workload import ExpertSets, Workload

__all__ = ["ANCHORS", "ORDERS", "PICKS", "LoadGuard"]

ORDERS = ("single-first", "given")
ANCHORS = ("none", "first", "most")
PICKS = ("primary", "lightest")


@dataclass(frozen=True)
class LoadGuard:
    """Load-guarded choice among copies, token by token: the serving rule of arXiv 2606.01007, GESR.

    Every GPU g carries a load L_g, at first 0. For each expert of a token, feasible are the GPUs that hold it and have
    L_g <= (1 + theta) x mean of L over all GPUs; where none is, all that hold it. Of these the expert takes the first
    in this order: GPUs that serve an expert of this token already, the token's anchor, its primary copy, the least
    loaded, the lowest id. After each batch L_g becomes rho L_g + the activations that the batch brought to g; within
    it loads stand still. Router choices are never changed. Loads are 64-bit floats, the mean is their sum in the order
    of the ids, divided by the GPUs.

    | field | holds |
    |---|---|
    | theta | load above the mean that is tolerated, published 0.15; infinity: no guard |
    | rho | what remains of a load, 0 to 1, published 0.995 |
    | batch | tokens of a batch; "after dispatch" in the source, taken as every token |
    | order | of a token's experts: "single-first", those without choice before the others, or "given", by column |
    | anchor | "none"; "first": primary GPU of column 0; "most": the GPU with most of the token's experts, lowest id |
    | pick | "primary" as above, or "lightest": without preference for the primary copy |

    The source names the GPUs touched, an anchor, the token's family, primary and secondary copies, but neither their
    order nor how the anchor is found: `order`, `anchor` and `pick` are readings of it, and the family plays no part.
    """

    theta: float = 0.15
    rho: float = 0.995
    batch: int = 1
    order: str = "single-first"
    anchor: str = "most"
    pick: str = "primary"

    def __post_init__(self) -> None:
        if not self.theta >= 0:
            raise ValueError(f"theta must not be negative, found {self.theta}")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho must lie between 0 and 1, found {self.rho}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, found {self.batch}")
        for name, allowed in (("order", ORDERS), ("anchor", ANCHORS), ("pick", PICKS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, found {getattr(self, name)!r:.60}"
                )

    def gpus(
        self,
        experts: NDArray[Any],
        *,
        hosts: NDArray[np.bool_],
        primary: NDArray[Any],
        state: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int32]:
        """int32 [tokens, k]: the GPU that serves each expert of each token, tokens in the order given.

        `experts` int [tokens, k] of one layer, `hosts` bool [experts, gpus], `primary` int [experts]. `state` float
        [2 gpus + 1], at first zeros, carries the loads from one call to the next. Raises ValueError for ids out of
        range, an expert on no GPU, a primary GPU without the expert.
        """
        from moeopt.load_guard_kernel import guarded_gpus

        _check(experts, hosts, primary)
        served: NDArray[np.int32] = guarded_gpus(
            np.ascontiguousarray(experts, np.int64),
            np.concatenate([[0], hosts.sum(axis=1).cumsum()]).astype(np.int64),
            np.nonzero(hosts)[1].astype(np.int32),
            np.ascontiguousarray(primary, np.int32),
            hosts.shape[1],
            float(self.theta),
            float(self.rho),
            self.batch,
            self.order == "single-first",
            ANCHORS.index(self.anchor),
            self.pick == "primary",
            np.zeros(2 * hosts.shape[1] + 1) if state is None else state,
        )
        return served

    def plan(self, placement: Placement, trace: Trace) -> Plan:
        """The dispatch of a trace over a placement of its layers, for `Problem.cost` and `moeopt.traffic`.

        Tokens come in the order of the trace; layers keep loads of their own, on which the source is silent. The plan
        is of `Workload.from_layers(trace, placement.layer_ids)`. Raises ValueError where a layer is missing or experts
        differ.
        """
        seen = trace.layers(placement.layer_ids)
        if seen.n_experts != placement.n_experts:
            raise ValueError(
                f"the placement has {placement.n_experts} experts a layer, the trace {seen.n_experts}"
            )
        return Plan(
            placement,
            tuple(
                _gathered(
                    sets,
                    seen.experts[:, layer],
                    self.gpus(
                        seen.experts[:, layer],
                        hosts=placement.hosts[layer],
                        primary=placement.primary[layer],
                    ),
                    seen.family,
                )
                for layer, sets in enumerate(Workload.from_trace(seen).layers)
            ),
        )


def _gathered(
    sets: ExpertSets,
    experts: NDArray[Any],
    gpus: NDArray[np.int32],
    family: NDArray[np.uint8],
) -> Dispatch:
    """Tokens with the same expert set on the same GPUs as one row; `family` [tokens]."""
    order = np.argsort(experts, axis=1)
    members = np.take_along_axis(experts, order, axis=1)
    index = np.unique(members, axis=0, return_inverse=True)[1].reshape(-1)  # rows of sets are in this order
    rows = np.column_stack([index, np.take_along_axis(gpus, order, axis=1)])
    distinct, row = np.unique(rows, axis=0, return_inverse=True)
    counts = np.zeros((len(distinct), sets.counts.shape[1]), np.int64)
    np.add.at(counts, (row.reshape(-1), family), 1)
    return Dispatch(distinct[:, 0].astype(np.int32), distinct[:, 1:].astype(np.int32), counts)


def _check(experts: NDArray[Any], hosts: NDArray[np.bool_], primary: NDArray[Any]) -> None:
    if experts.ndim != 2 or experts.dtype.kind not in "iu":
        raise ValueError(f"experts must be integers [tokens, k], found {experts.dtype} {experts.shape}")
    if hosts.ndim != 2 or hosts.dtype != bool or primary.shape != hosts.shape[:1]:
        raise ValueError(
            f"hosts bool [experts, gpus] and primary [experts] do not fit: "
            f"{hosts.dtype} {hosts.shape}, {primary.shape}"
        )
    if experts.size and not 0 <= int(experts.min()) <= int(experts.max()) < len(hosts):
        raise ValueError(f"experts must be ids below {len(hosts)}, found {experts.min()} to {experts.max()}")
    for expert in np.flatnonzero(~hosts.any(axis=1))[:1]:
        raise ValueError(f"expert {expert} is on no GPU")
    inside = (primary >= 0) & (primary < hosts.shape[1])
    held = inside & hosts[np.arange(len(hosts)), np.where(inside, primary, 0)]
    for expert in np.flatnonzero(~held)[:1]:
        raise ValueError(f"expert {expert} has primary GPU {primary[expert]}, which does not hold it")
