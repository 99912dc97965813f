"""The sensible default: search first, then proof where proof can finish."""

from dataclasses import dataclass, replace

from moeopt import registry
from moeopt.certificate import Proof
from moeopt.heuristics.mixture import Mixture
from moeopt.heuristics.swap import Swap
from moeopt.method import Incumbent, Method, Resuming, check_supported
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.stop import Clock, Stop

OPENING = Swap(restarts=1, kicks=20)
KICKS = 50  # for each expert, of a search alone
OPENING_TAIL = Mixture(rounds=4, kicks=5)
SEARCH_SHARE = 0.25  # of the time, where a proof follows
PRICED_SIZE = 2_500  # experts x slots: 256 x 8 has a bound in minutes, 512 x 8 none in a quarter of an hour
# Slots, and experts x slots, beyond which branching on the semidefinite relaxation proves cuts sooner than prices do.
CUT_SLOTS, CUT_SIZE = 8, 512
BOUND_SHARE = 0.5  # of the time for search, where a bound alone follows


@dataclass(frozen=True)
class Auto(Resuming):
    """Swap search for a good placement; then the first exact method of `exact` that treats the problem proves it.

    Where no exact method applies, search alone, with the bound of a relaxation: semidefinite, or of usage for copies.

    | field | holds |
    |---|---|
    | exact | formulations to try, in this order |
    """

    exact: tuple[str, ...] = ("priced", "blocks", "pairs", "families", "migration", "covers")
    name = "auto"
    summary = "search, then a proof by priced, blocks, pairs, families, migration or covers where one of them applies"
    objectives = ("fan-out", "cut", "load")

    def solve(
        self,
        problem: Problem,
        *,
        stop: Stop,
        seed: int,
        start: Placement | None = None,
        earlier: Proof | None = None,
    ) -> Result:
        """Search, prove, and say in one line what was chosen and why."""
        check_supported(self, problem)
        clock = stop.start()
        if problem.objective == "load":
            found = registry.named_method("level").solve(problem, stop=stop, seed=seed, start=start)
            return self._bounded(found, problem, clock, "level search", "of equal shares")
        reasons: dict[str, str] = {}
        for name in self.exact:
            method = registry.named_method(name)
            if (
                reason := method.supports(problem)
                or _unsearchable(method, problem)
                or _too_large(name, problem)
            ):
                reasons[name] = reason
                continue
            if problem.replicas or problem.max_moves is not None:
                # These searches are part of the method.
                result = method.solve(problem, stop=stop, seed=seed, start=start)
                if problem.replicas and result.status == "feasible":
                    return self._bounded(result, problem, clock, "search", f"no proof by {name} in the time")
                return replace(
                    result, method=repr(self), message=result.message or f"search and proof by {name}"
                )
            # A proof finds the optimum by itself; search only has to give it a good start.
            first = OPENING if problem.risk is None else OPENING_TAIL
            opening = f"{first.name} search"
            found = first.solve(problem, stop=_part(stop, SEARCH_SHARE), seed=seed, start=start)
            if found.status == "interrupted":
                return replace(found, method=repr(self))
            goes_on = {"earlier": earlier} if isinstance(method, Resuming) else {}
            result = method.solve(
                problem, stop=_rest(stop, clock), seed=seed, start=found.placement, **goes_on
            )
            if result.status == "feasible":
                return self._bounded(result, problem, clock, opening, f"no bound by {name} in the time")
            message = result.message or f"{opening}, then proof by {name}"
            history = (*found.history, *(event for event in result.history if event.bound is not None))
            return replace(result, method=repr(self), message=message, seconds=clock.elapsed, history=history)
        search, exact = "swap", self.exact[0]
        if problem.replicas:
            search, exact = "replicate" if problem.max_moves is not None else "anneal", "covers"
        elif problem.max_moves is not None:
            search, exact = "migrate", "migration"
        elif problem.risk is not None:
            search, exact = "mixture", "families"
        why = reasons.get(exact, "not asked for")
        return self._searched(search, problem, clock, seed=seed, start=start, why=f"no exact route: {why}")

    def _searched(
        self,
        name: str,
        problem: Problem,
        clock: Clock,
        *,
        seed: int,
        start: Placement | None,
        why: str,
    ) -> Result:
        """Search alone, with a bound of its own."""
        method, bounded = registry.named_method(name), bool(problem.replicas) or not unbounded(problem)
        if name == "swap" and clock.stop.seconds is not None:  # nothing else needs its share of the time
            method = Swap(restarts=1, kicks=KICKS * problem.workload.n_experts)
        stop = _part(clock.stop, BOUND_SHARE) if bounded else clock.stop
        found = method.solve(problem, stop=stop, seed=seed, start=start)
        if found.placement is None or not (bounded or problem.objective == "fan-out"):
            return replace(found, method=repr(self), message=found.message or f"{name}; {why}")
        return self._bounded(found, problem, clock, f"{name} search", why)

    def _bounded(self, found: Result, problem: Problem, clock: Clock, what: str, why: str) -> Result:
        """A result with the semidefinite bound where there is one, or the counting bound where that is better."""
        from moeopt.exact import conclude
        from moeopt.relaxations.counting import counting_proof

        incumbent = Incumbent(problem, clock)
        if found.placement is not None:
            incumbent.offer(found.placement)
        interrupted = found.status == "interrupted"
        proof = None if problem.objective == "cut" else counting_proof(problem, cost=incumbent.cost)
        if not interrupted:
            better = _relaxed(problem, _rest(clock.stop, clock).start(), seed=found.seed, incumbent=incumbent)
            if better is not None and (proof is None or better.bound > proof.bound):
                proof = better
        result = conclude(self, incumbent, seed=found.seed, proof=proof, interrupted=interrupted)
        kind = "" if result.certificate is None else result.certificate.proofs[0].kind
        message = f"{what} with the {kind or 'counting'} bound; {why}"
        history = (*found.history, *(event for event in result.history if event.bound is not None))
        return replace(result, message=message, seconds=clock.elapsed, history=history)


def _too_large(name: str, problem: Problem) -> str:
    """Why a proof would come too late; empty otherwise."""
    if problem.objective == "cut" and name in ("priced", "blocks", "pairs"):
        return _closed_by_tree(problem)
    if name != "priced":
        return ""
    experts, slots = problem.workload.n_experts, int(problem.cluster.slots_of[0])
    if experts * slots <= PRICED_SIZE:
        return ""
    return f"{experts} experts on GPUs of {slots} slots are priced too slowly"


def _closed_by_tree(problem: Problem) -> str:
    """That branching on the semidefinite relaxation proves this cut sooner; empty where it may not."""
    from moeopt.relaxations.semidefinite import MOST_SEATS

    slots, free = problem.cluster.slots, problem.load_tolerance is None and problem.max_moves is None
    if not free or not isinstance(slots, int) or slots * problem.cluster.gpus > MOST_SEATS:
        return ""
    experts = problem.workload.n_experts
    if (slots <= CUT_SLOTS and slots * experts <= CUT_SIZE) or unbounded(problem):
        return ""
    return (
        f"branching on the semidefinite relaxation proves the cut of {experts} experts, {slots} a GPU, sooner"
    )


def _relaxed(problem: Problem, clock: Clock, *, seed: int, incumbent: Incumbent) -> Proof | None:
    """The proof of the relaxation that bounds such problems; None where there is none."""
    if problem.objective == "load":
        return None
    if problem.replicas:
        from moeopt.relaxations.usage import usage_proof

        return usage_proof(problem, clock=clock, seed=seed, cost=incumbent.cost)
    if unbounded(problem):
        return None
    from moeopt.relaxations.semidefinite import semidefinite_proof

    return semidefinite_proof(
        problem,
        clock=clock,
        seed=seed,
        cost=incumbent.cost,
        start=incumbent.placement,
        on_bound=incumbent.raise_bound,
        on_placement=incumbent.offer,
    )


def unbounded(problem: Problem) -> str:
    """Why the semidefinite relaxation does not bound a problem; empty where it does."""
    from moeopt.partition_lines import partition_levels

    try:
        partition_levels(problem)
    except ValueError as error:
        return str(error)
    return ""


def _unsearchable(method: Method, problem: Problem) -> str:
    """Why no proof is to be hoped for where copies are placed; empty otherwise."""
    if not problem.replicas:
        return "places copies of experts, there are none" if method.name == "covers" else ""
    from moeopt.formulation import Searched

    formulation = getattr(method, "formulation", None)
    return formulation.unsearchable(problem) if isinstance(formulation, Searched) else ""


def _part(stop: Stop, share: float) -> Stop:
    return stop if stop.seconds is None else replace(stop, seconds=stop.seconds * share)


def _rest(stop: Stop, clock: Clock) -> Stop:
    """What is left of the time; a moment at least, so that cheap proofs are not lost to a slow search."""
    return stop if clock.left is None else replace(stop, seconds=max(clock.left, 0.5))
