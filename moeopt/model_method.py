"""Methods that place all layers of a model together: what they promise, and how their proposals are judged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from moeopt.method import Incumbent, Method, follow, refusal
from moeopt.news import News, silence, tell
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Event, Result, Status
from moeopt.stop import Clock, Stop
from moeopt.trace import Trace

__all__ = ["ModelMethod", "matching_trace", "objection"]


@dataclass(frozen=True)
class ModelMethod(Method):
    """A method that places all layers together, by a goal of its own; clock, judging and history are kept here.

    It proposes placements of all layers, each better than the one before by its own goal. The library judges every
    layer of a proposal as it judges those of other methods, and keeps proposals as a whole: the last one whose layers
    are all admissible, and whose copies keep `total_replicas`, is the answer. Layers of different proposals never mix,
    and a proposal is not dropped because it costs more: the goal is the method's, the cost is the library's.

    `shares_budget` (a class variable) says that the method knows `Problem.total_replicas`; others refuse it.
    """

    shares_budget: ClassVar[bool] = False

    def supports(self, problem: Problem) -> str:
        """Why this method cannot treat a problem of all layers; of one layer there is nothing to place together."""
        if len(problem.workload.layers) == 1:
            return "places all layers together, the problem has one"
        if problem.total_replicas is not None and not self.shares_budget:
            return f"knows no budget over all layers, total_replicas is {problem.total_replicas}"
        return ""

    @abstractmethod
    def propose(
        self, problem: Problem, trace: Trace, *, clock: Clock, rng: np.random.Generator
    ) -> Iterator[Placement]:
        """Propose placements of all layers, improving by the method's own goal; `trace` is that of the problem."""

    def solve(self, problem: Problem, *, stop: Stop, seed: int, start: Placement | None = None) -> Result:
        """ValueError: there is no single layer to solve; `moeopt.solve` calls `place`."""
        raise ValueError(
            f"method {self.name} places all layers together: call moeopt.solve with the problem of all layers "
            "and its trace"
        )

    def place(
        self, problem: Problem, trace: Trace | None, *, stop: Stop, seed: int, start: Placement | None = None
    ) -> Result:
        """The last proposal that is admissible as a whole, joined from the results of its layers.

        `stop.seconds` is the limit of a layer: all of them together have that times the layers, and each result says
        an equal share of the time spent. `stop.candidates` counts proposals. Where no proposal is admissible, `start`
        is kept, or else the incumbent of the problem. After an interrupt the status is "interrupted", and what was
        found is kept.

        Raises ValueError when the method does not treat the problem, or the trace is not the problem's.
        """
        if reason := refusal(self, problem):
            raise ValueError(f"method {self.name} does not treat this problem: {reason}")
        trace = matching_trace(problem, trace, name=self.name)
        layers = len(problem.workload.layers)
        clock = replace(stop, seconds=None if stop.seconds is None else stop.seconds * layers).start()
        best = _Whole(problem, clock)
        for known in (problem.incumbent, start):
            if known is not None:
                best.offer(known)
        proposals = self.propose(problem, trace, clock=clock, rng=np.random.default_rng(seed))
        status = follow(proposals, best.offer, clock=clock)
        return best.result(self, seed=seed, status=status)


def objection(method: Method, problem: Problem) -> str:
    """Why a method cannot treat `problem`, all of it or layer by layer, as the method works; empty when it can."""
    return refusal(method, problem if isinstance(method, ModelMethod) else problem.layer(0))


def matching_trace(problem: Problem, trace: Trace | None, *, name: str) -> Trace:
    """The trace, if it can be the one that the problem was made from; ValueError, for method `name`, says what differs.

    Layers, experts, top-k, tokens and the load of every expert are compared.
    """
    if not isinstance(trace, Trace):
        found = "none" if trace is None else f"a {type(trace).__name__}"
        raise ValueError(
            f"method {name} places all layers together: it needs the trace that the problem was made from, "
            f"token by token, found {found}"
        )
    workload = problem.workload
    for what, given, wanted in (
        ("layers", tuple(trace.layer_ids.tolist()), workload.layer_ids),
        ("experts", trace.n_experts, workload.n_experts),
        ("top-k", trace.top_k, workload.top_k),
        ("tokens", trace.n_tokens, int(workload.tokens.sum())),
    ):
        if given != wanted:
            raise ValueError(f"trace and problem differ in {what}: {given} and {wanted}")
    for index, (layer, sets) in enumerate(zip(workload.layer_ids, workload.layers, strict=True)):
        load = np.bincount(trace.experts[:, index].ravel(), minlength=trace.n_experts)
        for expert in np.flatnonzero(load != sets.load)[:1]:
            raise ValueError(
                f"the problem was not made from this trace: in layer {layer} expert {expert} has {load[expert]} "
                f"activations in the trace, {sets.load[expert]} in the problem"
            )
    return trace


class _Seat(Incumbent):
    """One layer of one proposal, judged alone: the incumbent of the problem is no rival."""

    def __init__(self, problem: Problem, clock: Clock) -> None:
        super().__init__(problem, clock)
        self.placement = self.cost = None
        self.history.clear()
        self.reason, self._lightest = "", None

    @property
    def lightest(self) -> float | None:
        """The load tolerance that was met, where nothing else was broken."""
        return self._lightest


class _Whole:
    """The last placement of all layers that is admissible in each, judged layer by layer."""

    def __init__(self, problem: Problem, clock: Clock) -> None:
        self.problem, self.clock = problem, clock
        self.layers = [problem.layer(index) for index in range(len(problem.workload.layers))]
        self.kept: list[_Seat] = []
        self.reason = "nothing was proposed"
        self.lightest: float | None = None
        self._histories: list[list[Event]] = [[] for _ in self.layers]

    def offer(self, placement: Placement, /) -> bool:
        """Judge every layer; True when all are admissible, and the placement is kept."""
        if reason := self._total(placement):
            self.reason = reason
            return False
        with silence():
            judged = [_Seat(layer, self.clock) for layer in self.layers]
            refused = [seat for index, seat in enumerate(judged) if not seat.offer(placement.layer(index))]
        if refused:
            self.reason = refused[0].reason
            reached = [seat.lightest for seat in refused if seat.lightest is not None]
            if len(reached) == len(refused):  # nothing but the tolerance was broken
                self.lightest = max(reached) if self.lightest is None else min(self.lightest, max(reached))
            return False
        self.kept = judged
        for seat, history in zip(judged, self._histories, strict=True):
            (layer_id,), now = seat.problem.workload.layer_ids, self.clock.elapsed
            history.append(Event(now, seat.cost, None))
            tell(News(layer_id, now, seat.cost, None))
        return True

    def _total(self, placement: Placement) -> str:
        """The budget over all layers, which no layer's problem knows."""
        total = self.problem.total_replicas
        copies = int(placement.hosts.sum()) - placement.hosts.shape[0] * placement.n_experts
        if total is None or copies <= total:
            return ""
        return f"{copies} replicas over all layers, the budget is {total}"

    def result(self, method: Method, *, seed: int, status: Status) -> Result:
        """The joined result; "none-found" when no proposal was admissible as a whole."""
        share = self.clock.elapsed / len(self.layers)
        parts = []
        for index, layer in enumerate(self.layers):
            with silence():
                seat = self.kept[index] if self.kept else _Seat(layer, self.clock)
            part = seat.result(method, seed=seed, status=status)
            if not self.kept:
                message = f"no admissible placement of all layers found: {self.reason}"
                part = replace(part, message=message, tolerance_reached=self.lightest)
            parts.append(replace(part, seconds=share, history=tuple(self._histories[index])))
        return Result.join(parts)
