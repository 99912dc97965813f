"""Check of prices for several mixtures of the families, which together bound the worst of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.blocks_checker import LARGEST, TOO_LARGE, BlockPrices, Frame, inapplicable
from moeopt.certificate import Proof
from moeopt.families_recount import FOUND, LONG, Closing, Tokens, cover_below, pairs_inside, tokens_meeting
from moeopt.mixtures import Mixed
from moeopt.priced_checker import near_contents
from moeopt.problem import Problem
from moeopt.recount import discounts_of
from moeopt.risk import Risk

MOST_LEFT = 4_000_000
MOST_STEPS = 10**12
AT_ONCE = 1 << 20  # blocks whose costs are held at a time
OUTER = ("group_price", "prices", "scale", "weights")
INNER = ("discounts", "group_price", "prices", "scale", "triples", "weights")


def check_families(problem: Problem, proof: Proof) -> str:
    """Empty when no admissible placement has an objective below the bound.

    Let q be whole weights of a token of each family, and cost_q the cost that they give. The objective is at least
    x cost_q with x = `Risk.multiple(q)`, so below the bound cost_q <= floor((bound - 1) / x). With the reduced costs r
    and the dual of `check_blocks`, at the scale S, the GPUs of such a placement have

        sum of r <= budget = S (floor((bound - 1) / x) - offset) - dual,

    and where no r is negative each of its blocks has r <= budget. The outer set of weights and prices leaves the
    blocks within its budget, each inner set those of them within its own; a negative budget leaves no placement.
    Covers of the experts by what is left are searched for one with an objective below the bound.
    """
    if problem.risk is None:
        return "weights of families bound the worst of them, the problem asks for the mean over all"
    if reason := inapplicable(replace(problem, tail=None)):
        return reason
    if proof.bound < 0:
        return f"weights of families prove bounds of at least 0, found {proof.bound}"
    if proof.bound >= LARGEST:
        return TOO_LARGE
    given = _given(proof)
    priced = [
        _Priced.read(name, own, problem=problem, risk=problem.risk, bound=proof.bound) for name, own in given
    ]
    for own in priced:
        if reason := own.frame.refusal(own.numbers):
            return f"{own.name}: {reason}"
        if own.budget >= LARGEST:
            return f"{own.name}: {TOO_LARGE}"
    for own, later in pairwise(priced):
        if own.budget < 0:
            return f"{later.name} is more than the bound needs: {own.name} has budget {own.budget}"
    left = _left(problem, priced)
    if isinstance(left, str):
        return left
    if priced[-1].budget < 0:
        return ""
    closing = _closing(problem, priced, left=left, risk=problem.risk, bound=proof.bound)
    end, _ = cover_below(closing, MOST_STEPS)
    if end == LONG:
        return f"the search of {len(left.blocks)} blocks takes more than {MOST_STEPS} steps"
    return f"a placement below the bound {proof.bound} exists" if end == FOUND else ""


@dataclass(frozen=True)
class _Priced:
    """One set of weights and its prices.

    `numbers` are those of a proof of kind "blocks" about the mixture, with the budget to search, -1 for a negative one.
    """

    name: str
    mixed: Problem
    frame: Frame
    numbers: BlockPrices
    budget: int

    @classmethod
    def read(cls, name: str, given: Mapping[str, Any], *, problem: Problem, risk: Risk, bound: int) -> Self:
        """ValueError with the name of the set unless its numbers are well formed."""
        try:
            return cls._read(name, given, problem=problem, risk=risk, bound=bound)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    @classmethod
    def _read(cls, name: str, given: Mapping[str, Any], *, problem: Problem, risk: Risk, bound: int) -> Self:
        prices = {key: value for key, value in given.items() if key != "weights"}
        if name == "outer":
            prices |= {"triples": [], "discounts": []}
        experts = problem.workload.n_experts
        numbers = BlockPrices.read({**prices, "dual": 0, "searched": -1}, experts=experts)
        weights = _weights(given["weights"])
        multiple = risk.multiple(weights)
        mixed = Mixed.of(problem, weights)
        frame = Frame.of(mixed)
        dual = sum(numbers.prices) + frame.gpus * numbers.group_price - sum(numbers.discounts)
        budget = numbers.scale * ((bound - 1) // multiple - frame.offset) - dual
        numbers = replace(numbers, dual=dual, searched=max(budget, -1))
        return cls(name, mixed, frame, numbers, budget)

    def reduced(self, blocks: NDArray[np.int16], costs: NDArray[np.int64]) -> NDArray[np.int64] | str:
        """int64 [n]: reduced costs of blocks of one size, given what each costs; the reason when one is negative."""
        numbers, frame = self.numbers, self.frame
        dearest = int(np.abs(costs).max(initial=0))
        if frame.gpus * (numbers.scale * dearest + frame.peak(numbers)) >= LARGEST:
            return f"{self.name}: {TOO_LARGE}"
        reduced = numbers.scale * costs - numbers.group_price
        if numbers.triples:
            triples, discounts = np.array(numbers.triples, np.int64), np.array(numbers.discounts, np.int64)
            reduced += discounts_of(blocks, triples, discounts, frame.experts)
        price_of = np.array(numbers.prices, np.int64)
        for column in blocks.T:
            reduced -= price_of[column]
        if len(blocks) and (least := int(reduced.min())) < 0:
            return f"{self.name}: block {blocks[reduced.argmin()].tolist()} has reduced cost {least}, below 0"
        return reduced


@dataclass(frozen=True)
class _Left:
    """Blocks padded with -1 [n, m], what each costs every family [n, families], its reduced costs [n, sets]."""

    blocks: NDArray[np.int64]
    costs: NDArray[np.int64]
    reduced: NDArray[np.int64]


def _left(problem: Problem, priced: Sequence[_Priced]) -> _Left | str:
    """The blocks within every budget; the reason when a reduced cost is negative or the blocks are too many."""
    outer = priced[0]
    listed = near_contents(outer.mixed, outer.numbers)
    if isinstance(listed, str):
        return f"outer: {listed}"
    slots, families = outer.frame.slots, len(problem.workload.families)
    parts = [
        _Left(np.empty((0, slots), np.int64), *(np.empty((0, n), np.int64) for n in (families, len(priced))))
    ]
    held = 0
    for blocks, costs in _costed(problem, (blocks for blocks, _ in listed)):
        within = _within(blocks, costs, priced)
        if isinstance(within, str):
            return within
        kept, reduced = within
        held += len(kept)
        if held > MOST_LEFT:
            return f"more than {MOST_LEFT} blocks are within every budget"
        padded = np.full((len(kept), slots), -1, np.int64)
        padded[:, : blocks.shape[1]] = blocks[kept]
        parts.append(_Left(padded, costs[kept], reduced))
    return _Left(
        np.concatenate([part.blocks for part in parts]),
        np.concatenate([part.costs for part in parts]),
        np.concatenate([part.reduced for part in parts]),
    )


def _costed(
    problem: Problem, listed: Iterator[NDArray[np.int16]]
) -> Iterator[tuple[NDArray[np.int16], NDArray[np.int64]]]:
    """Blocks of one size, in parts, with what each costs every family: int64 [n, families]."""
    (sets,) = problem.workload.layers
    families, unit = len(problem.workload.families), problem.cluster.further_gpu
    fan_out = problem.objective == "fan-out"
    if fan_out:
        tokens = Tokens.of(sets)
    else:
        together = np.stack([sets.affinity(counts) for counts in sets.counts.T], axis=2)
    for blocks in listed:
        ordered = blocks[np.lexsort(blocks.T[::-1])]
        for start in range(0, len(ordered), AT_ONCE):
            part = ordered[start : start + AT_ONCE]
            if fan_out:
                yield part, unit * tokens_meeting(part, tokens, families)
            else:
                yield part, -unit * pairs_inside(part, together)


def _within(
    blocks: NDArray[np.int16], costs: NDArray[np.int64], priced: Sequence[_Priced]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | str:
    """(positions of the blocks within every budget, their reduced costs [n, sets]), one set after the other."""
    kept = np.arange(len(blocks))
    columns: list[NDArray[np.int64]] = []
    for own in priced:
        reduced = own.reduced(blocks[kept], costs[kept] @ own.mixed.multipliers)
        if isinstance(reduced, str):
            return reduced
        inside = reduced <= own.budget
        kept = kept[inside]
        columns = [column[inside] for column in (*columns, reduced)]
    return kept, np.stack(columns, axis=1)


def _closing(problem: Problem, priced: Sequence[_Priced], *, left: _Left, risk: Risk, bound: int) -> Closing:
    """What the search reads."""
    (sets,) = problem.workload.layers
    fan_out, unit = problem.objective == "fan-out", problem.cluster.further_gpu
    return Closing(
        left.blocks,
        left.reduced,
        np.array([own.budget for own in priced], np.int64),
        left.costs,
        unit * (-sets.counts.sum(axis=0) if fan_out else sets.coactivations),
        np.array(risk.units, np.int64),
        np.array(risk.masses, np.int64),
        risk.total,
        sets.n_experts,
        problem.cluster.gpus,
        bound,
    )


def _given(proof: Proof) -> list[tuple[str, Mapping[str, Any]]]:
    """The sets of weights and prices by name, the outer one first; ValueError unless they have the right fields."""
    numbers = proof.numbers
    if set(numbers) != {"inner", "outer"}:
        raise ValueError(f"expected ['inner', 'outer'], found {sorted(numbers)}")
    if not isinstance(numbers["inner"], list):
        raise ValueError(f"inner must be a list, found {numbers['inner']!r:.60}")
    given = [
        ("outer", numbers["outer"]),
        *((f"inner set {index}", own) for index, own in enumerate(numbers["inner"])),
    ]
    for name, own in given:
        names = OUTER if name == "outer" else INNER
        if not isinstance(own, dict):
            raise ValueError(f"{name} must be an object, found {own!r:.60}")
        if set(own) != set(names):
            raise ValueError(f"{name}: expected {list(names)}, found {sorted(own)}")
    return given


def _weights(given: object) -> list[int]:
    """ValueError unless these are whole numbers that fit 64 bits; whether they weigh the families, `Risk` says."""
    if not isinstance(given, list):
        raise ValueError(f"weights must be a list, found {given!r:.60}")
    for weight in given:
        if isinstance(weight, bool) or not isinstance(weight, int):
            raise ValueError(f"expected whole numbers, found {weight!r:.60}")
        if weight >= LARGEST:
            raise ValueError(f"a weight must be below {LARGEST}, found {weight!r:.60}")
    return given
