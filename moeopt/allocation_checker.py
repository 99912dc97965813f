"""Re-proves an allocation: the problem it states, every layer's certificates, and the knapsack over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moeopt import storage
from moeopt.certificate import Certificate
from moeopt.checker import Verdict, differing_rule, verify
from moeopt.knapsack import split_budget
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.trace import Trace
from moeopt.workload import Workload

__all__ = ["FORMAT", "verify_allocation"]

FORMAT = "moeopt-allocation"


def verify_allocation(document: Mapping[str, Any], trace: Trace | Workload | Problem) -> Verdict:
    """Whether the bound of an allocation file, and its placement, hold against the trace, or for the problem.

    The bound is the least sum, over all splits of the budget, of what certificates prove of each layer with 0, 1, ...
    copies at most. So each layer needs a certificate for every number of copies that a split may give it, all about
    the rules of the problem that the file states; the independent checker verifies them, and the knapsack over their
    bounds is solved again. Of a trace the allocation may be about some layers, of a problem about all of them.

    Raises ValueError when the form is wrong.
    """
    storage.expect(dict(document), kind=FORMAT)
    if "problem" not in document:
        raise ValueError(
            "field 'problem' is missing: the allocation does not state its rules, as early ones did not; allocate again"
        )
    stated = storage.field(document, "problem", kind=dict)
    placement = Placement.from_dict(storage.field(document, "placement", kind=dict))
    chosen = storage.field(document, "replicas", kind=list)
    table = storage.field(document, "certificates", kind=list)
    traffic = trace.workload if isinstance(trace, Problem) else trace
    try:
        problem = Problem.from_fields(stated, Workload.from_layers(traffic, placement.layer_ids))
    except (ValueError, OverflowError) as error:
        return Verdict(False, f"the problem cannot be rebuilt from this trace: {error}")
    layer_ids = problem.workload.layer_ids
    if placement.layer_ids != layer_ids:
        return Verdict(False, f"layers must be distinct and ascending, found {list(placement.layer_ids)}")
    if differing := differing_rule(stated, problem.fields()):
        return Verdict(False, f"a rule is not known in this form: {differing}")
    if isinstance(trace, Problem):
        if differing := differing_rule(stated, trace.fields()):
            return Verdict(False, f"the allocation is about another problem: {differing}")
        if layer_ids != trace.workload.layer_ids:
            own = list(trace.workload.layer_ids)
            return Verdict(False, f"the allocation is about layers {list(layer_ids)}, the problem has {own}")
    if not len(chosen) == len(table) == len(layer_ids):
        return Verdict(False, f"{len(chosen)} choices and {len(table)} layers for {len(layer_ids)} placed")
    if refused := _false_choice(document, problem):
        return Verdict(False, refused)
    try:
        bounds, costs = _proved(problem, placement, chosen=chosen, table=table)
    except ValueError as error:
        return Verdict(False, str(error))
    if refused := _false_claim(document, bounds=bounds, costs=costs):
        return Verdict(False, refused)
    claim = "optimal" if document["cost"] == document["bound"] else "bound"
    return Verdict(True, "", tuple((layer, claim, "") for layer in layer_ids))


def _false_choice(document: Mapping[str, Any], problem: Problem) -> str:
    """Why the file does not split the budget of its problem; empty when it does."""
    budget, chosen = storage.field(document, "total_replicas", kind=int), document["replicas"]
    if budget != problem.total_replicas:
        return f"the budget of the problem is {problem.total_replicas}, the file says {budget}"
    for layer, copies in zip(problem.workload.layer_ids, chosen, strict=True):
        if type(copies) is not int or not 0 <= copies <= _most(problem):
            return f"layer {layer} may get 0 to {_most(problem)} copies, the file says {copies!r:.40}"
    return f"{sum(chosen)} copies are spent, the budget is {budget}" if sum(chosen) > budget else ""


def _most(problem: Problem) -> int:
    """Copies that a split gives one layer at most; `Problem` has checked that the slots hold them."""
    return min(problem.replicas, problem.total_replicas or 0)


def _proved(
    problem: Problem, placement: Placement, *, chosen: list[int], table: list[Any]
) -> tuple[list[list[int]], list[list[int | None]]]:
    """Bounds and costs by layer and copies, as the certificates prove them; ValueError where one proves nothing."""
    most = _most(problem)
    bounds: list[list[int]] = []
    costs: list[list[int | None]] = []
    for index, (copies, row) in enumerate(zip(chosen, table, strict=True)):
        name = problem.workload.layer_ids[index]
        if not isinstance(row, list) or len(row) != most + 1:
            found = f"{len(row)} of them" if isinstance(row, list) else f"{row!r:.40}"
            raise ValueError(f"layer {name} needs certificates with 0 to {most} copies, found {found}")
        layer = problem.layer(index)
        held = []
        for number, part in enumerate(row):
            try:
                held.append(_certificate(part, layer, replicas=number))
            except ValueError as error:
                raise ValueError(f"layer {name} with {number} copies: {error}") from error
        if held[copies].placement != placement.layer(index):
            raise ValueError(f"layer {name} is placed otherwise than certified with {copies} copies")
        bounds.append([certificate.proofs[0].bound for certificate in held])
        costs.append(_least_so_far([certificate.proofs[0].cost for certificate in held]))
        if costs[-1][copies] != held[copies].proofs[0].cost:
            raise ValueError(f"layer {name} costs less with fewer copies than the {copies} it gets")
    return bounds, costs


def _certificate(part: object, layer: Problem, *, replicas: int) -> Certificate:
    """The certificate of the layer with so many copies at most; ValueError where it is not, or does not hold."""
    if part is None:
        raise ValueError("the bound rests on a layer without a certificate")
    if not isinstance(part, Mapping):
        raise ValueError(f"a certificate must be an object, found {part!r:.60}")
    certificate = Certificate.from_dict(dict(part))
    if certificate.layer_ids != layer.workload.layer_ids:
        raise ValueError(f"the certificate is about layers {list(certificate.layer_ids)}")
    if differing := differing_rule(certificate.fields, {**layer.fields(), "replicas": replicas}):
        raise ValueError(f"the certificate is about another problem: {differing}")
    verdict = verify(part, layer.workload)
    if not verdict.accepted:
        raise ValueError(verdict.reason)
    return certificate


def _false_claim(
    document: Mapping[str, Any], *, bounds: list[list[int]], costs: list[list[int | None]]
) -> str:
    """The first claim that does not follow from what is proved of each layer and number of copies; empty for none."""
    for name, found in (("bounds", bounds), ("costs", costs)):
        stated = storage.field(document, name, kind=list)
        if stated != found:
            return f"the certificates have {name} {found!s:.80}, the file says {stated!s:.80}"
    cost, bound = (storage.field(document, name, kind=int) for name in ("cost", "bound"))
    least = split_budget(bounds, document["total_replicas"])[1]
    if bound > least:
        return f"the certificates allow {least}, the file says {bound}"
    spent = sum(row[copies] or 0 for row, copies in zip(costs, document["replicas"], strict=True))
    if cost != spent:
        return f"the layers cost {spent} together, the file says {cost}"
    status = storage.field(document, "status", kind=str)
    if (status == "certified-optimal") != (cost == bound):
        return f"the status {status!r:.40} does not follow from cost {cost} and bound {bound}"
    return ""


def _least_so_far(costs: list[int | None]) -> list[int | None]:
    """With one more copy allowed, what fewer copies cost is still to be had."""
    least: list[int | None] = []
    for cost in costs:
        known = [one for one in (*least[-1:], cost) if one is not None]
        least.append(min(known, default=None))
    return least
