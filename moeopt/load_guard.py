"""The published serving rule of copies: reuse GPUs the token touches, unless they are loaded too much."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import Dispatch, Plan
from moeopt.expert_sets import ExpertSets
from moeopt.placement import Placement
from moeopt.trace import Trace
from moeopt.workload import Workload

__all__ = ["ANCHORS", "COUNTED", "DECAYS", "ORDERS", "PREFERENCES", "SCOPES", "UPDATES", "LoadGuard"]

ORDERS = ("single-first", "given")
ANCHORS = ("none", "first", "most", "source")
PREFERENCES = ("touched", "anchor", "family", "primary")
UPDATES = ("batch", "expert")
DECAYS = ("update", "token")
COUNTED = ("activations", "tokens")
SCOPES = ("layer", "model")


@dataclass(frozen=True)
class LoadGuard:
    """Load-guarded choice among copies, token by token: the serving rule of arXiv 2606.01007, GESR.

    Every GPU g carries a load L_g, at first 0. For each expert of a token, feasible are the GPUs that hold it and have
    L_g <= (1 + theta) x mean of L over all GPUs; where none is, all that hold it. Of these the expert takes the first
    in this order: GPUs that serve an expert of this token in this layer already, the token's anchor, its primary copy,
    the least loaded, the lowest id. After each batch L_g becomes rho L_g + the activations that the batch brought to g;
    within it loads stand still. Router choices are never changed. Loads are 64-bit floats, the mean is their sum in the
    order of the ids, divided by the GPUs.

    | field | holds |
    |---|---|
    | theta | load above the mean that is tolerated, published 0.15; infinity: no guard |
    | rho | what remains of a load, 0 to 1, published 0.995 |
    | batch | tokens of a batch; "after dispatch" in the source, taken as every token |
    | order | of a token's experts: "single-first", those without choice before the others, or "given", by column |
    | anchor | "none"; "first": primary GPU of column 0; "most": that with most of its experts; "source": home GPU |
    | prefer | preferences for GPUs, most important first, before load and id: see below |
    | update | of the loads: after each "batch", or after each "expert" of a token, with batch 1 |
    | decay | rho once for each "update", or once for each "token" that the update is of |
    | counted | as brought to a GPU: its "activations", or "tokens", each once whatever number of its experts |
    | scope | of the loads: every "layer" its own, or one for the "model": a batch passes through all layers in turn |

    Preferences: "touched", "anchor", "primary" as above; "family", the GPUs reserved for the token's family: family f
    of F has the GPUs g of G with floor(g F / G) = f, as in `moeopt.heuristics.tacg`. Those left out do not count.

    The source names the GPUs touched, an anchor, the token's family, primary and secondary copies, but neither their
    order nor how the anchor is found, nor what a dispatch is: all but theta and rho are readings of it. Decay by token
    under loads of the model comes with the last layer.
    """

    theta: float = 0.15
    rho: float = 0.995
    batch: int = 1
    order: str = "single-first"
    anchor: str = "most"
    prefer: tuple[str, ...] = ("touched", "anchor", "primary")
    update: str = "batch"
    decay: str = "update"
    counted: str = "activations"
    scope: str = "layer"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefer", tuple(self.prefer))
        if not self.theta >= 0:
            raise ValueError(f"theta must not be negative, found {self.theta}")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho must lie between 0 and 1, found {self.rho}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, found {self.batch}")
        for name, allowed in (
            ("order", ORDERS),
            ("anchor", ANCHORS),
            ("update", UPDATES),
            ("decay", DECAYS),
            ("counted", COUNTED),
            ("scope", SCOPES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, found {getattr(self, name)!r:.60}"
                )
        if not set(self.prefer) <= set(PREFERENCES) or len(set(self.prefer)) < len(self.prefer):
            raise ValueError(
                f"prefer must name each at most once of {', '.join(PREFERENCES)}, found {self.prefer!r:.80}"
            )
        if self.update == "expert" and self.batch > 1:
            raise ValueError(f"update 'expert' needs batch 1, found {self.batch}")

    def gpus(
        self,
        experts: NDArray[Any],
        *,
        hosts: NDArray[np.bool_],
        primary: NDArray[Any],
        family: NDArray[Any] | None = None,
        families: int = 1,
        source: NDArray[Any] | None = None,
        state: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int32]:
        """int32 [tokens, k]: the GPU that serves each expert of each token of a layer, tokens in the order given.

        `experts` int [tokens, k], `hosts` bool [experts, gpus], `primary` int [experts]. `family` int [tokens], of
        `families` ids, is needed for the preference "family", `source` int [tokens], home GPUs, for the anchor of that
        name. `state` float [2 gpus + 1], at first zeros, carries the loads from one call to the next. Raises ValueError
        for ids out of range, an expert on no GPU, a primary GPU without the expert, a column that is needed and
        missing, and loads of the model, which are those of `plan` alone.
        """
        if self.scope == "model":
            raise ValueError("loads of the model are kept by plan: gpus sees one layer")
        _check(experts, hosts, primary)
        served = self._served(
            experts[:, None],
            hosts=hosts[None],
            primary=primary[None],
            family=family,
            families=families,
            source=source,
            state=np.zeros((1, 2 * hosts.shape[1] + 1)) if state is None else state[None],
        )
        return served[:, 0]

    def plan(self, placement: Placement, trace: Trace, *, source: NDArray[Any] | None = None) -> Plan:
        """The dispatch of a trace over a placement of its layers, for `Problem.cost` and `moeopt.traffic`.

        Tokens come in the order of the trace, families are all that it names; `source` as in `gpus`. The plan is of
        `Workload.from_layers(trace, placement.layer_ids)`. Raises ValueError where a layer is missing, experts differ
        or home GPUs are needed and missing.
        """
        seen = trace.layers(placement.layer_ids)
        if seen.n_experts != placement.n_experts:
            raise ValueError(
                f"the placement has {placement.n_experts} experts a layer, the trace {seen.n_experts}"
            )
        rows = 1 if self.scope == "model" else seen.n_layers
        served = self._served(
            seen.experts,
            hosts=placement.hosts,
            primary=placement.primary,
            family=seen.family,
            families=len(seen.families),
            source=source,
            state=np.zeros((rows, 2 * placement.gpus + 1)),
        )
        return Plan(
            placement,
            tuple(
                _gathered(sets, seen.experts[:, layer], served[:, layer], seen.family)
                for layer, sets in enumerate(Workload.from_trace(seen).layers)
            ),
        )

    def _served(
        self,
        experts: NDArray[Any],
        *,
        hosts: NDArray[np.bool_],
        primary: NDArray[Any],
        family: NDArray[Any] | None,
        families: int,
        source: NDArray[Any] | None,
        state: NDArray[np.float64],
    ) -> NDArray[np.int32]:
        """int32 [tokens, layers, k]: `experts` alike, `hosts` [layers, experts, gpus], `primary` [layers, experts]."""
        from moeopt.load_guard_kernel import guarded_gpus

        layers, n_experts, n_gpus = hosts.shape
        tokens = len(experts)
        by_family, by_source = "family" in self.prefer, self.anchor == "source"
        first = np.concatenate([[0], hosts.sum(axis=2).ravel().cumsum()]).astype(np.int64)
        places = [self.prefer.index(name) if name in self.prefer else -1 for name in PREFERENCES]
        served: NDArray[np.int32] = guarded_gpus(
            np.ascontiguousarray(experts, np.int64),
            first[np.arange(layers)[:, None] * n_experts + np.arange(n_experts + 1)],
            np.nonzero(hosts)[2].astype(np.int32),
            np.ascontiguousarray(primary, np.int32),
            _column("family", family, tokens, below=families, needed=by_family),
            np.arange(n_gpus) * families // n_gpus,
            _column("source", source, tokens, below=n_gpus, needed=by_source),
            float(self.theta),
            float(self.rho),
            float(self.rho) ** self.batch,
            self.batch,
            self.update == "expert",
            self.decay == "token",
            self.counted == "tokens",
            self.order == "single-first",
            ANCHORS.index(self.anchor),
            np.array([0 if place < 0 else 1 << (len(PREFERENCES) - place) for place in places]),
            state,
        )
        return served


def _column(
    name: str, values: NDArray[Any] | None, tokens: int, *, below: int, needed: bool
) -> NDArray[np.int64]:
    """int64 [tokens]: the ids, checked; zeros where they are not needed."""
    if not needed:
        return np.zeros(tokens, np.int64)
    if values is None:
        raise ValueError(f"this guard needs the {name} of each token")
    if values.shape != (tokens,) or values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers [{tokens}], found {values.dtype} {values.shape}")
    if tokens and not 0 <= int(values.min()) <= int(values.max()) < below:
        raise ValueError(f"{name} must be ids below {below}, found {values.min()} to {values.max()}")
    return np.ascontiguousarray(values, np.int64)


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
