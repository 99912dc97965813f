"""What a checker needs to re-prove a bound: the problem, the claim, and the numbers of the proof."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from moeopt import storage
from moeopt.dispatch import Dispatch
from moeopt.placement import Placement
from moeopt.problem import Problem

FORMAT = "moeopt-certificate"


@dataclass(frozen=True)
class Proof:
    """The claim for one layer, and why it holds.

    | field | holds |
    |---|---|
    | layer_id | absolute layer index |
    | digest | of the layer's workload |
    | kind | which check re-proves it: "blocks", "priced", "families", "contents", "pairs", "assignment", "counting",
      "grouping", "rows", "semidefinite" or "usage" |
    | bound | no admissible placement costs less |
    | cost | exact cost of the placement that the certificate carries for this layer; None when it carries none |
    | optimal | the claim bound = cost |
    | numbers | of the proof, integers, by name; their meaning belongs to the kind |
    | dispatch | which copies serve which tokens, where that is part of the cost; None: the problem's own dispatch |
    """

    layer_id: int
    digest: str
    kind: str
    bound: int
    cost: int | None = None
    optimal: bool = False
    numbers: Mapping[str, Any] = field(default_factory=dict)
    dispatch: Dispatch | None = None


@dataclass(frozen=True)
class Certificate:
    """Proofs of one or more layers of one problem.

    | field | holds |
    |---|---|
    | fields | the problem without its traffic, as `Problem.fields` gives it |
    | proofs | one per layer, ascending layer ids |
    | placement | of exactly these layers, or None |
    """

    fields: Mapping[str, Any]
    proofs: tuple[Proof, ...]
    placement: Placement | None = None

    @classmethod
    def of_layer(cls, problem: Problem, proof: Proof, *, placement: Placement | None) -> Self:
        """The certificate of a problem of one layer."""
        return cls(problem.fields(), (proof,), placement)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self | None:
        """One certificate of several layers; None when there is none.

        Placements are kept when every part has one; without them only the bounds are claimed.
        """
        if not parts:
            return None
        placements = [part.placement for part in parts if part.placement is not None]
        proofs = tuple(proof for part in parts for proof in part.proofs)
        if len(placements) == len(parts):
            return cls(parts[0].fields, proofs, Placement.join(placements))
        return cls(
            parts[0].fields,
            tuple(replace(proof, cost=None, optimal=False, dispatch=None) for proof in proofs),
        )

    @property
    def layer_ids(self) -> tuple[int, ...]:
        return tuple(proof.layer_id for proof in self.proofs)

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON form, version 1. The seal guards against accidents; the proof is in the numbers."""
        document = {
            "format": FORMAT,
            "version": 1,
            "problem": dict(self.fields),
            "placement": None if self.placement is None else self.placement.to_dict(),
            "layers": [
                {
                    "layer": proof.layer_id,
                    "digest": proof.digest,
                    "kind": proof.kind,
                    "bound": proof.bound,
                    "cost": proof.cost,
                    "optimal": proof.optimal,
                    "numbers": dict(proof.numbers),
                    **({} if proof.dispatch is None else {"dispatch": proof.dispatch.to_dict()}),
                }
                for proof in self.proofs
            ],
        }
        return {**document, "seal": seal(document)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; ValueError when the form is wrong. Whether the seal fits is the checker's business."""
        storage.expect(document, kind=FORMAT)
        placement = storage.field(document, "placement", kind=(dict, type(None)))
        layers = storage.field(document, "layers", kind=list)
        proofs = []
        for layer in layers:
            if not isinstance(layer, dict):
                raise ValueError(f"a layer must be an object, found {layer!r:.60}")
            proofs.append(
                Proof(
                    storage.field(layer, "layer", kind=int),
                    storage.field(layer, "digest", kind=str),
                    storage.field(layer, "kind", kind=str),
                    storage.field(layer, "bound", kind=int),
                    storage.field(layer, "cost", kind=(int, type(None))),
                    storage.field(layer, "optimal", kind=bool),
                    storage.field(layer, "numbers", kind=dict),
                    Dispatch.from_dict(storage.field(layer, "dispatch", kind=dict))
                    if "dispatch" in layer
                    else None,
                )
            )
        if not proofs:
            raise ValueError("the certificate proves nothing: it has no layers")
        return cls(
            storage.field(document, "problem", kind=dict),
            tuple(proofs),
            None if placement is None else Placement.from_dict(placement),
        )


def seal(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a certificate document without its seal."""
    content = {name: value for name, value in document.items() if name != "seal"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=storage.plain)
    return hashlib.sha256(text.encode()).hexdigest()
