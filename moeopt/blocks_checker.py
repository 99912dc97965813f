"""Check of block prices and of the closing search. Own costs, own search, nothing shared with the prover."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import comb
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.problem import Problem
from moeopt.recount import cheaper_cover, discounts_of, inside_weight, lexicographic, meeting_weight

LARGEST = 1 << 62
MOST_BLOCKS = 20_000_000
TOO_LARGE = "prices too large to be checked in 64-bit arithmetic"

Listed = tuple[NDArray[np.int16], NDArray[np.int64]]  # blocks of one size, [n, size], and the cost of each


def check_blocks(problem: Problem, proof: Proof) -> str:
    """Empty when prices and search prove the bound.

    Reduced cost r_B = S c_B - sum of prices over B - group price + discounts of the triples of which B holds two or
    more, all r_B >= 0 (and an empty GPU at r_0 = -group price >= 0 when there may be one). At most one block of a
    placement holds two of three experts, so cost >= offset + (dual + sum of r over its GPUs) / S with
    dual = sum of prices + G group price - sum of discounts. Placements with sum of r <= searched are looked at one
    by one for a cost below the bound; all others cost at least offset + (dual + searched + 1) / S.
    """
    if reason := inapplicable(problem):
        return reason
    frame = Frame.of(problem)
    numbers = BlockPrices.read(proof.numbers, experts=frame.experts)
    if reason := frame.refusal(numbers):
        return reason
    if sum(comb(frame.experts, size) for size in frame.sizes) > MOST_BLOCKS:
        return "more blocks than this checker lists"
    near = frame.near(numbers, listed=(_every_block(problem, frame, size) for size in frame.sizes))
    if isinstance(near, str):
        return near
    bound = frame.proved(numbers)
    if bound != proof.bound:
        return f"the numbers prove {bound}, the certificate says {proof.bound}"
    if (
        numbers.searched >= 0
        and frame.offset - (-(numbers.dual + numbers.searched) // numbers.scale) == bound
    ):
        return f"searched {numbers.searched} is more than the bound needs"
    return frame.undercut(numbers, near=near, bound=proof.bound)


@dataclass(frozen=True)
class BlockPrices:
    """The numbers of a proof of kind "blocks", as `check_blocks` explains them."""

    scale: int
    prices: list[int]
    group_price: int
    triples: list[list[int]]
    discounts: list[int]
    dual: int
    searched: int

    @classmethod
    def read(cls, given: Mapping[str, Any], *, experts: int) -> Self:
        """The numbers by name; ValueError unless they are whole numbers of the right count and sign."""
        names = {part.name for part in fields(cls)}
        if set(given) != names:
            raise ValueError(f"expected {sorted(names)}, found {sorted(given)}")
        numbers = cls(**given)
        lists = (numbers.prices, numbers.triples, numbers.discounts)
        if not all(isinstance(part, list) for part in lists) or not all(
            isinstance(triple, list) for triple in numbers.triples
        ):
            raise ValueError("prices, triples and discounts must be lists")
        if len(numbers.prices) != experts or len(numbers.triples) != len(numbers.discounts):
            raise ValueError(f"expected {experts} prices and a discount for each triple")
        scalars = (numbers.scale, numbers.group_price, numbers.dual, numbers.searched)
        for value in (
            *scalars,
            *numbers.prices,
            *numbers.discounts,
            *(e for triple in numbers.triples for e in triple),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"expected whole numbers, found {value!r}")
        for triple in numbers.triples:
            if len(triple) != 3 or not 0 <= triple[0] < triple[1] < triple[2] < experts:
                raise ValueError(f"a triple must be three ascending experts below {experts}, found {triple}")
        if any(discount < 0 for discount in numbers.discounts):
            raise ValueError(f"discounts must not be negative, found {min(numbers.discounts)}")
        if numbers.scale & (numbers.scale - 1):
            raise ValueError(f"scale must be a power of two, found {numbers.scale}")
        if numbers.scale < 1 or not -1 <= numbers.searched < LARGEST:
            raise ValueError(
                f"scale {numbers.scale} must be at least 1, searched {numbers.searched} at least -1"
            )
        return numbers


@dataclass(frozen=True)
class Near:
    """Blocks of a reduced cost within the search: padded with -1, [n, m], reduced costs and costs [n]."""

    blocks: NDArray[Any]
    reduced: NDArray[np.int64]
    costs: NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """What block prices see of a problem of one layer.

    | field | holds |
    |---|---|
    | experts, gpus | E, G |
    | slots | m: the most experts of a block |
    | fewest | the fewest experts of a block that is not empty |
    | unit | cost of a further GPU for a token of weight 1 |
    | weight | no block costs more than unit x weight, either sign |
    | offset | cost of a placement = offset + sum of the cost of its blocks |
    | full | whether no GPU may stay empty |
    """

    experts: int
    gpus: int
    slots: int
    fewest: int
    unit: int
    weight: int
    offset: int
    full: bool

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """The frame of a problem for which `inapplicable` is empty."""
        cluster, experts = problem.cluster, problem.workload.n_experts
        gpus, slots = cluster.gpus, min(int(cluster.slots_of[0]), experts)
        alone = cluster.nodes > 1 and cluster.gpus_per_node == 1
        unit = cluster.gpu_cost + (cluster.node_cost if alone else 0)
        fan_out = problem.objective == "fan-out"
        weight = problem.total_weight if fan_out else problem.pair_weight
        return cls(
            experts=experts,
            gpus=gpus,
            slots=slots,
            fewest=max(1, experts - (gpus - 1) * slots),
            unit=unit,
            weight=weight,
            offset=unit * (-weight if fan_out else weight),
            full=gpus * slots == experts,
        )

    @property
    def sizes(self) -> range:
        """Sizes of the blocks that are not empty."""
        return range(self.fewest, self.slots + 1)

    def refusal(self, numbers: BlockPrices) -> str:
        """Why the numbers cannot be right, whatever the blocks cost; empty when they can."""
        if self.gpus * (numbers.scale + self.peak(numbers)) >= LARGEST:
            return TOO_LARGE
        total = sum(numbers.prices) + self.gpus * numbers.group_price - sum(numbers.discounts)
        if total != numbers.dual:
            return f"the prices sum to {total}, the certificate says {numbers.dual}"
        if not self.full and numbers.group_price > 0:
            return f"the price of a GPU must not be positive where one may stay empty, found {numbers.group_price}"
        return ""

    def peak(self, numbers: BlockPrices) -> int:
        """The prices of a block come to no more than this, either sign."""
        dearest = max(abs(price) for price in numbers.prices)
        return self.slots * dearest + abs(numbers.group_price) + sum(numbers.discounts)

    def proved(self, numbers: BlockPrices) -> int:
        """What the numbers prove, when no reduced cost is negative and nothing within the search costs less."""
        return self.offset - (-(numbers.dual + numbers.searched + 1) // numbers.scale)

    def near(self, numbers: BlockPrices, *, listed: Iterable[Listed]) -> Near | str:
        """The listed blocks within the search; the reason when one has a negative reduced cost."""
        price_of = np.array(numbers.prices, np.int64)
        triples, discounts = np.array(numbers.triples, np.int64), np.array(numbers.discounts, np.int64)
        blocks_near = [np.empty((0, self.slots), np.int64)]
        reduced_near, costs_near = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for blocks, costs in listed:
            dearest = int(np.abs(costs).max(initial=0))
            if self.gpus * (numbers.scale * dearest + self.peak(numbers)) >= LARGEST:
                return TOO_LARGE
            reduced = numbers.scale * costs - numbers.group_price
            if len(triples):
                reduced += discounts_of(blocks, triples, discounts, self.experts)
            for column in blocks.T:
                reduced -= price_of[column]
            if len(blocks) and (least := int(reduced.min())) < 0:
                block = blocks[reduced.argmin()].tolist()
                return f"block {block} has reduced cost {least}, below 0"
            inside = reduced <= numbers.searched
            padded = np.full((int(inside.sum()), self.slots), -1, np.int64)
            padded[:, : blocks.shape[1]] = blocks[inside]
            blocks_near.append(padded)
            reduced_near.append(reduced[inside])
            costs_near.append(costs[inside])
        return Near(*(np.concatenate(part) for part in (blocks_near, reduced_near, costs_near)))

    def undercut(self, numbers: BlockPrices, *, near: Near, bound: int) -> str:
        """The reason when blocks within the search make a placement that costs less than the bound; else empty."""
        if numbers.searched < 0:
            return ""
        empty = 0 if self.full else -numbers.group_price
        limits = (numbers.searched, empty, bound - self.offset)
        if cheaper_cover(
            near.blocks, near.reduced, costs=near.costs, limits=limits, experts=self.experts, gpus=self.gpus
        ):
            return f"a placement cheaper than the bound {bound} exists"
        return ""


def inapplicable(problem: Problem) -> str:
    """Why block prices bound nothing of this problem; empty when they do."""
    cluster = problem.cluster
    if problem.replicas:
        return f"block prices bound placements without replicas, the budget is {problem.replicas}"
    if problem.risk is not None:
        return "block prices bound the mean over families, the problem asks for the worst of them"
    if not cluster.equal:
        return "block prices bound placements on GPUs with equal slots"
    if cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost:
        return f"block prices cannot see nodes, the node cost is {cluster.node_cost}"
    return ""


def _every_block(problem: Problem, frame: Frame, size: int) -> Listed:
    """All blocks of a size within the load cap."""
    (sets,) = problem.workload.layers
    weights = problem.set_weights(sets)
    blocks = lexicographic(frame.experts, size)
    if problem.objective == "fan-out":
        costs = meeting_weight(frame.experts, size, len(blocks), sets.members, weights)
    else:
        costs = -inside_weight(blocks, sets.affinity(weights))
    costs *= frame.unit
    if problem.load_cap is None:
        return blocks, costs
    load = np.zeros(len(blocks), np.int64)
    for column in blocks.T:
        load += sets.load[column]
    allowed = load <= problem.load_cap
    return blocks[allowed], costs[allowed]
