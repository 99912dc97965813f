"""Check of block prices and of the closing search. Own costs, own search, nothing shared with the prover."""

from dataclasses import dataclass, fields
from math import comb

import numpy as np

from moeopt.certificate import Proof
from moeopt.problem import Problem
from moeopt.recount import cheaper_cover, discounts_of, inside_weight, lexicographic, meeting_weight

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
        blocks = lexicographic(experts, size)
        costs = (
            meeting_weight(experts, size, len(blocks), sets.members, weights)
            if fan_out
            else -inside_weight(blocks, sets.affinity(weights))
        )
        costs *= unit
        left = scale * costs - group
        if len(triples):
            left += discounts_of(blocks, triples, discounts, experts)
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
    if searched >= 0 and offset - (-(dual + searched) // scale) == bound:
        return f"searched {searched} is more than the bound needs"
    if searched < 0:
        return ""
    empty = 0 if full else -group
    blocks, left, costs = (np.concatenate(part) for part in (near, reduced, near_costs))
    if cheaper_cover(
        blocks, left, costs=costs, limits=(searched, empty, proof.bound - offset), experts=experts, gpus=gpus
    ):
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
    if problem.risk is not None:
        return "block prices bound the mean over families, the problem asks for the worst of them"
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
    if numbers.scale & (numbers.scale - 1):
        raise ValueError(f"scale must be a power of two, found {numbers.scale}")
    if numbers.scale < 1 or not -1 <= numbers.searched < LARGEST:
        raise ValueError(f"scale {numbers.scale} must be at least 1, searched {numbers.searched} at least -1")
    return numbers
