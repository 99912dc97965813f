"""Agreement on tiny problems: brute force, solvers and a certified bound say the same, or the instance is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.checker import check_layer
from moeopt.exact import Exact
from moeopt.formulation import Formulation, Provable, Separable
from moeopt.instance import Instance
from moeopt.judged import Judged
from moeopt.matrix import Matrix
from moeopt.method import Incumbent
from moeopt.problem import Problem
from moeopt.rows import check_answer, solve_model, solve_rows
from moeopt.scaling import Scale
from moeopt.solvers.door import Session, Status
from moeopt.solvers.scaled import ScaledSession
from moeopt.statement import Statement, cost_unit
from moeopt.stop import Stop
from moeopt.testing import brute_force

__all__ = ["Agreement", "Claim", "agree", "replay"]

MOST_NODES = 6  # of a certified tree: what is asked is whether a bound holds, not how far it reaches

_FLOAT = 1e-6  # relative error granted to a float solver
_RESOLUTION = 2.0**-48  # of float sums: a large constant takes the last digits
_NOTHING = (Status.INFEASIBLE, Status.INFEASIBLE_OR_UNBOUNDED)  # every column is bounded


@dataclass(frozen=True)
class Claim:
    """What a solver says of a statement, and what the problem says of its answer.

    | field | holds |
    |---|---|
    | solver | name, or path of its adapter |
    | status | a word of `moeopt.solvers.door.Status`, "refused" when it cannot state the model, or "failed" |
    | value | its objective, as a cost; None without a point |
    | cost | exact cost of its answer by the problem; None without an answer |
    | reason | how it contradicts the least cost; empty when it does not |
    | message | in its own words why it refused or failed |
    """

    solver: str
    status: str
    value: float | None = None
    cost: int | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Agreement:
    """Whether everybody says the same of one problem.

    | field | holds |
    |---|---|
    | status | "agreed" or "disagreement" |
    | reason | the first contradiction, empty when agreed |
    | least | least cost by brute force; None: nothing is admissible |
    | claims | of the solvers, in the order asked |
    | bound | certified, accepted by the checker and at most `least`; None only where nothing is admissible |
    | path | where the instance is kept for `replay`; None when agreed, or without a folder |
    """

    status: Literal["agreed", "disagreement"]
    reason: str
    least: int | None
    claims: tuple[Claim, ...]
    bound: int | None
    path: Path | None = None


def agree(
    formulation: Formulation,
    problem: Judged,
    *,
    solvers: Sequence[str] = ("highs", "cpsat"),
    sessions: Mapping[str, Session] | None = None,
    folder: storage.PathLike | None = None,
) -> Agreement:
    """Hold one statement of a tiny problem to brute force over `problem.candidates()`, by every solver.

    Every solver is given the whole statement, lazy rows listed; its answer is read and costed again. Then the bound
    of the statement is certified and shown to the checker, which looks the formulation up by its name.

    Parameters
    ----------
    sessions
        Open sessions by solver; for the others one is opened and closed.
    folder
        Where an instance that nobody agrees on is kept, one JSON file; created when missing.

    Raises
    ------
    ValueError
        The formulation does not state the problem, the problem is too large for brute force, or a solver is missing.
    """
    if reason := formulation.supports(problem):
        raise ValueError(f"formulation {formulation.name} does not fit this problem: {reason}")
    least, _ = brute_force(problem)
    statement = Statement.of(formulation, problem)
    if isinstance(formulation, Separable):
        statement.lazy.append(formulation.lazy(problem))
    matrix = statement.complete()
    matrix = replace(matrix, cost=matrix.cost * statement.unit, offset=matrix.offset * statement.unit)
    with ExitStack() as stack:
        given = dict(sessions or {})
        opened = {
            name: given[name] if name in given else stack.enter_context(ScaledSession(name))
            for name in solvers
        }
        claims = []
        for name, session in opened.items():
            claim, x = _asked(matrix, name, session=session, least=least)
            noise = max(abs(matrix.offset), least or 0) * _RESOLUTION if session.linear else 0.0
            if not claim.reason and x is not None:
                claim = _judged(claim, statement, x, least=least, noise=noise)
            claims.append(claim)
        linear = given.get("highs") or opened.get("highs") or stack.enter_context(Session())
        try:
            bound, refusal = _certified(formulation, problem, least=least, session=linear)
        except ValueError as error:
            bound, refusal = None, f"the search fails: {error}"
    if claims and all(claim.status == "refused" for claim in claims):
        refusal = f"no solver states the model: {claims[0].message}"
    reason = next((claim.reason for claim in claims if claim.reason), refusal)
    found = Agreement("disagreement" if reason else "agreed", reason, least, tuple(claims), bound)
    if not reason or folder is None:
        return found
    return replace(found, path=_kept(Path(folder), formulation, problem, matrix, found))


def replay(path: storage.PathLike, *, solver: str = "highs", session: Session | None = None) -> Claim:
    """Solve an instance that `agree` kept, and hold the solver's word to the least cost that it came with.

    Without a session one is opened and closed. Raises ValueError when the file is no such instance.
    """
    instance = Instance.load(path)
    with ExitStack() as stack:
        used = session if session is not None else stack.enter_context(Session(solver))
        return _asked(instance.matrix, solver, session=used, least=instance.least)[0]


def _asked(
    matrix: Matrix, solver: str, *, session: Session, least: int | None
) -> tuple[Claim, NDArray[np.float64] | None]:
    """The claim about a matrix, costs unscaled, and the solver's point rounded where it must be whole."""
    try:
        exact = not session.linear
        unit = 1 if exact else cost_unit(float(np.abs(matrix.cost).max(initial=0.0)))
        stated = replace(matrix, cost=matrix.cost / unit, offset=matrix.offset / unit)
        scale = Scale.of(stated)
        if exact:  # it takes whole columns only
            outcome = session.solve(replace(matrix, integer=np.ones_like(matrix.integer)))
        else:
            outcome = session.solve(scale.applied(stated))
    except ValueError as error:
        return Claim(solver, "refused", message=str(error)), None
    except RuntimeError as error:
        return Claim(solver, "failed", reason=f"{solver} gave no answer: {error}", message=str(error)), None
    outcome = outcome if exact else scale.outcome(outcome)
    value = None if outcome.objective is None else outcome.objective * unit
    claim = Claim(solver, str(outcome.status), value)
    if outcome.status in _NOTHING:
        calls = f"{solver} calls the statement {outcome.status}, an answer costs {least}"
        return (claim if least is None else replace(claim, reason=calls)), None
    if outcome.status != Status.OPTIMAL or outcome.x is None or value is None:
        return replace(claim, reason=f"{solver} ends with {outcome.status}"), None
    if least is None:
        return replace(claim, reason=f"{solver} finds an optimum {value:.17g}, nothing is admissible"), None
    noise = _FLOAT * max(unit, abs(least)) + abs(matrix.offset) * _RESOLUTION
    if abs(value - least) > noise:
        return replace(
            claim, reason=f"{solver} finds an optimum {value:.17g}, the least cost is {least}"
        ), None
    return claim, np.where(matrix.integer, np.round(outcome.x), outcome.x)


def _judged(
    claim: Claim, statement: Statement, x: NDArray[np.float64], *, least: int | None, noise: float
) -> Claim:
    """The claim with the cost of the answer that its point stands for; `noise` is what the solver cannot tell."""
    problem, solver = statement.problem, claim.solver
    try:
        answer = statement.read(x)
    except ValueError as error:
        return replace(claim, reason=f"the optimum of {solver} cannot be read: {error}")
    if answer is None:
        return replace(claim, reason=f"the optimum of {solver} stands for no answer")
    if broken := problem.violation(answer):
        return replace(claim, reason=f"the optimum of {solver} is not admissible: {broken}")
    cost = problem.cost(answer)
    if least is not None and 0 <= cost - least <= noise:
        return replace(claim, cost=cost)
    return replace(
        claim, cost=cost, reason=f"the optimum of {solver} costs {cost}, the least cost is {least}"
    )


def _certified(
    formulation: Formulation, problem: Any, *, least: int | None, session: Session
) -> tuple[int | None, str]:
    """(bound, why something about it is wrong): the library's own search, its proof shown to the checker again."""
    stop = Stop(seconds=None)
    if isinstance(formulation, Provable) and isinstance(problem, Problem):
        clock = stop.start()
        result = solve_rows(
            Exact(formulation),
            formulation,
            incumbent=Incumbent(problem, clock),
            clock=clock,
            seed=0,
            session=session,
        )
        proof = None if result.certificate is None else result.certificate.proofs[0]
        status, cost, message = result.status, result.cost, result.message
        refusal = "" if proof is None else check_layer(problem, proof, placement=result.placement)
    else:
        answer = solve_model(formulation, problem, stop=stop, session=session, most_nodes=MOST_NODES)
        proof = answer.proof
        status, cost, message = answer.status, answer.cost, answer.message
        refusal = "" if proof is None else check_answer(problem, proof)
    if status == "interrupted":
        raise KeyboardInterrupt
    bound = None if proof is None else proof.bound
    if status == "disagreement" or cost != least:
        return bound, f"the search ends with {status} at {cost}, the least cost is {least}: {message}"
    if refusal:
        return bound, f"the checker refuses the bound {bound}: {refusal}"
    if least is not None and bound is None and "beyond 2^53" not in message:
        return bound, f"no bound is certified: {message}"
    if least is not None and bound is not None and bound > least:
        return bound, f"the certified bound {bound} exceeds the least cost {least}"
    return bound, ""


def _kept(folder: Path, formulation: Formulation, problem: Judged, matrix: Matrix, found: Agreement) -> Path:
    """Where the instance is written, whole or not at all."""
    said = {"reason": found.reason, "bound": found.bound, "claims": [asdict(claim) for claim in found.claims]}
    instance = Instance.of(formulation, problem, matrix=matrix, least=found.least, said=said)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{formulation.name}-{problem.digest[:16]}.json"
    instance.save(path)
    return path
