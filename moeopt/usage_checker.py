"""Check of prices of service, which bound plans with copies: every content a GPU can have is looked at.

A demand d is the n_d tokens of one expert set whose families have one multiplier q_d. X[d][i] is the price of serving
member i of all of them, in units of 1 / scale. Let S = scale, u the cost of a further GPU for a token of weight 1,
W = sum_d n_d q_d, and A the part of a token's set that a GPU serves, empty or not:

    S x cost + S u W = sum over tokens, GPUs of S u q [A not empty]                      (counting GPUs touched)
                     = sum of X + sum over tokens, GPUs of (S u q [A not empty] - sum over A of X[d][i] / n_d),

as every member of every token is served once. A GPU serves at most `cap` activations, so its own terms are at least
themselves with K (activations served - cap) added, for any K >= 0.

Some experts e are told apart. Where such an expert has one copy only, that copy is marked: it serves all tokens of e,
at no price X. To the cost is added s_e (1 - marked copies of e) where e has one copy and is told apart, and
t_e (c_e - copies of e not marked) where not, c_e being its copies: nothing. Of what is left, the best A within the
content B of a GPU with the marked experts F holds F's members of the token, and, if it holds anything, all other
members i in B with X[d][i] > K n_d. So with paid_d = sum over members i in B - F of max(0, X[d][i] - K n_d), a GPU
contributes at least Phi(B, F) = max over K of

    sum_d (S u n_d q_d + K n_d |F & d| - paid_d if F & d, else min(0, S u n_d q_d - paid_d))
    - K cap - sum over F of s_e - sum over B - F of t_e,

and F has a load of `cap` at most. An expert with c copies pays h_e(c) = s_e if c = 1 and e is told apart, and
c t_e + its sum of X if not. So S x cost >= min over c of sum_e h_e(c_e) - S u W + sum over GPUs of the least Phi(B, F).

Copies that serve nothing are allowed: of the plans of least cost some have N = min(E + R, sum over GPUs of min(m, E))
copies, so c_e >= 1 sum to N, and c_e <= GPUs. If that fills all slots, contents have min(m, E) experts. If not, t >= 0
is asked for: Phi then falls as B - F grows, and contents of min(m, E) experts are enough. Moves and the price of nodes
with several GPUs can only add to the cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.problem import Problem
from moeopt.usage_recount import least_share

__all__ = ["check_usage"]

LARGEST = 1 << 61  # of every sum; three of them fit in 64 bits
MOST_CONTENTS = 3_000_000
MOST_LOAD_PRICES = 64
TOO_LARGE = "too large to be checked in 64-bit arithmetic"


def check_usage(problem: Problem, proof: Proof) -> str:
    """Why a proof of kind "usage" does not hold for the problem; empty when it does.

    numbers: `scale`, a power of two; `prices`, a row of k for each demand, by set in the order of the workload, then by
    multiplier; `load_prices` K, ascending from 0, only 0 without a load tolerance; `told_apart`, ascending experts;
    `sole_prices` s, one for each of them; `copy_prices` t, one for each expert; `floors`, for each number of slots,
    ascending, one that Phi(B, F) is not below. Bound = ceil((least sum of h - S u W + sum over GPUs of floor) / S).
    """
    if reason := _inapplicable(problem):
        return f"usage proof: {reason}"
    try:
        if isinstance(proof.bound, bool) or not isinstance(proof.bound, int):
            raise ValueError(f"the bound must be a whole number, found {proof.bound!r:.40}")
        demands = _Demands.of(problem)
        numbers = _numbers(proof.numbers, problem, demands)
        for size, floor in zip(_sizes(problem), numbers.floors, strict=True):
            least, content, sole = _least(problem, numbers, demands=demands, size=size)
            if least < floor:
                marks = f", alone {sole}," if sole else ""
                raise ValueError(
                    f"a GPU that holds {content}{marks} contributes {least}, below the floor {floor}"
                )
    except ValueError as error:
        return f"usage proof: {error}"
    bound = _proved(problem, numbers, demands)
    if bound != proof.bound:
        return f"usage proof: the numbers prove {bound}, the certificate says {proof.bound}"
    return ""


@dataclass(frozen=True)
class _Numbers:
    scale: int
    prices: list[list[int]]
    load_prices: list[int]
    told_apart: list[int]
    sole_prices: list[int]
    copy_prices: list[int]
    floors: list[int]


@dataclass(frozen=True)
class _Demands:
    """int32 [demands, k] members, int64 [demands] tokens and multiplier of one token."""

    members: NDArray[np.int32]
    tokens: NDArray[np.int64]
    multipliers: NDArray[np.int64]

    @classmethod
    def of(cls, problem: Problem) -> "_Demands":
        (sets,) = problem.workload.layers
        distinct = np.unique(problem.multipliers)
        tokens = np.stack([sets.counts[:, problem.multipliers == q].sum(axis=1) for q in distinct], axis=1)
        rows, columns = np.nonzero(tokens)
        return cls(sets.members[rows], tokens[rows, columns], distinct[columns])


def _inapplicable(problem: Problem) -> str:
    if len(problem.workload.layers) != 1:
        return f"prices of service bound one layer, the problem has {len(problem.workload.layers)}"
    if problem.objective != "fan-out":
        return f"prices of service bound the fan-out, the objective is {problem.objective}"
    if problem.risk is not None:
        return "prices of service bound the mean over families, the problem asks for the worst of them"
    if problem.load_tolerance is not None and not isinstance(problem.cluster.speeds, int):
        return f"prices of load need GPUs of equal speed, speeds are {problem.cluster.speeds}"
    experts = problem.workload.n_experts
    if (contents := sum(comb(experts, size) for size in set(_sizes(problem)))) > MOST_CONTENTS:
        return f"{contents} contents of a GPU, at most {MOST_CONTENTS} are checked"
    return ""


def _sizes(problem: Problem) -> list[int]:
    """Experts of the fullest content, for each number of slots, ascending."""
    slots = np.unique(problem.cluster.slots_of)
    return np.minimum(slots, problem.workload.n_experts).tolist()  # type: ignore[no-any-return]


def _unit(problem: Problem) -> int:
    """Cost of a further GPU for a token of weight 1; a GPU that is a node of its own costs both."""
    cluster = problem.cluster
    alone = cluster.nodes > 1 and cluster.gpus_per_node == 1
    return cluster.gpu_cost + (cluster.node_cost if alone else 0)


def _numbers(given: object, problem: Problem, demands: _Demands) -> _Numbers:
    """The numbers of the proof; ValueError unless they are whole, of the right count and sign, and within 64 bits."""
    names = {part.name for part in fields(_Numbers)}
    if not isinstance(given, Mapping) or set(given) != names:
        raise ValueError(f"expected {sorted(names)}, found {given!r:.80}")
    numbers = _Numbers(**given)
    _whole("scale", numbers.scale, least=1)
    if numbers.scale & (numbers.scale - 1):
        raise ValueError(f"scale must be a power of two, found {numbers.scale}")
    if not isinstance(numbers.prices, list) or len(numbers.prices) != len(demands.tokens):
        raise ValueError(f"prices must list a row for each of {len(demands.tokens)} demands")
    k = problem.workload.top_k
    for row in numbers.prices:
        if not isinstance(row, list) or len(row) != k:
            raise ValueError(f"a row of prices lists {k}, found {row!r:.60}")
        for price in row:
            _whole("a price", price, least=0)
    _check_load_prices(numbers.load_prices, problem)
    _check_copy_prices(numbers, problem)
    sizes = _sizes(problem)
    if not isinstance(numbers.floors, list) or len(numbers.floors) != len(sizes):
        raise ValueError(
            f"floors must list one for each of {len(sizes)} numbers of slots, found {numbers.floors!r:.60}"
        )
    for floor in numbers.floors:
        _whole("a floor", floor, least=-4 * LARGEST)
    if (
        numbers.scale * max(_unit(problem) * problem.total_weight, 1) >= LARGEST
        or sum(map(sum, numbers.prices)) >= LARGEST
        or numbers.load_prices[-1] * max(problem.load_total, 1) >= LARGEST
        or sum(map(abs, numbers.sole_prices + numbers.copy_prices)) >= LARGEST
    ):
        raise ValueError(f"scale, prices or load prices {TOO_LARGE}")
    return numbers


def _check_load_prices(prices: object, problem: Problem) -> None:
    if not isinstance(prices, list) or not 1 <= len(prices) <= MOST_LOAD_PRICES:
        raise ValueError(f"load_prices must list 1 to {MOST_LOAD_PRICES}, found {prices!r:.60}")
    for price in prices:
        _whole("a load price", price, least=0)
    if prices[0] != 0 or any(a >= b for a, b in pairwise(prices)):
        raise ValueError(f"load_prices must ascend from 0, found {prices!r:.60}")
    if problem.load_cap is None and len(prices) > 1:
        raise ValueError(f"without a load tolerance load has no price, found load_prices {prices!r:.60}")


def _check_copy_prices(numbers: _Numbers, problem: Problem) -> None:
    experts, told = problem.workload.n_experts, numbers.told_apart
    if not isinstance(told, list):
        raise ValueError(f"told_apart must be a list, found {told!r:.60}")
    for expert in told:
        _whole("an expert told apart", expert, least=0)
    if any(a >= b for a, b in pairwise(told)) or (told and told[-1] >= experts):
        raise ValueError(f"told_apart must ascend and be below {experts}, found {told!r:.60}")
    for name, given, count in (
        ("sole_prices", numbers.sole_prices, len(told)),
        ("copy_prices", numbers.copy_prices, experts),
    ):
        if not isinstance(given, list) or len(given) != count:
            raise ValueError(f"{name} must list {count}, found {given!r:.60}")
        for price in given:
            _whole(f"one of {name}", price, least=-LARGEST)
    further, places = _copies(problem)
    if further + experts < places and (least := min(numbers.copy_prices)) < 0:
        raise ValueError(f"where slots stay free copy_prices must be at least 0, found {least}")


def _copies(problem: Problem) -> tuple[int, int]:
    """Copies beyond the first of each expert that a best plan has, and the copies that slots have room for."""
    experts = problem.workload.n_experts
    places = int(np.minimum(problem.cluster.slots_of, experts).sum())
    return min(experts + problem.replicas, places) - experts, places


def _whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, found {value!r:.40}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, found {value!r:.60}")


def _least(
    problem: Problem, numbers: _Numbers, *, demands: _Demands, size: int
) -> tuple[int, list[int], list[int]]:
    """Least Phi(B, F) of the contents of `size` experts, and B and F that have it."""
    experts, count = demands.members.ravel(), problem.workload.n_experts
    k = demands.members.shape[1]
    entries = np.argsort(experts, kind="stable")  # by expert, then by demand
    held = np.bincount(experts, minlength=count)
    told, sole_prices = np.zeros(count, np.bool_), np.zeros(count, np.int64)
    told[numbers.told_apart] = True
    sole_prices[numbers.told_apart] = numbers.sole_prices
    loads = np.zeros(count, np.int64)
    np.add.at(loads, demands.members, demands.tokens[:, None])
    cap = problem.load_cap
    least, content, marks = least_share(
        size,
        np.append(0, np.cumsum(held)),
        entries // k,
        np.array(numbers.prices, np.int64).ravel()[entries],
        demands.tokens,
        numbers.scale * _unit(problem) * demands.tokens * demands.multipliers,
        np.array(numbers.load_prices, np.int64),
        cap or 0,
        told,
        sole_prices,
        np.array(numbers.copy_prices, np.int64),
        loads,
        problem.load_total if cap is None else cap,
    )
    return int(least), content.tolist(), content[marks].tolist()


def _proved(problem: Problem, numbers: _Numbers, demands: _Demands) -> int:
    """The bound, given that no content is below its floor."""
    slots = problem.cluster.slots_of.tolist()
    floor_of = dict(zip(sorted(set(slots)), numbers.floors, strict=True))
    total = _least_paid(problem, numbers, demands) + sum(floor_of[own] for own in slots)
    further = total - numbers.scale * _unit(problem) * problem.total_weight
    return int(-(-further // numbers.scale))


def _least_paid(problem: Problem, numbers: _Numbers, demands: _Demands) -> int:
    """Least sum of h_e(c_e) over whole numbers of copies that add up."""
    further, _ = _copies(problem)
    sole = dict(zip(numbers.told_apart, numbers.sole_prices, strict=True))
    member_prices = [0] * problem.workload.n_experts
    for members, prices in zip(demands.members.tolist(), numbers.prices, strict=True):
        for expert, price in zip(members, prices, strict=True):
            member_prices[expert] += price
    least = {0: 0}  # by further copies so far
    for expert, (paid, each) in enumerate(zip(member_prices, numbers.copy_prices, strict=True)):
        reached: dict[int, int] = {}
        for before, total in least.items():
            for more in range(min(further - before, problem.cluster.gpus - 1) + 1):
                own = sole[expert] if more == 0 and expert in sole else paid + (1 + more) * each
                reached[before + more] = min(reached.get(before + more, total + own), total + own)
        least = reached
    return least[further]
