"""The sensible default: search first, then proof where proof can finish."""

from dataclasses import dataclass, replace

from moeopt import registry
from moeopt.heuristics.swap import Swap
from moeopt.method import Incumbent, Method, check_supported
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.stop import Clock, Stop

OPENING = Swap(restarts=1, kicks=20)
SEARCH_SHARE = 0.25  # of the time, where a proof follows


@dataclass(frozen=True)
class Auto(Method):
    """Swap search for a good placement; then the first exact method of `exact` that treats the problem proves it.

    Where no exact method applies, search alone, with the counting bound for the fan-out.

    | field | holds |
    |---|---|
    | exact | formulations to try, in this order |
    """

    exact: tuple[str, ...] = ("priced", "blocks", "pairs", "families", "migration", "covers")
    name = "auto"
    summary = "search, then a proof by priced, blocks, pairs, families, migration or covers where one of them applies"

    def solve(self, problem: Problem, *, stop: Stop, seed: int, start: Placement | None = None) -> Result:
        """Search, prove, and say in one line what was chosen and why."""
        check_supported(self, problem)
        clock = stop.start()
        reasons: dict[str, str] = {}
        for name in self.exact:
            method = registry.named_method(name)
            if reason := method.supports(problem) or _unsearchable(method, problem):
                reasons[name] = reason
                continue
            if problem.replicas or problem.risk is not None or problem.max_moves is not None:
                # These searches are part of the method.
                result = method.solve(problem, stop=stop, seed=seed, start=start)
                if problem.replicas and result.status == "feasible":
                    return self._counted(result, problem, clock, f"search; no proof by {name} in the time")
                return replace(
                    result, method=repr(self), message=result.message or f"search and proof by {name}"
                )
            # A proof finds the optimum by itself; search only has to give it a good start.
            found = OPENING.solve(problem, stop=_part(stop, SEARCH_SHARE), seed=seed, start=start)
            if found.status == "interrupted":
                return replace(found, method=repr(self))
            result = method.solve(problem, stop=_rest(stop, clock), seed=seed, start=found.placement)
            if result.status == "feasible" and problem.objective == "fan-out":
                return self._counted(result, problem, clock, f"swap search; no bound by {name} in the time")
            message = result.message or f"swap search, then proof by {name}"
            history = (*found.history, *(event for event in result.history if event.bound is not None))
            return replace(result, method=repr(self), message=message, seconds=clock.elapsed, history=history)
        search, exact = "swap", self.exact[0]
        if problem.replicas:
            search, exact = "replicate", "covers"
        elif problem.max_moves is not None:
            search, exact = "migrate", "migration"
        elif problem.risk is not None:
            search, exact = "mixture", "families"
        why = reasons.get(exact, "not asked for")
        return self._searched(search, problem, clock, seed, start, f"no exact route: {why}")

    def _searched(
        self, name: str, problem: Problem, clock: Clock, seed: int, start: Placement | None, why: str
    ) -> Result:
        """Search alone, with the bound that needs no search."""
        found = registry.named_method(name).solve(problem, stop=clock.stop, seed=seed, start=start)
        if found.placement is None or problem.objective != "fan-out":
            return replace(found, method=repr(self), message=found.message or f"{name}; {why}")
        return self._counted(found, problem, clock, f"{name} search with the counting bound; {why}")

    def _counted(self, found: Result, problem: Problem, clock: Clock, message: str) -> Result:
        """A result with the counting bound."""
        from moeopt.exact import conclude
        from moeopt.relaxations.counting import counting_proof

        incumbent = Incumbent(problem, clock)
        if found.placement is not None:
            incumbent.offer(found.placement)
        proof = counting_proof(problem, cost=incumbent.cost)
        result = conclude(
            self, incumbent, seed=found.seed, proof=proof, interrupted=found.status == "interrupted"
        )
        return replace(result, message=message, seconds=clock.elapsed, history=found.history)


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
