"""Requests and experts parted together into groups, so that requests find their experts at home."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt import links
from moeopt.trace import Trace


@dataclass(frozen=True, eq=False)
class Grouping:
    """Where every request is served and every expert lives.

    | field | holds |
    |---|---|
    | request_group | int32 [requests]: one group for all layers |
    | expert_group | int32 [layers, experts] |

    Equal and hashable by value. Capacities are the business of `GroupingProblem.violation`.
    """

    request_group: NDArray[np.integer[Any]]
    expert_group: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        for name, axes in (("request_group", 1), ("expert_group", 2)):
            found = np.asarray(getattr(self, name))
            if found.ndim != axes or found.dtype.kind not in "iu":
                raise ValueError(
                    f"{name} must be whole numbers with {axes} axes, found {found.dtype}{list(found.shape)}"
                )
            value = found.astype(np.int32)
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    def _key(self) -> tuple[object, ...]:
        return (self.expert_group.shape, self.request_group.tobytes(), self.expert_group.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grouping) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True, eq=False)
class GroupingProblem:
    """Part requests and experts into groups (nodes) so that few activations leave the group of their request.

    | field | holds |
    |---|---|
    | activations | int64 [requests, layers, experts]: how often a request activates an expert |
    | groups | D, expert groups with their share of the requests |
    | slots | experts of every layer that each group holds, exactly, one number a group; None: equal shares |
    | quotas | requests that each group serves, exactly, one number a group; None: equal shares |
    | sizes | int64 [requests]: requests that a row stands for, when rows are clusters; None: 1 each |
    | slack | requests by which a group may miss its quota or equal share, either way |

    An equal share is the mean, rounded down or up. A request is in one group for all layers, experts are placed layer
    by layer. cost = sum of activations[i, l, e] over [group of i != group of e at l], the remote activations: each
    (token, expert) pair counts. Counting a token once for each remote group that serves it is not linear in these
    counts and not stated here.

    Source: A. R. Bambhaniya et al., Scaling multi-node mixture-of-experts inference using expert activation patterns,
    arXiv 2604.23150, section 4, which parts first the requests by k-means and then the experts greedily.
    Raises ValueError for what arithmetic alone rules out.
    """

    activations: NDArray[np.int64]
    groups: int
    slots: Sequence[int] | None = None
    quotas: Sequence[int] | None = None
    sizes: NDArray[np.int64] | None = None
    slack: int = 0

    def __post_init__(self) -> None:
        activations = links.whole_counts("activations", self.activations, shape=(None, None, None))
        if 0 in activations.shape:
            raise ValueError(
                f"activations must be [requests, layers, experts], none of them 0, found {list(activations.shape)}"
            )
        for name, least in (("groups", 1), ("slack", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be a whole number, at least {least}, found {value!r}")
        if activations.sum(dtype=float) >= links.MOST_COST:
            raise ValueError(
                f"objective too large for exact 64-bit arithmetic: {activations.sum(dtype=float):.0f}"
            )
        requests = len(activations)
        sizes = np.ones(requests, np.int64) if self.sizes is None else self.sizes
        object.__setattr__(self, "activations", activations)
        object.__setattr__(self, "sizes", links.whole_counts("sizes", sizes, shape=(requests,)))
        for name, total in (("slots", self.n_experts), ("quotas", self.total_size)):
            if (given := getattr(self, name)) is None:
                continue
            value = links.whole_counts(name, given, shape=(self.groups,))
            room = self.slack * self.groups if name == "quotas" else 0
            if abs(int(value.sum()) - total) > room:
                within = f" within {room}, the slack of {self.groups} groups" if room else ""
                raise ValueError(
                    f"{name} must sum to {total}{within}, found {int(value.sum())}: {value.tolist()}"
                )
            object.__setattr__(self, name, tuple(value.tolist()))
        if (largest := int(self.size_of.max())) > (most := int(self.request_bounds[1].max())):
            raise ValueError(
                f"row {int(self.size_of.argmax())} stands for {largest} requests, a group serves at most {most}: "
                f"part it, or allow {largest - most} more slack"
            )

    @classmethod
    def from_trace(
        cls,
        trace: Trace,
        *,
        groups: int,
        slots: Sequence[int] | None = None,
        quotas: Sequence[int] | None = None,
        phase: int | None = None,
        slack: int = 0,
    ) -> Self:
        """Count activations by request, requests in ascending order of their ids.

        `phase` keeps the tokens of one phase (`moeopt.trace.PREFILL`, `DECODE`). The counts are then of the requests
        that have such tokens. Raises ValueError when no token has it.
        """
        kept = np.ones(trace.n_tokens, bool) if phase is None else trace.phase == phase
        if not kept.any():
            raise ValueError(f"the trace has no token of phase {phase}")
        requests, row = np.unique(trace.request[kept], return_inverse=True)
        layers, experts = trace.n_layers, trace.n_experts
        activations = np.empty((len(requests), layers, experts), np.int64)
        for layer in range(layers):
            cell = row[:, None] * experts + trace.experts[kept, layer].astype(np.int64)
            counts = np.bincount(cell.ravel(), minlength=len(requests) * experts)
            activations[:, layer] = counts.reshape(len(requests), experts)
        return cls(activations, groups, slots, quotas, slack=slack)

    def clustered(self, cluster_of: ArrayLike, *, slack: int | None = None) -> Self:
        """The problem whose rows are clusters of requests: `cluster_of` int [requests], counts and sizes summed.

        Clusters are numbered 0, 1, ... and none is empty. `slack` replaces the slack, since whole clusters seldom fit
        equal shares.
        """
        row = np.asarray(cluster_of)
        if row.shape != (self.n_requests,) or row.dtype.kind not in "iu":
            raise ValueError(
                f"cluster_of must be whole numbers [{self.n_requests}], found {row.dtype}{list(row.shape)}"
            )
        names, row = np.unique(row, return_inverse=True)
        if names.tolist() != list(range(len(names))):
            raise ValueError(f"clusters must be numbered 0, 1, ... without gaps, found {names.tolist()}")
        activations = np.zeros((len(names), *self.activations.shape[1:]), np.int64)
        sizes = np.zeros(len(names), np.int64)
        np.add.at(activations, row, self.activations)
        np.add.at(sizes, row, self.size_of)
        slack = self.slack if slack is None else slack
        return replace(self, activations=activations, sizes=sizes, slack=slack)

    @property
    def n_requests(self) -> int:
        return int(self.activations.shape[0])

    @property
    def n_layers(self) -> int:
        return int(self.activations.shape[1])

    @property
    def n_experts(self) -> int:
        return int(self.activations.shape[2])

    @property
    def size_of(self) -> NDArray[np.int64]:
        """int64 [requests]: requests that each row stands for."""
        return np.asarray(self.sizes)

    @property
    def total_size(self) -> int:
        return int(self.size_of.sum())

    @cached_property
    def request_bounds(self) -> NDArray[np.int64]:
        """int64 [2, groups]: the fewest and the most requests of each group."""
        return _bounds(self.total_size, self.quotas, groups=self.groups, slack=self.slack)

    @cached_property
    def expert_bounds(self) -> NDArray[np.int64]:
        """int64 [2, groups]: the fewest and the most experts of a layer in each group."""
        return _bounds(self.n_experts, self.slots, groups=self.groups, slack=0)

    @cached_property
    def digest(self) -> str:
        facts = (self.groups, self.slots, self.quotas, self.slack)
        return links.fingerprint("moeopt-grouping", facts, self.activations, self.size_of)

    def cost(self, answer: Grouping, /) -> int:
        self._check_shape(answer)
        apart = answer.request_group[:, None, None] != answer.expert_group
        return int(self.activations[apart].sum())

    def violation(self, answer: Grouping, /) -> str:
        self._check_shape(answer)
        served = np.zeros(self.groups, np.int64)
        np.add.at(served, answer.request_group, self.size_of)
        least, most = self.request_bounds
        for group in np.flatnonzero((served < least) | (served > most))[:1]:
            return (
                f"group {group} serves {served[group]} requests, allowed are {least[group]} to {most[group]}"
            )
        least, most = self.expert_bounds
        for layer, groups in enumerate(answer.expert_group):
            held = np.bincount(groups, minlength=self.groups)
            for group in np.flatnonzero((held < least) | (held > most))[:1]:
                allowed = f"{least[group]} to {most[group]}"
                return f"layer {layer}: group {group} holds {held[group]} experts, allowed are {allowed}"
        return ""

    def complete(self, request_group: ArrayLike) -> Grouping:
        """The cheapest grouping with these groups of requests, int [requests]: one transportation problem a layer."""
        from scipy.optimize import linear_sum_assignment

        requests = np.asarray(request_group)
        least, most = self.expert_bounds
        seat_group = np.repeat(np.arange(self.groups), most)
        optional = np.concatenate(
            [np.arange(count) >= fewest for fewest, count in zip(least, most, strict=True)]
        )
        # Seats beyond the fewest may stay empty: dummy experts take them, and no other seats.
        nobody = np.where(optional, 0.0, np.inf) + np.zeros((len(seat_group) - self.n_experts, 1))
        rows = []
        for gain in self._local(requests):
            cost = np.concatenate([-gain[:, seat_group].astype(float), nobody])
            seat = linear_sum_assignment(cost)[1][: self.n_experts]
            rows.append(seat_group[seat])
        return Grouping(requests, np.array(rows))

    def candidates(self) -> Iterator[Grouping]:
        """For every admissible grouping of requests a cheapest one, found by trying every grouping of experts."""
        least, most = self.expert_bounds
        choices = links.every_choice([range(self.groups)] * self.n_experts)
        held = ((choice, np.bincount(choice, minlength=self.groups)) for choice in choices)
        kept = [choice for choice, count in held if (least <= count).all() and (count <= most).all()]
        seatings, experts = np.array(kept), np.arange(self.n_experts)
        least, most = self.request_bounds
        for choice in links.every_choice([range(self.groups)] * self.n_requests):
            served = np.bincount(choice, weights=self.size_of, minlength=self.groups)
            if (least <= served).all() and (served <= most).all():
                local = self._local(np.array(choice))
                best = [seatings[gain[experts, seatings].sum(axis=1).argmax()] for gain in local]
                yield Grouping(np.array(choice), np.array(best))

    def _local(self, request_group: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """int64 [layers, experts, groups]: activations that stay local when the expert is in the group."""
        inside = (request_group[:, None] == np.arange(self.groups)).astype(np.int64)
        local: NDArray[np.int64] = np.einsum("ile,id->led", self.activations, inside)
        return local

    def _check_shape(self, answer: Grouping) -> None:
        for name, shape in (
            ("request_group", (self.n_requests,)),
            ("expert_group", self.activations.shape[1:]),
        ):
            found = getattr(answer, name)
            if found.shape != shape:
                raise ValueError(f"{name} must have shape {list(shape)}, found {list(found.shape)}")
            if found.min() < 0 or found.max() >= self.groups:
                raise ValueError(
                    f"{name} must name groups 0..{self.groups - 1}, found {found.min()}..{found.max()}"
                )


def _bounds(total: int, given: Sequence[int] | None, *, groups: int, slack: int) -> NDArray[np.int64]:
    """int64 [2, groups]: what is given, or the mean rounded down and up; `slack` more either way, within 0..total."""
    if given is None:
        bounds = np.array([[total // groups] * groups, [-(-total // groups)] * groups])
    else:
        bounds = np.array([given, given])
    clipped: NDArray[np.int64] = np.clip(bounds + np.array([[-slack], [slack]]), 0, total)
    clipped.setflags(write=False)
    return clipped
