"""A run goes on from the certificate of an earlier one: its placements, its prices, and never a weaker bound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moeopt import storage
from moeopt.certificate import FORMAT, Certificate, Proof
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Event, Result, Status
from moeopt.storage import PathLike

if TYPE_CHECKING:
    from moeopt.pricing import Earlier


@dataclass(frozen=True)
class Known:
    """What an earlier run left of a layer: its proof, and its placement where it had one."""

    proof: Proof
    placement: Placement | None


def known_layers(earlier: Certificate | PathLike, problem: Problem) -> list[Known | None]:
    """For each layer of the problem what a certificate, or its file, knows of it; None where it knows nothing.

    ValueError when the certificate is about other rules or other traffic.
    """
    where = "the certificate" if isinstance(earlier, Certificate) else str(earlier)
    if not isinstance(earlier, Certificate):
        document = storage.read_json(earlier, kind=FORMAT)
        try:
            earlier = Certificate.from_dict(document)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    mine = problem.fields()
    for name in sorted(set(mine) | set(earlier.fields)):
        if mine.get(name) != earlier.fields.get(name):
            raise ValueError(
                f"{where} is about another problem: {name} {earlier.fields.get(name)}, here {mine.get(name)}"
            )
    at = {layer_id: index for index, layer_id in enumerate(earlier.layer_ids)}
    if not set(at) & set(problem.workload.layer_ids):
        raise ValueError(
            f"{where} is about layers {list(at)}, the problem has {list(problem.workload.layer_ids)}"
        )
    found = list[Known | None]()
    for index, layer_id in enumerate(problem.workload.layer_ids):
        if layer_id not in at:
            found.append(None)
            continue
        proof = earlier.proofs[at[layer_id]]
        if proof.digest != problem.layer(index).workload.digest:
            raise ValueError(f"{where} is about other traffic: layer {layer_id} has another digest")
        placement = None if earlier.placement is None else earlier.placement.layer(at[layer_id])
        found.append(Known(proof, placement))
    return found


def settled(problem: Problem, known: Known) -> Result | None:
    """The layer's result where the earlier run proved its optimum, checked again; None elsewhere."""
    from moeopt.checker import check_layer

    proof, placement = known.proof, known.placement
    if not proof.optimal or placement is None or check_layer(problem, proof, placement=placement):
        return None
    return Result(
        status="certified-optimal",
        placement=placement,
        cost=proof.cost,
        bound=proof.bound,
        certificate=Certificate.of_layer(problem, proof, placement=placement),
        seconds=0.0,
        method="",
        seed=0,
        history=(Event(0.0, proof.cost, proof.bound),),
        layer_id=proof.layer_id,
        message="proved by an earlier run, checked again",
    )


def no_weaker(problem: Problem, result: Result, *, known: Known) -> Result:
    """The result, with the earlier proof where that bounds higher and the checker agrees again."""
    from moeopt.checker import check_layer

    proof = known.proof
    if result.placement is None or result.cost is None or (result.bound or -1) >= proof.bound:
        return result
    dispatch = proof.dispatch if known.placement == result.placement else None
    kept = replace(proof, cost=result.cost, optimal=result.cost == proof.bound, dispatch=dispatch)
    if check_layer(problem, kept, placement=result.placement):
        return result
    status: Status = "certified-optimal" if kept.optimal else "certified-gap"
    return replace(
        result,
        status=result.status if result.status in ("interrupted", "disagreement") else status,
        bound=kept.bound,
        certificate=Certificate.of_layer(problem, kept, placement=result.placement),
        message="; ".join(text for text in (result.message, "bound of the earlier run") if text),
    )


def prices_of(proof: Proof | None, *, kind: str) -> Earlier | None:
    """What a proof of this kind, by prices of the experts, knows of the relaxation; None elsewhere."""
    from moeopt.pricing import Earlier

    if proof is None or proof.kind != kind:
        return None
    scale, numbers = proof.numbers["scale"], proof.numbers
    return Earlier([price / scale for price in numbers["prices"]], numbers.get("triples", ()))
