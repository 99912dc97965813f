"""What a run found and what it proved."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, Literal, Self, get_args

from moeopt import storage
from moeopt.certificate import Certificate
from moeopt.placement import Placement

TOLD = 3  # different messages of layers on the line of all of them
FORMAT = "moeopt-result"
Status = Literal[
    "disagreement",
    "infeasible-claimed",
    "none-found",
    "interrupted",
    "feasible",
    "solver-claimed",
    "certified-gap",
    "certified-optimal",
]
WEAKEST_FIRST: tuple[Status, ...] = get_args(Status)
_EVENTS = [list(types) for types in product((float, int), (int, type(None)), (int, type(None)))]


@dataclass(frozen=True)
class Event:
    """A better placement or bound: seconds since the start, and the values then known."""

    seconds: float
    cost: int | None
    bound: int | None


@dataclass(frozen=True)
class Result:
    """Outcome of a method on a problem; of several layers, the sum of those in `layers`.

    | field | holds |
    |---|---|
    | status | see the words above; "certified-..." only when the independent checker agreed |
    | placement | best admissible placement, or None |
    | cost | its exact cost by `Problem.cost`, or None |
    | bound | verified lower bound on every admissible placement, or None |
    | certificate | of the bound, or None |
    | claimed_bound | a solver's unverified bound, or None |
    | seconds | wall time (of several layers: the sum) |
    | method, seed | provenance |
    | history | every improvement |
    | layer_id | absolute index of a single layer |
    | layers | results of the single layers, empty for a single layer |
    | message | one line for a person |
    | tolerance_reached | smallest load tolerance any candidate met, when none met the one asked for |
    """

    status: Status
    placement: Placement | None
    cost: int | None
    bound: int | None
    certificate: Certificate | None
    seconds: float
    method: str
    seed: int
    claimed_bound: int | None = None
    history: tuple[Event, ...] = ()
    layer_id: int | None = None
    layers: tuple["Result", ...] = ()
    message: str = ""
    tolerance_reached: float | None = None

    @classmethod
    def join(cls, parts: Sequence["Result"]) -> "Result":
        """The result of a problem whose layers were solved one by one; its status is the weakest layer's."""
        placements = [part.placement for part in parts if part.placement is not None]
        complete = len(placements) == len(parts)
        reached = [part.tolerance_reached for part in parts if part.tolerance_reached is not None]
        return cls(
            status=min((part.status for part in parts), key=WEAKEST_FIRST.index),
            placement=Placement.join(placements) if complete else None,
            cost=_sum([part.cost for part in parts]),
            bound=_sum([part.bound for part in parts]),
            certificate=Certificate.join(
                [part.certificate for part in parts if part.certificate is not None]
            ),
            seconds=sum(part.seconds for part in parts),
            method=parts[0].method,
            seed=parts[0].seed,
            claimed_bound=_sum([part.claimed_bound for part in parts]),
            layers=tuple(parts),
            message=_told(parts),
            tolerance_reached=max(reached) if reached else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON form, version 1 (the certificate has a form of its own)."""
        return {
            "format": FORMAT,
            "version": 1,
            "status": self.status,
            "cost": self.cost,
            "bound": self.bound,
            "claimed_bound": self.claimed_bound,
            "seconds": self.seconds,
            "method": self.method,
            "seed": self.seed,
            "layer": self.layer_id,
            "message": self.message,
            "tolerance_reached": self.tolerance_reached,
            "history": [[event.seconds, event.cost, event.bound] for event in self.history],
            "placement": None if self.placement is None else self.placement.to_dict(),
            "layers": [part.to_dict() for part in self.layers],
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`, without the certificate."""
        storage.expect(document, kind=FORMAT)
        status = storage.field(document, "status", kind=str)
        if status not in WEAKEST_FIRST:
            raise ValueError(f"status must be one of {', '.join(WEAKEST_FIRST)}, found {status!r}")
        optional, number = (int, type(None)), (int, float, type(None))
        placement = storage.field(document, "placement", kind=(dict, type(None)))
        return cls(
            status=status,
            placement=None if placement is None else Placement.from_dict(placement),
            cost=storage.field(document, "cost", kind=optional),
            bound=storage.field(document, "bound", kind=optional),
            certificate=None,
            seconds=storage.field(document, "seconds", kind=(int, float)),
            method=storage.field(document, "method", kind=str),
            seed=storage.field(document, "seed", kind=int),
            claimed_bound=storage.field(document, "claimed_bound", kind=optional),
            history=tuple(_event(event) for event in storage.field(document, "history", kind=list)),
            layer_id=storage.field(document, "layer", kind=optional),
            layers=tuple(cls.from_dict(part) for part in storage.field(document, "layers", kind=list)),
            message=storage.field(document, "message", kind=str),
            tolerance_reached=storage.field(document, "tolerance_reached", kind=number),
        )


def certified_share(*, reference: Fraction, cost: int, bound: int | None) -> float | None:
    """Share of the attainable saving that is certain: (reference - cost) / (reference - bound).

    1 when cost = bound; None without a bound, or when the bound leaves nothing to attain. Negative when a placement
    is worse than the reference.
    """
    if bound is None:
        return None
    if cost == bound:
        return 1.0
    if reference <= bound:
        return None
    return float((reference - cost) / (reference - bound))


def _event(entry: object) -> Event:
    if not isinstance(entry, list) or [type(part) for part in entry] not in _EVENTS:
        raise ValueError(f"an event must be [seconds, cost or null, bound or null], found {entry!r:.60}")
    return Event(*entry)


def _told(parts: Sequence["Result"]) -> str:
    """The messages of layers on a line: where they differ, each with its layers, the commonest ones alone."""
    layers: dict[str, list[int | None]] = {}
    for part in parts:
        if part.message:
            layers.setdefault(part.message, []).append(part.layer_id)
    if len(layers) <= 1:
        return next(iter(layers), "")
    common = sorted(layers, key=lambda message: -len(layers[message]))
    told = [
        f"{message} (layer{'s' if len(layers[message]) > 1 else ''} {', '.join(map(str, layers[message]))})"
        for message in common[:TOLD]
    ]
    more = len(common) - TOLD
    return "; ".join(told) + (f"; {more} more messages, in the layers of --json" if more > 0 else "")


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
