"""The referee of a benchmark: every answer is costed again, every certificate verified, before a row is believed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from moeopt import checker
from moeopt.dispatch import Plan
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.trace import Trace
from moeopt.workload import Workload

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True)
class Judgement:
    """A result seen by the judge and the checker.

    | field | holds |
    |---|---|
    | status | the result's, "disagreement" or "rejected" |
    | reason | why it is one of the last two |
    | cost, bound | by `Problem.cost`, and by the certificate that the checker accepted |
    | verify_seconds | of the checker, from the trace; None without a certificate |
    """

    status: str
    reason: str
    cost: int | None
    bound: int | None
    verify_seconds: float | None


def judge(problem: Problem, result: Result, *, recorded: Trace | Workload) -> Judgement:
    """Cost the placement again and verify the certificate against what was recorded: a word is not a result."""
    cost, bound, seconds = None, None, None
    if result.placement is not None:
        candidate = _answer(problem, result)
        if broken := problem.violation(candidate):
            return Judgement("disagreement", f"not admissible: {broken}", None, None, None)
        cost = problem.cost(candidate)
    if cost != result.cost:
        return Judgement("disagreement", f"costs {cost}, the result says {result.cost}", cost, None, None)
    if result.certificate is not None:
        begun = time.perf_counter()
        verdict = checker.verify(result.certificate, recorded)
        seconds = time.perf_counter() - begun
        if not verdict.accepted:
            return Judgement("rejected", verdict.reason, cost, None, seconds)
        bound = sum(proof.bound for proof in result.certificate.proofs)
        complete = len(result.certificate.proofs) == len(problem.workload.layers)
        bound = bound if complete else None
    judgement = Judgement(result.status, "", cost, bound, seconds)
    if bound != result.bound:
        why = f"the certificate proves {bound}, the result says {result.bound}"
        return replace(judgement, status="disagreement", reason=why)
    holds = {"certified-optimal": bound is not None and bound == cost, "certified-gap": bound is not None}
    if not holds.get(result.status, True):
        why = f"{result.status} with bound {bound} and cost {cost}"
        return replace(judgement, status="disagreement", reason=why)
    return judgement


def _answer(problem: Problem, result: Result) -> Placement | Plan:
    """The placement, with the dispatch that its certificate carries where that is part of the answer."""
    placement = result.placement
    if placement is None:
        raise ValueError("the result has no placement")
    dispatches = [] if result.certificate is None else [proof.dispatch for proof in result.certificate.proofs]
    kept = tuple(dispatch for dispatch in dispatches if dispatch is not None)
    return Plan(placement, kept) if len(kept) == len(problem.workload.layers) else placement
