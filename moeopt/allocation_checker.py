"""Re-proves the bound of an allocation: every layer's certificates, and the knapsack over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moeopt import storage
from moeopt.certificate import Certificate
from moeopt.checker import verify
from moeopt.knapsack import split_budget
from moeopt.trace import Trace

__all__ = ["verify_allocation"]


def verify_allocation(document: Mapping[str, Any], trace: Trace) -> str:
    """Why the bound of an allocation file does not hold against the trace; empty when it does.

    Every certificate is verified by the independent checker, and the knapsack over their bounds is solved again.
    """
    storage.expect(dict(document), kind="moeopt-allocation")
    bounds: list[list[int]] = []
    budget = storage.field(document, "total_replicas", kind=int)
    for row in storage.field(document, "certificates", kind=list):
        bounds.append([])
        for copies, part in enumerate(row):
            if part is None:
                return "the bound rests on a layer without a certificate"
            verdict = verify(part, trace)
            if not verdict.accepted:
                return f"with {copies} copies: {verdict.reason}"
            certificate = Certificate.from_dict(part)
            if certificate.fields.get("replicas") != copies:
                return f"a certificate is about {certificate.fields.get('replicas')} copies, expected {copies}"
            bounds[-1].append(sum(proof.bound for proof in certificate.proofs))
    total = storage.field(document, "bound", kind=int)
    least = split_budget(bounds, budget)[1]
    return "" if total <= least else f"the certificates allow {least}, the file says {total}"
