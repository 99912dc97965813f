"""A bound for plans with copies: prices of serving members of sets, of activations, and of copies of experts.

Lagrangian of "every member of every token is served somewhere", of the load caps, and of the copies of every expert.
How many copies each expert has is chosen in whole numbers. Some experts are told apart: where such an expert has one
copy only, the GPU that holds it serves all its tokens, touched by each of them and loaded with them. What is left parts
by GPU: the content, its sole copies marked, that is worth most to the tokens at these prices. All contents of a full
GPU are listed, their worths come from tables over small subsets. `relaxations.climbing` finds the prices.
"""

from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.columns import contents
from moeopt.problem import Problem
from moeopt.relaxations.copy_counts import cheapest_counts
from moeopt.stop import Clock

__all__ = ["Listing", "Prices", "Usage", "usage_proof"]

MOST_CONTENTS, MOST_MEMBERS = 1_000_000, 8
MOST_MARKED = 700_000  # contents with marks
MARKED_MEMBERS = 6  # of a set: tables grow as 4^members
ACTIVATIONS = (0.0, 0.03, 0.08, 0.15, 0.25, 0.4, 0.6, 1.0)  # prices tried, in units of a token's mean weight
LARGEST = 1 << 61
DEAREST = 8.0  # price of a member, in units of its demand's weight


@dataclass(frozen=True, eq=False)
class Listing:
    """Marked contents: int16 [contents, slots], and int32 [rows] each: a content and the marks of its experts."""

    contents: NDArray[np.int16]
    rows: NDArray[np.int32]
    marks: NDArray[np.int32]

    def only(self, chosen: NDArray[np.int64]) -> "Listing":
        """Those rows."""
        return Listing(self.contents, self.rows[chosen], self.marks[chosen])


@dataclass(frozen=True, eq=False)
class Prices:
    """members [demands, k]: of serving each; sole, copies [experts]: of an only copy, and of each of any other ones."""

    members: NDArray[Any]
    sole: NDArray[Any]
    copies: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Usage:
    """Demands of a layer, and the contents that GPUs with m slots may have.

    | field | holds |
    |---|---|
    | members | int64 [demands, k]: an expert set, once for each distinct multiplier among its families |
    | tokens, weights | int64 [demands]: its tokens, and what touching one more GPU costs them all |
    | listings | for each distinct number of slots, ascending |
    | gpus | how many GPUs have so many slots |
    | told | bool [experts]: whose only copy is marked |
    | cap | largest load of a GPU; 0 without a load tolerance |
    | further, most | copies beyond the first of each expert, in all, and of one expert at most |
    | spare | whether some slots stay free |
    """

    members: NDArray[np.int64]
    tokens: NDArray[np.int64]
    weights: NDArray[np.int64]
    listings: tuple[Listing, ...]
    gpus: tuple[int, ...]
    told: NDArray[np.bool_]
    cap: int
    further: int
    most: int
    spare: bool

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Of a problem of one layer; ValueError says why it is not treated."""
        (sets,) = problem.workload.layers
        cluster, experts = problem.cluster, sets.n_experts
        if problem.objective != "fan-out" or problem.risk is not None:
            raise ValueError("usage prices bound the mean fan-out")
        if problem.load_tolerance is not None and not isinstance(cluster.speeds, int):
            raise ValueError("usage prices need GPUs of one speed under a load tolerance")
        if sets.top_k > MOST_MEMBERS:
            raise ValueError(f"usage prices treat sets of up to {MOST_MEMBERS}, found {sets.top_k}")
        slots, gpus = np.unique(cluster.slots_of, return_counts=True)
        if (count := max(comb(experts, min(int(m), experts)) for m in slots)) > MOST_CONTENTS:
            raise ValueError(f"{count:,} contents of a GPU, usage prices end at {MOST_CONTENTS:,}")
        groups = [(int(q), problem.multipliers == q) for q in np.unique(problem.multipliers)]
        tokens = np.stack([sets.counts[:, own].sum(axis=1) for _, own in groups], axis=1)
        row, group = np.nonzero(tokens)
        count_of = tokens[row, group]
        price = np.array([q * cluster.further_gpu for q, _ in groups], np.int64)[group]
        members = sets.members[row].astype(np.int64)
        loads = np.zeros(experts, np.int64)
        np.add.at(loads, members, count_of[:, None])
        places = int(np.minimum(cluster.slots_of, experts).sum())
        copies = min(experts + problem.replicas, places)
        every = [contents(experts, [min(int(m), experts)])[0] for m in slots]
        told, listings = _listed(every, loads, problem.load_cap, few=sets.top_k <= MARKED_MEMBERS)
        return cls(
            members,
            count_of,
            count_of * price,
            listings,
            tuple(gpus.tolist()),
            told,
            problem.load_cap or 0,
            copies - experts,
            min(copies - experts, cluster.gpus - 1),
            copies < places,
        )

    @cached_property
    def tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Binomial coefficients, and where the marked subsets of each size begin."""
        experts = len(self.told)
        largest = min(self.members.shape[1], max(part.contents.shape[1] for part in self.listings))
        binomial = [[comb(e, r) for r in range(largest + 2)] for e in range(experts + 1)]
        starts = np.cumsum([0] + [comb(experts, size) << size for size in range(1, largest + 1)])
        return np.array(binomial, np.int64), starts.astype(np.int64)

    @cached_property
    def expert_weights(self) -> NDArray[np.int64]:
        """int64 [experts]: weight of the demands of each, at least 1."""
        total = np.zeros(len(self.told), np.int64)
        np.add.at(total, self.members, self.weights[:, None])
        return np.maximum(total, 1)

    @cached_property
    def levels(self) -> list[float]:
        """Prices of one activation that a GPU may choose from; 0 alone without a load cap."""
        mean = float(self.weights.sum()) / max(int(self.tokens.sum()), 1)
        return [share * mean for share in (ACTIVATIONS if self.cap else ACTIVATIONS[:1])]

    def worth(
        self,
        prices: Prices,
        *,
        weights: NDArray[np.int64],
        levels: list[Any],
        listings: tuple[Listing, ...] | None = None,
    ) -> list[tuple[NDArray[Any], NDArray[np.int8]]]:
        """For each number of slots, (worth, level) [rows]: of each content at its best level, load cap and copies paid.

        `levels` are prices of an activation.
        """
        from moeopt.usage_kernels import gathered, worths

        binomial, starts = self.tables
        of = prices.members.dtype.type
        tables = np.empty((starts[-1], len(levels)), of)
        for column, level in enumerate(levels):
            tables[:, column] = worths(
                self.members,
                self.tokens.astype(of),
                weights.astype(of),
                prices.members,
                of(level),
                self.told,
                binomial,
                starts,
            )
        single = tables[: starts[1]].reshape(-1, 2, len(levels))
        single[:, 0] -= prices.copies[:, None]
        single[:, 1] -= prices.sole[:, None]
        paid = np.array([of(level) * of(self.cap) for level in levels])
        return [
            gathered(part.contents, part.rows, part.marks, tables, paid, binomial, starts)
            for part in (self.listings if listings is None else listings)
        ]

    def count_costs(self, prices: Prices) -> NDArray[Any]:
        """[experts, 1 + most]: what an expert pays that has so many further copies."""
        paid = np.zeros(len(self.told), prices.members.dtype)
        np.add.at(paid, self.members, prices.members)
        costs: NDArray[Any] = paid[:, None] + prices.copies[:, None] * np.arange(
            1, self.most + 2, dtype=paid.dtype
        )
        costs[self.told, 0] = prices.sole[self.told]
        return costs


def _listed(
    every: list[NDArray[np.int16]], loads: NDArray[np.int64], cap: int | None, *, few: bool
) -> tuple[NDArray[np.bool_], tuple[Listing, ...]]:
    """The experts of the greatest load, as many as may be told apart, and the marked contents."""
    from moeopt.usage_kernels import markings

    told, none = np.zeros(len(loads), np.bool_), np.zeros(0, np.int32)
    limit = int(loads.sum()) if cap is None else cap
    counts = [len(part) for part in every]
    for e in np.argsort(-loads, kind="stable").tolist() if few else []:
        told[e] = True
        found = [int(markings(part, told, loads, limit, none, none)) for part in every]
        if sum(found) > MOST_MARKED:
            told[e] = False
            break
        counts = found
    listings = []
    for part, count in zip(every, counts, strict=True):
        rows, marks = np.zeros(count, np.int32), np.zeros(count, np.int32)
        markings(part, told, loads, limit, rows, marks)
        listings.append(Listing(part, rows, marks))
    return told, tuple(listings)


def usage_proof(problem: Problem, *, clock: Clock, seed: int, cost: int | None) -> Proof | None:
    """The best bound that the clock allows, proved, for a layer with copies; None where it does not apply.

    A round counts as a candidate of the clock. The same at every seed. `cost` is that of the placement it goes with.
    """
    from moeopt.relaxations.climbing import climbed

    try:
        usage = Usage.of(problem)
    except ValueError:
        return None
    found = climbed(usage, clock)
    members = np.minimum(found.members, DEAREST) * usage.weights[:, None]
    sole, copies = found.sole * usage.expert_weights, found.copies * usage.expert_weights
    largest = float(members.sum() + np.abs(sole).sum() + np.abs(copies).sum())
    activations = float(usage.tokens.sum()) * members.shape[1]
    largest += 2 * float(usage.weights.sum()) + usage.levels[-1] * activations
    scale = 1  # of sums only the ends have to fit in 64 bits: what wraps around on the way comes back
    while scale < 1 << 16 and 4 * scale * largest < LARGEST:
        scale *= 2
    if 2 * scale * largest >= LARGEST:
        return None
    paid = Prices(*(np.rint(part * scale).astype(np.int64) for part in (members, sole, copies)))
    loads = sorted({int(price * scale) for price in usage.levels})
    worth = usage.worth(paid, weights=usage.weights * scale, levels=loads)
    floors = [int(own.min()) for own, _ in worth]
    total = cheapest_counts(usage.count_costs(paid).tolist(), usage.further)
    total += sum(g * f for g, f in zip(usage.gpus, floors, strict=True)) - scale * int(usage.weights.sum())
    bound = -(-total // scale)
    told = np.flatnonzero(usage.told)
    return Proof(
        layer_id=problem.workload.layer_ids[0],
        digest=problem.workload.digest,
        kind="usage",
        bound=bound,
        cost=cost,
        optimal=cost == bound,
        numbers={
            "scale": scale,
            "prices": paid.members.tolist(),
            "load_prices": loads,
            "told_apart": told.tolist(),
            "sole_prices": paid.sole[told].tolist(),
            "copy_prices": paid.copies.tolist(),
            "floors": floors,
        },
    )
