"""Check of block prices and of the closing search. Own costs, own search, nothing shared with the prover."""

from dataclasses import dataclass, fields
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.problem import Problem

LARGEST = 1 << 62
MOST_BLOCKS = 20_000_000


def check_blocks(problem: Problem, proof: Proof) -> str:
    """Empty when prices and search prove the bound.

    Reduced cost r_B = S c_B - sum of prices over B - group price + discounts of the triples of which B holds two or
    more, all r_B >= 0 (and an empty GPU at r_0 = -group price >= 0 when there may be one). At most one block of a
    placement holds two of three experts, so cost >= offset + (dual + sum of r over its GPUs) / S with
    dual = sum of prices + G group price - sum of discounts. Placements with sum of r <= searched are looked at one
    by one for a cost below the bound; all others cost at least offset + (dual + searched + 1) / S.
    """
    if reason := _inapplicable(problem):
        return reason
    numbers = _numbers(proof, problem.workload.n_experts)
    scale, group, dual, searched = numbers.scale, numbers.group_price, numbers.dual, numbers.searched
    (sets,) = problem.workload.layers
    cluster, experts = problem.cluster, problem.workload.n_experts
    gpus, slots = cluster.gpus, min(int(cluster.slots_of[0]), experts)
    unit = cluster.gpu_cost + (cluster.node_cost if cluster.nodes > 1 and cluster.gpus_per_node == 1 else 0)
    weights = problem.set_weights(sets)
    fan_out = problem.objective == "fan-out"
    pairs = problem.total_weight * comb(sets.top_k, 2)
    offset = unit * (-problem.total_weight if fan_out else pairs)
    peak = max(abs(price) for price in numbers.prices)
    parts = slots * peak + abs(group) + sum(numbers.discounts)
    if gpus * (scale + parts) >= LARGEST:
        return "prices too large to be checked in 64-bit arithmetic"
    if (total := sum(numbers.prices) + gpus * group - sum(numbers.discounts)) != dual:
        return f"the prices sum to {total}, the certificate says {dual}"
    full = gpus * slots == experts
    if not full and group > 0:
        return f"the price of a GPU must not be positive where one may stay empty, found {group}"
    fewest = max(1, experts - (gpus - 1) * slots)
    if sum(comb(experts, size) for size in range(fewest, slots + 1)) > MOST_BLOCKS:
        return "more blocks than this checker lists"
    price_of = np.array(numbers.prices, np.int64)
    triples, discounts = np.array(numbers.triples, np.int64), np.array(numbers.discounts, np.int64)
    near, reduced, near_costs = [], [], []
    for size in range(fewest, slots + 1):
        blocks = _lexicographic(experts, size)
        costs = (
            _meeting(experts, size, len(blocks), sets.members, weights)
            if fan_out
            else -_inside(blocks, sets.affinity(weights))
        )
        costs *= unit
        left = scale * costs - group
        if len(triples):
            left += _discounts_of(blocks, triples, discounts, experts)
        load = np.zeros(len(blocks), np.int64)
        for column in blocks.T:
            left -= price_of[column]
            load += sets.load[column]
        allowed = np.ones(len(blocks), bool) if problem.load_cap is None else load <= problem.load_cap
        if gpus * (scale * int(np.abs(costs[allowed]).max(initial=0)) + parts) >= LARGEST:
            return "prices too large to be checked in 64-bit arithmetic"
        if allowed.any() and (least := int(left[allowed].min())) < 0:
            block = blocks[allowed][left[allowed].argmin()].tolist()
            return f"block {block} has reduced cost {least}, below 0"
        inside = allowed & (left <= searched)
        padded = np.full((int(inside.sum()), slots), -1, np.int64)
        padded[:, :size] = blocks[inside]
        near.append(padded)
        reduced.append(left[inside])
        near_costs.append(costs[inside])
    bound = offset - (-(dual + searched + 1) // scale)
    if bound != proof.bound:
        return f"the numbers prove {bound}, the certificate says {proof.bound}"
    if searched < 0:
        return ""
    empty = 0 if full else -group
    blocks, left, costs = (np.concatenate(part) for part in (near, reduced, near_costs))
    if _cover_within(blocks, left, costs, (searched, empty, proof.bound - offset), experts, gpus):
        return f"a placement cheaper than the bound {proof.bound} exists"
    return ""


@dataclass(frozen=True)
class _Numbers:
    scale: int
    prices: list[int]
    group_price: int
    triples: list[list[int]]
    discounts: list[int]
    dual: int
    searched: int


def _inapplicable(problem: Problem) -> str:
    cluster = problem.cluster
    if problem.replicas:
        return f"block prices bound placements without replicas, the budget is {problem.replicas}"
    if not cluster.equal:
        return "block prices bound placements on GPUs with equal slots"
    if cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost:
        return f"block prices cannot see nodes, the node cost is {cluster.node_cost}"
    return ""


def _numbers(proof: Proof, experts: int) -> _Numbers:
    """The numbers of the proof; ValueError unless they are whole numbers of the right count and sign."""
    names = {part.name for part in fields(_Numbers)}
    if set(proof.numbers) != names:
        raise ValueError(f"expected {sorted(names)}, found {sorted(proof.numbers)}")
    numbers = _Numbers(**proof.numbers)
    lists = (numbers.prices, numbers.triples, numbers.discounts)
    if not all(isinstance(part, list) for part in (*lists, *numbers.triples)):
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
    if numbers.scale < 1 or not -1 <= numbers.searched < LARGEST:
        raise ValueError(f"scale {numbers.scale} must be at least 1, searched {numbers.searched} at least -1")
    return numbers


@njit(cache=True)  # type: ignore[untyped-decorator]
def _discounts_of(
    blocks: NDArray[np.int16], triples: NDArray[np.int64], discounts: NDArray[np.int64], experts: int
) -> Any:
    """int64 [blocks]: by the pairs inside a block; a triple that lies inside whole counts at its first pair only."""
    start = np.zeros(experts * experts + 1, np.int64)
    for t in range(len(triples)):
        for a in range(3):
            for b in range(a + 1, 3):
                start[triples[t, a] * experts + triples[t, b] + 1] += 1
    start = np.cumsum(start)
    fill = start.copy()
    third = np.empty(3 * len(triples), np.int64)
    amount = np.empty(3 * len(triples), np.int64)
    for t in range(len(triples)):
        for a in range(3):
            for b in range(a + 1, 3):
                pair = triples[t, a] * experts + triples[t, b]
                third[fill[pair]] = triples[t, 3 - a - b]
                amount[fill[pair]] = discounts[t]
                fill[pair] += 1
    total = np.zeros(len(blocks), np.int64)
    for row in range(len(blocks)):
        block = blocks[row]
        for a in range(len(block)):
            for b in range(a + 1, len(block)):
                pair = block[a] * experts + block[b]
                for entry in range(start[pair], start[pair + 1]):
                    whole = False
                    for c in range(len(block)):
                        whole = whole or block[c] == third[entry]
                    if not whole or third[entry] > block[b]:
                        total[row] += amount[entry]
    return total


def _inside(blocks: NDArray[np.int16], affinity: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [blocks]: co-activation between members."""
    total = np.zeros(len(blocks), np.int64)
    for i, j in combinations(range(blocks.shape[1]), 2):
        total += affinity[blocks[:, i], blocks[:, j]]
    return total


def _lexicographic(experts: int, size: int) -> NDArray[np.int16]:
    """int16 [C(E, size), size]: all subsets in lexicographic order."""
    return np.asarray(_list_subsets(experts, size, comb(experts, size)))


@njit(cache=True)  # type: ignore[untyped-decorator]
def _list_subsets(experts: int, size: int, count: int) -> Any:
    subsets = np.empty((count, size), np.int16)
    current = np.arange(size)
    for row in range(count):
        subsets[row] = current
        place = size - 1
        while place >= 0 and current[place] == experts - size + place:
            place -= 1
        if place >= 0:
            current[place] += 1
            for later in range(place + 1, size):
                current[later] = current[later - 1] + 1
    return subsets


@njit(cache=True)  # type: ignore[untyped-decorator]
def _meeting(
    experts: int, size: int, count: int, members: NDArray[np.int32], weights: NDArray[np.int64]
) -> Any:
    """int64 [count]: weight of the sets that meet each subset, in lexicographic order.

    All but the last two members are fixed in turn; the sets that avoid them are tallied by pair, and the last two add
    the sets with either one: tally[e, e] + tally[f, f] - tally[e, f].
    """
    costs = np.empty(count, np.int64)
    depth = max(size - 2, 0)
    avoiding = np.empty((depth + 1, len(members)), np.int64)
    number = np.zeros(depth + 1, np.int64)
    met = np.zeros(depth + 1, np.int64)
    avoiding[0] = np.arange(len(members))
    number[0] = len(members)
    prefix = np.full(depth + 1, -1, np.int64)
    tally = np.zeros((experts, experts), np.int64)
    row = 0
    level = 0
    while level >= 0:
        if level < depth:
            prefix[level] += 1
            e = prefix[level]
            if e > experts - size + level:
                level -= 1
                continue
            met[level + 1] = met[level]
            kept = 0
            for i in range(number[level]):
                s = avoiding[level, i]
                holds = False
                for j in range(members.shape[1]):
                    holds = holds or members[s, j] == e
                if holds:
                    met[level + 1] += weights[s]
                else:
                    avoiding[level + 1, kept] = s
                    kept += 1
            number[level + 1] = kept
            prefix[level + 1] = e
            level += 1
            continue
        first = prefix[depth - 1] + 1 if depth > 0 else 0
        tally[first:, first:] = 0
        for i in range(number[level]):
            s = avoiding[level, i]
            for a in range(members.shape[1] - 1, -1, -1):
                if members[s, a] < first:  # members ascend
                    break
                for b in range(a, members.shape[1]):
                    tally[members[s, a], members[s, b]] += weights[s]
        for e in range(first, experts):
            if size == 1:
                costs[row] = tally[e, e]
                row += 1
                continue
            for f in range(e + 1, experts):
                costs[row] = met[level] + tally[e, e] + tally[f, f] - tally[e, f]
                row += 1
        level -= 1
    return costs


def _cover_within(
    blocks: NDArray[np.int16],
    reduced: NDArray[np.int64],
    costs: NDArray[np.int64],
    limits: tuple[int, int, int],
    experts: int,
    gpus: int,
) -> bool:
    """Whether at most `gpus` disjoint blocks cover all experts within limits = (budget, empty, bound): total reduced
    cost, empty GPUs at `empty` each, at most `budget`, and total cost below `bound`."""
    budget, empty, bound = limits
    if not len(blocks):
        return False
    order = np.argsort(reduced, kind="stable")
    covered = np.zeros(experts, np.bool_)
    blocks, reduced, costs = blocks[order], reduced[order], costs[order]
    found = _extend(blocks, reduced, costs, np.arange(len(order)), covered, budget, empty, bound, gpus)
    return bool(found)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _extend(
    blocks: NDArray[np.int64],
    reduced: NDArray[np.int64],
    costs: NDArray[np.int64],
    open_blocks: NDArray[np.int64],
    covered: NDArray[np.bool_],
    budget: int,
    empty: int,
    bound: int,
    gpus: int,
) -> bool:
    """Recursive: `open_blocks` are those disjoint from `covered`; budget, bound and gpus are what is left."""
    missing = (~covered).sum()
    if missing == 0:
        return gpus * empty <= budget and bound > 0
    if missing > gpus * blocks.shape[1]:
        return False
    options = np.zeros(len(covered), np.int64)
    cheapest = np.full(len(covered), LARGEST)
    for block in open_blocks:
        size = (blocks[block] >= 0).sum()
        for e in blocks[block, :size]:
            options[e] += 1
            cheapest[e] = min(cheapest[e], reduced[block] // size)
    least, branch = 0, -1
    for e in range(len(covered)):
        if not covered[e]:
            if options[e] == 0:
                return False
            least += cheapest[e]
            if branch < 0 or options[e] < options[branch]:
                branch = e
    if least > budget:
        return False
    useful = np.empty(len(open_blocks), np.int64)
    count = 0
    for block in open_blocks:
        rest = least + reduced[block]
        for e in blocks[block]:
            if e >= 0:
                rest -= cheapest[e]
        if rest <= budget:
            useful[count] = block
            count += 1
    useful = useful[:count]
    for block in useful:
        holds = False
        for e in blocks[block]:
            holds = holds or e == branch
        if not holds or reduced[block] > budget:
            continue
        taken = covered.copy()
        for e in blocks[block]:
            if e >= 0:
                taken[e] = True
        disjoint = np.empty(count, np.int64)
        left = 0
        for other in useful:
            clash = reduced[other] > budget - reduced[block]
            for e in blocks[other]:
                clash = clash or (e >= 0 and taken[e])
            if not clash:
                disjoint[left] = other
                left += 1
        rest = budget - reduced[block]
        if _extend(
            blocks, reduced, costs, disjoint[:left], taken, rest, empty, bound - costs[block], gpus - 1
        ):
            return True
    return False
