"""Re-proves the bound of an allocation: every layer's certificates, and the knapsack over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moeopt import storage
from moeopt.certificate import Certificate
from moeopt.checker import Verdict, verify
from moeopt.knapsack import split_budget
from moeopt.placement import Placement
from moeopt.trace import Trace
from moeopt.workload import Workload

__all__ = ["FORMAT", "verify_allocation"]

FORMAT = "moeopt-allocation"


def verify_allocation(document: Mapping[str, Any], trace: Trace | Workload) -> Verdict:
    """Whether the bound of an allocation file, and its placement, hold against the trace.

    Every certificate is verified by the independent checker, and the knapsack over their bounds is solved again.
    """
    storage.expect(dict(document), kind=FORMAT)
    budget = storage.field(document, "total_replicas", kind=int)
    chosen = storage.field(document, "replicas", kind=list)
    placement = Placement.from_dict(storage.field(document, "placement", kind=dict))
    table = storage.field(document, "certificates", kind=list)
    if not len(chosen) == len(table) == len(placement.layer_ids):
        return Verdict(
            False, f"{len(chosen)} choices and {len(table)} layers for {len(placement.layer_ids)} placed"
        )
    if sum(chosen) > budget:
        return Verdict(False, f"{sum(chosen)} copies are spent, the budget is {budget}")
    bounds: list[list[int]] = []
    cost = 0
    for layer, row in enumerate(table):
        bounds.append([])
        for copies, part in enumerate(row):
            if part is None:
                return Verdict(False, "the bound rests on a layer without a certificate")
            verdict = verify(part, trace)
            if not verdict.accepted:
                return Verdict(False, f"with {copies} copies: {verdict.reason}")
            certificate = Certificate.from_dict(part)
            found = certificate.fields.get("replicas")
            if found != copies or certificate.layer_ids != placement.layer(layer).layer_ids:
                place = f"layer {placement.layer_ids[layer]} with {copies} copies"
                return Verdict(
                    False, f"a certificate is about {certificate.layer_ids}, {found}; expected {place}"
                )
            bounds[-1].append(certificate.proofs[0].bound)
            if copies == chosen[layer]:
                if certificate.placement != placement.layer(layer):
                    return Verdict(
                        False, f"layer {placement.layer_ids[layer]} is placed otherwise than certified"
                    )
                cost += certificate.proofs[0].cost or 0
    bound, least = storage.field(document, "bound", kind=int), split_budget(bounds, budget)[1]
    if bound > least:
        return Verdict(False, f"the certificates allow {least}, the file says {bound}")
    if cost != document.get("cost"):
        return Verdict(False, f"the layers cost {cost} together, the file says {document.get('cost')}")
    claim = "optimal" if cost == bound else "bound"
    return Verdict(True, "", tuple((name, claim, "") for name in placement.layer_ids))
