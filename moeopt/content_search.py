"""Replicas on a few GPUs, proved by listing: every placement that may cost less than a ceiling, none left out.

A set touches every GPU that alone holds one of its experts, and the last two GPUs part the experts that no other holds:
bounds of that kind leave few placements, which are costed exactly. Under a load tolerance prices of the GPUs'
activations, Lagrange multipliers of the cap, show what each of them costs at least; they are the proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moeopt.content_listing import Listing, unsearchable
from moeopt.content_prices import ContentPrices
from moeopt.dispatching import cap_prices, cheapest_plan
from moeopt.formulation import Proven, Tabulated
from moeopt.problem import Problem
from moeopt.stop import Clock

if TYPE_CHECKING:
    from moeopt.judged import Best
    from moeopt.solvers.door import Session

__all__ = ["passes", "unsearchable"]

KIND = "contents"
SHARES = (0.9, 0.95, 0.975, 1.0)  # of the incumbent's cost: ceilings, so that an interrupted run has a bound
SLICE = 20_000_000  # contents looked at between two looks at the clock: a fraction of a second
PATIENCE = 2.0  # seconds of searching before the relaxation is solved
STEPS = 60  # of the prices of one placement
AT_A_TIME = 1_000  # placements handed over
MOST_LEAVES = 200_000  # in a proof


@dataclass(frozen=True)
class _Leaf:
    """A placement that the load cap makes dear: masks and prices [gpus], shown / scale at least, covers at least."""

    held: NDArray[np.int64]
    price: NDArray[np.int64]
    shown: int
    covers: int

    def bound(self, scale: int) -> int:
        return max(self.covers, -(-self.shown // scale))


def passes(
    formulation: Tabulated, problem: Problem, *, best: Best, clock: Clock, session: Session
) -> Iterator[Proven]:
    """Search below rising ceilings; after each complete pass what it proves. The last one proves the optimum, but where
    prices alone do not show what the dispatch of a placement costs.

    Once the passes take long, the relaxation of the formulation is solved: its reduced costs leave fewer contents.

    `session` solves the dispatch of placements whose cost prices leave open.
    """
    listing = Listing.of(problem)
    begun, priced = clock.elapsed, False
    most = (problem.cluster.gpus - 1) * int(listing.inside[-1]) + 1
    for share in SHARES:
        ceiling = most if best.cost is None else min(best.cost, int(best.cost * share) + 1)
        if not len(listing.masks):
            yield Proven(KIND, None, {}, impossible=best.cost is None)
            return
        one = _Pass(listing, best, clock, session, ceiling)
        if not one.finished():
            return
        bound = min([one.ceiling, *(leaf.bound(listing.scale) for leaf in one.leaves)])
        leaves = [leaf for leaf in one.leaves if leaf.covers < bound]
        if best.cost is None:
            yield Proven(KIND, None, {}, nodes=one.nodes, impossible=not one.leaves)
            return
        rows = [[*listing.named(leaf.held), *leaf.price.tolist()] for leaf in leaves]
        numbers = {
            "scale": listing.scale,
            "leaves": rows,
            "shown": sum(leaf.shown for leaf in leaves),
        }
        yield Proven(KIND, bound, numbers, nodes=one.nodes)
        if bound >= best.cost or ceiling == best.cost:
            return
        if not priced and clock.elapsed - begun > PATIENCE and not clock.expired:
            priced = True
            prices = ContentPrices.of(formulation, problem, session=session, seconds=clock.left)
            listing = listing if prices is None else Listing.of(problem, prices)


class _Pass:
    """One search below a ceiling, which answers found lower."""

    def __init__(self, listing: Listing, best: Best, clock: Clock, session: Session, ceiling: int) -> None:
        self.listing, self.best, self.clock, self.session = listing, best, clock, session
        self.leaves: list[_Leaf] = []
        self._state = np.array([0, 1, ceiling, 0, 0, 0], np.int64)

    @property
    def ceiling(self) -> int:
        return int(self._state[2])

    @property
    def nodes(self) -> int:
        return int(self._state[3])

    def finished(self) -> bool:
        """Whether the search came to its end before the clock did."""
        from moeopt.content_kernels import DONE, descend

        listing, gpus = self.listing, self.listing.problem.cluster.gpus
        stack, held = np.zeros((gpus, 8), np.int64), np.zeros(gpus, np.int64)
        stored = np.zeros(len(listing.masks), np.int64)
        arena = np.zeros((gpus, len(listing.masks)), np.int32)
        found = np.zeros((AT_A_TIME, 2 * gpus + 2), np.int64)
        copies = listing.problem.workload.n_experts + listing.problem.replicas
        while True:
            before = self.ceiling
            ending = descend(
                self._state,
                stack,
                held,
                found,
                len(listing.heaviest),
                listing.masks,
                listing.reduced,
                listing.reduced_scale,
                listing.base,
                listing.starts,
                listing.order,
                listing.number,
                arena,
                stored,
                listing.inside,
                listing.loads,
                listing.touch,
                listing.split,
                listing.members,
                listing.asked.tokens,
                listing.asked.weights,
                copies,
                listing.cap,
                listing.scale,
                STEPS,
                listing.highest,
                SLICE,
            )
            if self.ceiling < before:
                self._offer(held, cost=self.ceiling)
            for row in found[: self._state[4]]:
                if self.clock.expired:
                    return False
                self._judge(_Leaf(row[:gpus].copy(), row[gpus : 2 * gpus].copy(), int(row[-2]), int(row[-1])))
            self._state[4] = 0
            if ending == DONE:
                return True
            if self.clock.expired or len(self.leaves) > MOST_LEAVES:
                return False

    def _offer(self, held: NDArray[np.int64], *, cost: int) -> None:
        self.clock.candidates += 1
        self.best.offer(self.listing.placement(held))
        if self.best.cost is None or self.best.cost > cost:
            raise RuntimeError(f"a placement of cost {cost} was refused: {self.best.reason}")

    def _judge(self, leaf: _Leaf) -> None:
        """Find the dispatch of a placement whose prices do not show that it is too dear."""
        if leaf.bound(self.listing.scale) < self.ceiling:
            leaf = self._settled(leaf)
        self._state[2] = self._least()
        self.leaves.append(leaf)

    def _settled(self, leaf: _Leaf) -> _Leaf:
        """With better prices, or with its cheapest dispatch offered, or both."""
        listing, best = self.listing, self.best
        placement = listing.placement(leaf.held)
        self.clock.candidates += 1
        best.offer(placement)
        if leaf.bound(listing.scale) < self._least():
            try:
                prices = cap_prices(listing.problem, placement, session=self.session)
                if prices is not None:
                    whole = np.minimum(np.rint(prices * listing.scale), listing.highest).astype(np.int64)
                    leaf = self._raised(leaf, whole, steps=1)
                if leaf.bound(listing.scale) < self._least():
                    plan = cheapest_plan(listing.problem, placement, session=self.session)
                    if plan is not None:
                        best.offer(plan)
            except ValueError:  # too many assignments to list
                return leaf
        return leaf

    def _least(self) -> int:
        """Placements that cost less than this are still looked for."""
        return self.ceiling if self.best.cost is None else min(self.ceiling, self.best.cost)

    def _raised(self, leaf: _Leaf, price: NDArray[np.int64], *, steps: int) -> _Leaf:
        """The leaf with prices from `price` on, where these show more."""
        from moeopt.dispatch_prices import raised

        listing, better = self.listing, price.copy()
        shown = raised(
            leaf.held,
            better,
            listing.members,
            listing.asked.tokens,
            listing.asked.weights,
            listing.scale,
            listing.cap,
            self._least(),
            steps,
            listing.highest,
        )
        return _Leaf(leaf.held, better, int(shown), leaf.covers) if shown > leaf.shown else leaf
