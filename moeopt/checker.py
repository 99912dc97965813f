"""Independent verification: the problem rebuilt from the trace, every bound re-proved in exact integers.

Imports neither a solver nor any module that produces proofs. A certificate is believed in nothing but its numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moeopt.certificate import Certificate, Proof, seal
from moeopt.dispatch import Plan
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.trace import Trace
from moeopt.workload import Workload

Check = Callable[[Problem, Proof], str]


@dataclass(frozen=True)
class Verdict:
    """What the checker says of a certificate, and of each of its layers.

    | field | holds |
    |---|---|
    | accepted | every claim holds |
    | reason | the first that does not, empty when accepted |
    | layers | (layer id, claim, reason) with claim "optimal" or "bound" |
    """

    accepted: bool
    reason: str
    layers: tuple[tuple[int, str, str], ...] = ()


def verify(certificate: Certificate | Mapping[str, Any], trace: Trace | Workload) -> Verdict:
    """Re-prove a certificate (or its JSON document) against the trace, or the workload, it speaks of."""
    if not isinstance(certificate, Certificate):
        document = dict(certificate)
        if document.get("seal") != seal(document):
            return Verdict(False, "the seal does not fit the content: the certificate was altered or damaged")
        certificate = Certificate.from_dict(document)
    try:
        workload = Workload.from_layers(trace, certificate.layer_ids)
        problem = Problem.from_fields(dict(certificate.fields), workload)
    except (ValueError, OverflowError) as error:
        return Verdict(False, f"the problem cannot be rebuilt from this trace: {error}")
    if reason := _unproved_rules(certificate, problem):
        return Verdict(False, reason)
    if workload.layer_ids != certificate.layer_ids:
        return Verdict(False, f"layers must be distinct and ascending, found {list(certificate.layer_ids)}")
    placement = certificate.placement
    if placement is not None and placement.layer_ids != certificate.layer_ids:
        return Verdict(False, f"the placement is of layers {list(placement.layer_ids)}, the proofs of others")
    layers = []
    for index, proof in enumerate(certificate.proofs):
        held = None if placement is None else placement.layer(index)
        reason = check_layer(problem.layer(index), proof, placement=held)
        layers.append((proof.layer_id, "optimal" if proof.optimal else "bound", reason))
    refused = next((f"layer {layer}: {reason}" for layer, _, reason in layers if reason), "")
    return Verdict(not refused, refused, tuple(layers))


def _unproved_rules(certificate: Certificate, problem: Problem) -> str:
    """The first rule that the proofs of single layers say nothing about; empty when they are about all of them."""
    if differing := differing_rule(certificate.fields, problem.fields()):
        return f"a rule is not known in this form: {differing}"
    if problem.total_replicas is not None:
        budget = f"a budget over all layers, total_replicas is {problem.total_replicas}"
        return f"proofs of single layers say nothing about {budget}: see moeopt.allocate"
    return ""


def differing_rule(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first rule in which the fields of two problems differ, with both values; empty when they agree."""
    for name in sorted(set(found) | set(wanted)):
        if found.get(name) != wanted.get(name):
            return f"{name} {found.get(name)!r:.80}, here {wanted.get(name)!r:.80}"
    return ""


def check_layer(problem: Problem, proof: Proof, *, placement: Placement | None) -> str:
    """Why the proof of one layer does not hold; empty when it does."""
    if proof.digest != problem.workload.digest:
        return "the workload of the trace is not the one that was proved (digests differ)"
    if placement is None and proof.dispatch is not None:
        return "a dispatch comes with a placement"
    if (proof.cost is None) != (placement is None):
        return "a cost comes with a placement, and a placement with its cost"
    if placement is not None:
        if placement.slots != problem.cluster.slots:
            return f"the placement states slots {placement.slots}, the problem {problem.cluster.slots}"
        try:
            candidate = placement if proof.dispatch is None else Plan(placement, (proof.dispatch,))
            if broken := problem.violation(candidate):
                return f"the placement is not admissible: {broken}"
            cost = problem.cost(candidate)
        except ValueError as error:
            return f"the placement does not fit the problem: {error}"
        if cost != proof.cost:
            return f"the placement costs {cost}, the certificate says {proof.cost}"
        if proof.bound > cost:
            return f"the bound {proof.bound} exceeds the cost {cost} of an admissible placement"
    if proof.optimal != (proof.bound == proof.cost):
        return f"claim optimal={proof.optimal} does not follow from bound {proof.bound} and cost {proof.cost}"
    checks = _checks()
    if proof.kind not in checks:
        return f"unknown kind of proof {proof.kind!r}, known are {', '.join(sorted(checks))}"
    if problem.objective == "load" and proof.kind != "counting":
        return f"a proof of kind {proof.kind!r} says nothing of the load, one by counting does"
    try:
        return checks[proof.kind](problem, proof)
    except (ValueError, OverflowError) as error:
        return f"the numbers of the proof are not well formed: {error}"


def _checks() -> dict[str, Check]:
    from moeopt.blocks_checker import check_blocks
    from moeopt.contents_checker import check_contents
    from moeopt.counting_checker import check_counting
    from moeopt.families_checker import check_families
    from moeopt.priced_checker import check_priced
    from moeopt.rows_checker import check_assignment, check_pairs
    from moeopt.rows_tree_checker import check_rows
    from moeopt.semidefinite_checker import check_semidefinite
    from moeopt.usage_checker import check_usage

    return {
        "assignment": check_assignment,
        "blocks": check_blocks,
        "contents": check_contents,
        "counting": check_counting,
        "families": check_families,
        "pairs": check_pairs,
        "priced": check_priced,
        "rows": check_rows,
        "semidefinite": check_semidefinite,
        "usage": check_usage,
    }
