"""Re-proves the bounds of the row formulations in exact integers, without a solver or a prover.

A proof holds one integer multiplier a row: positive on the lower side of the row, negative on the upper side.
For any such multipliers Y at scale S, and 0 <= x <= 1,

    S cost(x)  >=  S offset + sum over rows of Y (the side of the row it has the sign of)
                   + sum over columns of min(0, S c - A'Y)  =  dual,

and every cost is a multiple of the greatest common divisor of the c, so no placement costs less than
dual / S, rounded up to such a multiple. `dual` and `checksum`, the sum over columns p = 1, 2, ... of
p (S c - A'Y)[p]^2, are part of the proof: dual alone does not notice a step to equally good multipliers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import gcd
from typing import Any

import numpy as np

from moeopt.certificate import Proof
from moeopt.problem import Problem

__all__ = ["check_assignment", "check_pairs"]

_LARGEST = 1 << 128  # of a multiplier: far above any scale times any cost
_LARGEST_SUM = 1 << 600
_SCALES = 1 << 64


@dataclass
class _Lagrangian:
    """reduced: S c - A'Y of every column so far; dual: the rest of the bound so far."""

    reduced: list[int]
    dual: int

    def press(self, multiplier: int, *, lower: int | None, upper: int | None, row: Mapping[int, int]) -> None:
        """Add lower <= row x <= upper with its multiplier; a side that is None takes none."""
        side = lower if multiplier > 0 else upper
        if multiplier == 0:
            return
        if side is None:
            raise ValueError(f"multiplier {multiplier} presses on a side that its row does not have")
        self.dual += multiplier * side
        for column, coefficient in row.items():
            self.reduced[column] -= multiplier * coefficient

    def close(self) -> tuple[int, int]:
        """(dual, checksum)."""
        checksum = sum(place * number * number for place, number in enumerate(self.reduced, 1))
        return self.dual + sum(min(0, number) for number in self.reduced), checksum


def check_pairs(problem: Problem, proof: Proof) -> str:
    """Why the "pairs" proof of a problem of one layer fails; empty when it holds."""
    return _judged(problem, proof, "pairs", _pairs)


def check_assignment(problem: Problem, proof: Proof) -> str:
    """Why the "assignment" proof of a problem of one layer fails; empty when it holds."""
    return _judged(problem, proof, "assignment", _assignment)


def _judged(
    problem: Problem, proof: Proof, kind: str, state: Callable[[Problem, dict[str, Any], int], _Dual]
) -> str:
    try:
        if proof.kind != kind:
            raise ValueError(f"the proof is of kind {proof.kind!r}")
        if len(problem.workload.layers) != 1 or problem.objective != "cut" or problem.replicas:
            raise ValueError("the proof is about the cut of one layer without replicas")
        if problem.risk is not None:
            raise ValueError("the proof is about the mean over families")
        if proof.layer_id != problem.workload.layer_ids[0]:
            raise ValueError(f"the proof is about layer {proof.layer_id}")
        if proof.digest != problem.workload.digest:
            raise ValueError("the proof is about another workload")
        numbers = dict(proof.numbers)
        scale = _integer("scale", numbers.pop("scale", None), 1, _SCALES)
        stated = [_integer(name, numbers.pop(name, None), -_LARGEST_SUM, _LARGEST_SUM) for name in _SUMS]
        lagrangian, unit = state(problem, numbers, scale)
        if numbers:
            raise ValueError(f"the proof holds {sorted(numbers)[0]!r}, which this problem does not ask for")
        for name, found, given in zip(_SUMS, lagrangian.close(), stated, strict=True):
            if found != given:
                raise ValueError(f"{name} is {given}, the multipliers give {found}")
        bound = unit * -(-stated[0] // (scale * unit))
        if _integer("bound", proof.bound, -_LARGEST, _LARGEST) != bound:
            raise ValueError(f"bound is {proof.bound}, the multipliers give {bound}")
        if proof.cost is not None and _integer("cost", proof.cost, 0, _LARGEST) < bound:
            raise ValueError(f"cost {proof.cost} is below the bound {bound}")
        if proof.optimal is not (proof.cost == bound):
            raise ValueError(f"optimal is {proof.optimal} with cost {proof.cost} and bound {bound}")
    except ValueError as error:
        return f"{kind} proof: {error}"
    return ""


_Dual = tuple[_Lagrangian, int]
_SUMS = ("dual", "checksum")


def _pairs(problem: Problem, numbers: dict[str, Any], scale: int) -> _Dual:
    cluster, (sets,) = problem.cluster, problem.workload.layers
    if not cluster.equal or (cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost):
        raise ValueError("the GPUs of the problem are not interchangeable")
    price = cluster.gpu_cost
    if cluster.nodes > 1 and cluster.gpus_per_node == 1:
        price += cluster.node_cost
    experts, gpus = sets.n_experts, cluster.gpus
    slots = min(int(cluster.slots_of[0]), experts)
    least = max(1, experts - (gpus - 1) * slots)
    at = {frozenset(pair): place for place, pair in enumerate(combinations(range(experts), 2))}
    costs = [price * weight for weight in _pair_weights(problem)]
    marked = experts // least > gpus
    dual = _Lagrangian([-scale * cost for cost in costs] + [0] * (experts * marked), scale * sum(costs))

    def of_expert(i: int, weight: list[int]) -> dict[int, int]:
        return {at[frozenset((i, j))]: weight[j] for j in range(experts) if j != i}

    for i, number in enumerate(_list(numbers, "slots", experts)):
        dual.press(number, lower=least - 1, upper=slots - 1, row=of_expert(i, [1] * experts))
    if problem.load_cap is not None:
        load, cap = sets.load.tolist(), problem.load_cap
        floor = max(0, min(cap, sum(load) - (gpus - 1) * cap))
        for i, number in enumerate(_list(numbers, "load", experts)):
            dual.press(number, lower=floor - load[i], upper=cap - load[i], row=of_expert(i, load))
    whole, rest = divmod(experts, slots)
    if rest:
        most = (whole * slots * (slots - 1) + rest * (rest - 1)) // 2
        dual.press(_number(numbers, "full"), lower=None, upper=most, row=dict.fromkeys(at.values(), 1))
    if marked:
        for i, number in enumerate(_list(numbers, "first", experts)):
            row = {at[frozenset((i, j))]: 1 for j in range(i)} | {len(at) + i: 1}
            dual.press(number, lower=1, upper=None, row=row)
        marks = {len(at) + i: 1 for i in range(experts)}
        dual.press(_number(numbers, "groups"), lower=None, upper=gpus, row=marks)
    for i, j, k, number in _rows(numbers, "triangles", (experts, experts, experts)):
        if not i < k or j in (i, k):
            raise ValueError(f"triangle {i}, {j}, {k} must have three corners, the first below the last")
        row = {at[frozenset((i, j))]: 1, at[frozenset((j, k))]: 1, at[frozenset((i, k))]: -1}
        dual.press(number, lower=None, upper=1, row=row)
    return dual, gcd(*costs) or 1


def _assignment(problem: Problem, numbers: dict[str, Any], scale: int) -> _Dual:
    cluster, (sets,) = problem.cluster, problem.workload.layers
    experts, gpus = sets.n_experts, cluster.gpus
    pairs = {pair: place for place, pair in enumerate(combinations(range(experts), 2))}
    levels = [("z", cluster.gpu_cost, [[gpu] for gpu in range(gpus)])] if cluster.gpu_cost else []
    if cluster.node_cost and cluster.nodes > 1:
        inside = [[g for g in range(gpus) if cluster.node_of[g] == n] for n in range(cluster.nodes)]
        levels.append(("z_node", cluster.node_cost, inside))
    weights = _pair_weights(problem)
    dual = _Lagrangian([0] * (experts * gpus), 0)
    starts = []
    for _, price, groups in levels:
        starts.append(len(dual.reduced))
        dual.reduced += [-scale * price * weight for weight in weights for _ in groups]
        dual.dual += scale * price * sum(weights)
    for e, number in enumerate(_list(numbers, "once", experts)):
        dual.press(number, lower=1, upper=1, row={e * gpus + g: 1 for g in range(gpus)})
    for g, number in enumerate(_list(numbers, "slots", gpus)):
        row = {e * gpus + g: 1 for e in range(experts)}
        dual.press(number, lower=None, upper=int(cluster.slots_of[g]), row=row)
    if problem.load_caps is not None:
        load = sets.load.tolist()
        for g, number in enumerate(_list(numbers, "load", gpus)):
            row = {e * gpus + g: load[e] for e in range(experts)}
            dual.press(number, lower=None, upper=int(problem.load_caps[g]), row=row)
    for (symbol, _, groups), start in zip(levels, starts, strict=True):
        for e, f, g, member, number in _rows(numbers, symbol, (experts, experts, len(groups), 2)):
            if not e < f:
                raise ValueError(f"{symbol} of {e}, {f}: the pair must ascend")
            row = {(e, f)[member] * gpus + gpu: -1 for gpu in groups[g]}
            row[start + pairs[e, f] * len(groups) + g] = 1
            dual.press(number, lower=None, upper=0, row=row)
    return dual, gcd(*(price * weight for _, price, _ in levels for weight in weights)) or 1


def _pair_weights(problem: Problem) -> list[int]:
    """Co-activation of every pair, in the order of `itertools.combinations`."""
    (sets,) = problem.workload.layers
    affinity = sets.affinity(problem.set_weights(sets))
    return [int(weight) for weight in affinity[np.triu_indices(sets.n_experts, 1)]]


def _integer(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, found {value!r:.40}")
    if not low <= value <= high:
        raise ValueError(
            f"{name} {value:.10g} is out of range" if abs(value) < _LARGEST else f"{name} is too large"
        )
    return value


def _number(numbers: dict[str, Any], name: str) -> int:
    return _integer(name, numbers.pop(name, None), -_LARGEST, _LARGEST)


def _list(numbers: dict[str, Any], name: str, length: int) -> list[int]:
    found = numbers.pop(name, None)
    if not isinstance(found, list) or len(found) != length:
        raise ValueError(f"{name} must list {length} multipliers")
    return [_integer(name, value, -_LARGEST, _LARGEST) for value in found]


def _rows(numbers: dict[str, Any], name: str, limits: tuple[int, ...]) -> Iterator[list[int]]:
    """Rows [key..., multiplier] with each part of the key below its limit."""
    found = numbers.pop(name, None)
    if not isinstance(found, list):
        raise ValueError(f"{name} must be a list")
    for row in found:
        if not isinstance(row, list) or len(row) != len(limits) + 1:
            raise ValueError(f"{name} must hold rows of {len(limits) + 1} numbers, found {row!r:.60}")
        key = [_integer(name, part, 0, limit - 1) for part, limit in zip(row, limits, strict=False)]
        if _integer(name, row[-1], -_LARGEST, _LARGEST) == 0:
            raise ValueError(f"{name} {key} has multiplier 0")
        yield [*key, row[-1]]
