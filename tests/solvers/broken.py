"""Adapters with one fault each, around HiGHS: what the checks of a solver must find. Imported by workers only."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moeopt.solvers.highs import Highs
from moeopt.solvers.protocol import Block, Limits, Model, Outcome, Status, Watch

Floats = NDArray[np.float64]
INF = np.inf


class Honest:
    """No fault: what is stated, asked, begun with, streamed and answered passes through, for others to change."""

    linear = True

    def __init__(self, *, threads: int) -> None:
        self.inner = Highs(threads=threads)
        self.threads = threads

    def state(self, model: Model) -> Model:
        return model

    def ask(self, limits: Limits) -> Limits:
        return limits

    def begin(self, start: Floats | None) -> Floats | None:
        return start

    def listen(self, watch: Watch) -> Watch:
        return watch

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return outcome

    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        outcome = self.inner.solve(
            model=self.state(model),
            start=self.begin(start),
            limits=self.ask(limits),
            watch=self.listen(watch),
        )
        return self.answer(outcome, model)

    def load(self, *, model: Model) -> None:
        self.held = model
        self.inner.load(model=self.state(model))

    def add_columns(self, *, cost: Floats, lower: Floats, upper: Floats, columns: Block) -> None:
        self.inner.add_columns(cost=cost, lower=lower, upper=upper, columns=columns)

    def add_rows(self, *, rows: Block, row_lower: Floats, row_upper: Floats) -> None:
        self.inner.add_rows(rows=rows, row_lower=row_lower, row_upper=row_upper)

    def set_bounds(self, *, lower: Floats, upper: Floats) -> None:
        self.inner.set_bounds(lower=lower, upper=upper)

    def resolve(self, *, limits: Limits, watch: Watch) -> Outcome:
        return self.answer(self.inner.resolve(limits=self.ask(limits), watch=self.listen(watch)), self.held)


# What is stated is another model.


class Worst(Honest):
    """Maximises, and calls that the optimum."""

    def state(self, model: Model) -> Model:
        return replace(model, cost=-model.cost, offset=-model.offset)

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        if outcome.objective is None:
            return outcome
        return replace(outcome, objective=-outcome.objective, bound=-outcome.objective)


class NoOffset(Honest):
    def state(self, model: Model) -> Model:
        return replace(model, offset=0.0)


class RoundedCosts(Honest):
    def state(self, model: Model) -> Model:
        return replace(model, cost=np.round(model.cost))

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        if outcome.x is None:
            return outcome
        value = float(model.cost @ outcome.x + model.offset)
        return replace(outcome, objective=value, bound=value)


class ForgetsLastRow(Honest):
    def state(self, model: Model) -> Model:
        last = np.arange(model.row_lower.size) == model.row_lower.size - 1
        return replace(
            model,
            row_lower=np.where(last, -INF, model.row_lower),
            row_upper=np.where(last, INF, model.row_upper),
        )


class Fractional(Honest):
    def state(self, model: Model) -> Model:
        return replace(model, integer=np.zeros_like(model.integer))


class AllWhole(Honest):
    """Whole numbers everywhere as soon as there are some."""

    def state(self, model: Model) -> Model:
        return replace(model, integer=np.full_like(model.integer, model.integer.any()))


class KeepsIntegers(Honest):
    def state(self, model: Model) -> Model:
        return replace(model, integer=np.ones_like(model.integer))


class EquationsOpen(Honest):
    def state(self, model: Model) -> Model:
        equal = model.row_lower == model.row_upper
        return replace(model, row_lower=np.where(equal, -INF, model.row_lower))


class OneSided(Honest):
    def state(self, model: Model) -> Model:
        both = np.isfinite(model.row_lower) & np.isfinite(model.row_upper)
        return replace(model, row_upper=np.where(both, INF, model.row_upper))


class FreeRowsBind(Honest):
    def state(self, model: Model) -> Model:
        free = np.isinf(model.row_lower) & np.isinf(model.row_upper)
        return replace(model, row_upper=np.where(free, 0.0, model.row_upper))


class NonNegative(Honest):
    def state(self, model: Model) -> Model:
        lower = np.maximum(model.lower, 0.0)
        return replace(model, lower=lower, upper=np.maximum(lower, model.upper))


class Unfixed(Honest):
    def state(self, model: Model) -> Model:
        return replace(model, upper=model.upper + (model.lower == model.upper))


class Binary(Honest):
    def state(self, model: Model) -> Model:
        return replace(model, upper=np.where(model.integer, np.minimum(model.upper, 1.0), model.upper))


class EmptyRowsFail(Honest):
    def state(self, model: Model) -> Model:
        empty = np.diff(model.rows.starts) == 0
        return replace(
            model,
            row_lower=np.where(empty, 1.0, model.row_lower),
            row_upper=np.where(empty, INF, model.row_upper),
        )


class DropsEmptyRows(Honest):
    def state(self, model: Model) -> Model:
        empty = np.diff(model.rows.starts) == 0
        return replace(
            model,
            row_lower=np.where(empty, -INF, model.row_lower),
            row_upper=np.where(empty, INF, model.row_upper),
        )


class Halved(Honest):
    def state(self, model: Model) -> Model:
        return replace(model, rows=replace(model.rows, values=model.rows.values / 2.0))


class Rounded(Honest):
    """Four digits of every entry."""

    def state(self, model: Model) -> Model:
        short = np.array([float(f"{value:.4g}") for value in model.rows.values.tolist()])
        return replace(model, rows=replace(model.rows, values=short))


class ScaledSlack(Honest):
    """A tolerance of 1e-6 measured in the largest entry."""

    def state(self, model: Model) -> Model:
        slack = 1e-6 * float(np.abs(model.rows.values).max(initial=0.0))
        return replace(model, row_lower=model.row_lower - slack, row_upper=model.row_upper + slack)


class DropsSmall(Honest):
    def state(self, model: Model) -> Model:
        kept = np.where(np.abs(model.rows.values) < 1e-9, 0.0, model.rows.values)
        return replace(model, rows=replace(model.rows, values=kept))


class DropsLarge(Honest):
    def state(self, model: Model) -> Model:
        return replace(
            model,
            row_lower=np.where(model.row_lower > 1e20, -INF, model.row_lower),
            upper=np.where(model.upper > 1e20, INF, model.upper),
        )


class ForbidsFirst(Honest):
    """A symmetry that is none: the first two columns stay at their lower bounds."""

    def state(self, model: Model) -> Model:
        upper = model.upper.copy()
        upper[:2] = model.lower[:2]
        return replace(model, upper=upper)


class Refuses(Honest):
    def state(self, model: Model) -> Model:
        if np.isinf(model.upper).any():
            raise ValueError("no")
        return model


# What is claimed is not so.


class NeverInfeasible(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        if outcome.status != Status.INFEASIBLE:
            return outcome
        x = np.zeros(model.cost.size)
        return replace(outcome, status=Status.OPTIMAL, x=x, objective=model.offset, bound=model.offset)


class EndlessIsInfeasible(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        endless = outcome.status in (Status.UNBOUNDED, Status.INFEASIBLE_OR_UNBOUNDED)
        return replace(outcome, status=Status.INFEASIBLE) if endless else outcome


class HighBound(Honest):
    """A little above the optimum, and not so little that it contradicts itself."""

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return outcome if outcome.bound is None else replace(outcome, bound=outcome.bound + 2.0)


class LowBound(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return outcome if outcome.bound is None else replace(outcome, bound=outcome.bound - 2.0)


class Stray(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        if outcome.x is None:
            return outcome
        x = outcome.x + 0.5
        value = float(model.cost @ x + model.offset)
        return replace(outcome, x=x, objective=value, bound=value)


class WrongObjective(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        if outcome.objective is None:
            return outcome
        return replace(outcome, objective=outcome.objective - 1.0, bound=outcome.objective - 1.0)


class Zero(Honest):
    """Calls the zero point its incumbent, whatever the rows say, and always runs out of time."""

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        x = np.zeros(model.cost.size)
        return Outcome(status=Status.TIME_LIMIT, x=x, objective=model.offset)


class NeverOptimal(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return replace(outcome, status=Status.TIME_LIMIT)


class FlippedDuals(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return outcome if outcome.row_duals is None else replace(outcome, row_duals=-outcome.row_duals)


class ZeroDuals(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return outcome if outcome.row_duals is None else replace(outcome, row_duals=outcome.row_duals * 0.0)


class ZeroReduced(Honest):
    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return outcome if outcome.col_duals is None else replace(outcome, col_duals=outcome.col_duals * 0.0)


class Pretender(Honest):
    """Says that it answers no linear models, and answers them."""

    linear = False


class Crowd(Worst):
    """Goes wrong with two threads only."""

    def state(self, model: Model) -> Model:
        return super().state(model) if self.threads == 2 else model

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return super().answer(outcome, model) if self.threads == 2 else outcome


class Fickle(Honest):
    """No two answers alike."""

    calls = 0

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        self.calls += 1
        return replace(outcome, nodes=outcome.nodes + self.calls)


# The held model is not held.


class LosesRows(Honest):
    def add_rows(self, *, rows: Block, row_lower: Floats, row_upper: Floats) -> None:
        self.inner.add_rows(rows=rows, row_lower=row_lower - INF, row_upper=row_upper + INF)


class KeepsBounds(Honest):
    def set_bounds(self, *, lower: Floats, upper: Floats) -> None:
        return None


class LosesColumns(Honest):
    def add_columns(self, *, cost: Floats, lower: Floats, upper: Floats, columns: Block) -> None:
        self.inner.add_columns(cost=cost, lower=lower * 0.0, upper=lower * 0.0, columns=columns)


class SolveReplaces(Honest):
    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        self.load(model=model)
        return super().solve(model=model, start=start, limits=limits, watch=watch)


# Limits, stops, starts and streams go unheard.


class Deaf(Honest):
    """Knows neither time nor cancellation."""

    class Ear:
        def __init__(self, watch: Watch) -> None:
            self.incumbent, self.bound = watch.incumbent, watch.bound

        def stopped(self) -> bool:
            return False

    def ask(self, limits: Limits) -> Limits:
        return replace(limits, deadline=None)

    def listen(self, watch: Watch) -> Watch:
        return self.Ear(watch)


class StickyDeadline(Honest):
    """The first time limit holds for ever."""

    first: float | None = None

    def ask(self, limits: Limits) -> Limits:
        self.first = self.first or limits.deadline
        return replace(limits, deadline=self.first)


class StickyStop(Honest):
    """Once stopped, always stopped."""

    class Ear(Deaf.Ear):
        ever = False

        def __init__(self, watch: Watch) -> None:
            super().__init__(watch)
            self.asked = watch.stopped

        def stopped(self) -> bool:
            StickyStop.Ear.ever = StickyStop.Ear.ever or self.asked()
            return self.ever

    def listen(self, watch: Watch) -> Watch:
        return self.Ear(watch)

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return replace(outcome, status=Status.INTERRUPTED) if self.Ear.ever else outcome


class Signalled(Honest):
    """Ends when somebody presses Ctrl-C."""

    def __init__(self, *, threads: int) -> None:
        super().__init__(threads=threads)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class Silent(Honest):
    class Mouth:
        def __init__(self, watch: Watch) -> None:
            self.stopped = watch.stopped

        def incumbent(self, x: Floats, objective: float) -> None:
            return None

        def bound(self, value: float) -> None:
            return None

    def listen(self, watch: Watch) -> Watch:
        return self.Mouth(watch)


class Boastful(Honest):
    """Streams points and bounds that are better than any."""

    class Mouth:
        def __init__(self, watch: Watch) -> None:
            self.stopped, self.watch = watch.stopped, watch

        def incumbent(self, x: Floats, objective: float) -> None:
            self.watch.incumbent(x + 0.5, objective - 1e6)

        def bound(self, value: float) -> None:
            self.watch.bound(value + 1e6)

    def listen(self, watch: Watch) -> Watch:
        return self.Mouth(watch)


class WideGap(Honest):
    def ask(self, limits: Limits) -> Limits:
        return replace(limits, gap=0.01)

    def answer(self, outcome: Outcome, model: Model) -> Outcome:
        return replace(outcome, bound=outcome.objective)


class ForgetsStart(Honest):
    def begin(self, start: Floats | None) -> Floats | None:
        return None


class RefusesStart(Honest):
    def begin(self, start: Floats | None) -> Floats | None:
        if start is not None:
            raise ValueError("no starts here")
        return None


class TrustsStart(Honest):
    """Takes a start for the optimum."""

    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        if start is None:
            return super().solve(model=model, start=start, limits=limits, watch=watch)
        value = float(model.cost @ start + model.offset)
        return Outcome(status=Status.OPTIMAL, x=start, objective=value, bound=value)


class SeedShy(Honest):
    def ask(self, limits: Limits) -> Limits:
        if limits.seed > 1_000_000:
            raise ValueError("a seed is a small number")
        return limits


class SwallowsOptions(Honest):
    def ask(self, limits: Limits) -> Limits:
        return replace(limits, options={})


class DiesOfRefusal(Honest):
    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        try:
            return super().solve(model=model, start=start, limits=limits, watch=watch)
        except ValueError:
            os.kill(os.getpid(), signal.SIGKILL)
            raise
