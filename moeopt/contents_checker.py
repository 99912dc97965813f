"""Check of proofs by the contents of at most four GPUs, when experts have copies. Own tables, own search.

The checker looks at every placement with all E + R copies (a further copy never hurts) whose tokens, sent at will to
the fewest GPUs, cost less than the bound. Without a load tolerance there must be none. With one, each must either be
impossible to balance, or be listed with prices of an activation on each of its GPUs that show the bound: no dispatch
within the cap costs less than

    sum over tokens of min over groups T of GPUs that serve the token: weight (|T| - 1) + sum over its experts of the
    least price in T that holds it, minus the cap x the sum of the prices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.contents_recount import NEVER, cheap_placements, shared_touch
from moeopt.problem import Problem

__all__ = ["cheap_contents", "check_contents"]

LARGEST = NEVER  # of every sum in 64 bits
MOST_EXPERTS = 18
MOST_GPUS = 4
MOST_LEAVES = 4_000_000
MOST_STEPS = 50_000_000_000


def check_contents(problem: Problem, proof: Proof) -> str:
    """Why a proof of kind "contents" does not hold for the problem; empty when it does.

    numbers: `leaves`, rows of G contents (bit e stands for expert e) and G prices in units of 1 / `scale`; `shown`,
    the sum of what the leaves show. Without a load tolerance no leaf, scale 1 and 0 shown.
    """
    if reason := _inapplicable(problem):
        return f"contents proof: {reason}"
    try:
        if isinstance(proof.bound, bool) or not isinstance(proof.bound, int):
            raise ValueError(f"the bound must be a whole number, found {proof.bound!r:.40}")
        numbers = _numbers(proof.numbers, problem)
        proved = _proved_leaves(problem, numbers, bound=proof.bound)
        for contents in cheap_contents(problem, limit=proof.bound, room=len(proved) + 1):
            if contents not in proved:
                held = [[e for e in range(MOST_EXPERTS) if content >> e & 1] for content in contents]
                raise ValueError(f"no leaf shows that the placement {held} costs {proof.bound} or more")
    except ValueError as error:
        return f"contents proof: {error}"
    return ""


@dataclass(frozen=True)
class _Numbers:
    scale: int
    leaves: list[list[int]]
    shown: int


def _inapplicable(problem: Problem) -> str:
    cluster, experts = problem.cluster, problem.workload.n_experts
    if len(problem.workload.layers) != 1:
        return f"contents bound one layer, the problem has {len(problem.workload.layers)}"
    if problem.objective != "fan-out":
        return f"contents bound the fan-out, the objective is {problem.objective}"
    if problem.risk is not None:
        return "contents bound the mean over families, the problem asks for the worst of them"
    if problem.max_moves is not None:
        return f"contents cannot see an incumbent, {problem.max_moves} copies may move"
    if problem.total_replicas is not None:
        return f"contents bound one layer, {problem.total_replicas} copies are a budget over all layers"
    if not cluster.equal:
        return f"contents bound placements on GPUs with equal slots and speeds, found {cluster.slots}, {cluster.speeds}"
    if cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost:
        return f"contents cannot see nodes, the node cost is {cluster.node_cost}"
    if not 2 <= cluster.gpus <= MOST_GPUS:
        return f"contents are checked for 2 to {MOST_GPUS} GPUs, found {cluster.gpus}"
    if experts > MOST_EXPERTS:
        return f"contents are checked for at most {MOST_EXPERTS} experts, found {experts}"
    if experts + problem.replicas > (room := cluster.gpus * _slots(problem)):
        return f"{experts} experts and {problem.replicas} replicas do not fit {room} slots"
    if 2 * cluster.gpus * _unit(problem) * problem.total_weight >= LARGEST:
        return f"objective weight {problem.total_weight} too large to be checked in 64-bit arithmetic"
    return ""


def _slots(problem: Problem) -> int:
    return min(int(problem.cluster.slots_of[0]), problem.workload.n_experts)


def _unit(problem: Problem) -> int:
    """Cost of a further GPU for a token of weight 1; a GPU that is a node of its own costs both."""
    cluster = problem.cluster
    alone = cluster.nodes > 1 and cluster.gpus_per_node == 1
    return cluster.gpu_cost + (cluster.node_cost if alone else 0)


def _numbers(given: object, problem: Problem) -> _Numbers:
    """The numbers of the proof; ValueError unless they are whole, and every leaf a placement of the problem."""
    names = {part.name for part in fields(_Numbers)}
    if not isinstance(given, Mapping) or set(given) != names:
        raise ValueError(f"expected {sorted(names)}, found {given!r:.80}")
    numbers = _Numbers(**given)
    _whole("scale", numbers.scale, low=1, high=LARGEST)
    _whole("shown", numbers.shown, low=-LARGEST * MOST_LEAVES, high=LARGEST * MOST_LEAVES)
    if not isinstance(numbers.leaves, list) or len(numbers.leaves) > MOST_LEAVES:
        raise ValueError(f"leaves must be a list of at most {MOST_LEAVES}, found {numbers.leaves!r:.40}")
    if problem.load_cap is None and (numbers.leaves or numbers.scale != 1):
        raise ValueError(
            f"without a load tolerance there are no leaves and the scale is 1, "
            f"found {len(numbers.leaves)} and {numbers.scale}"
        )
    gpus, slots, experts = problem.cluster.gpus, _slots(problem), problem.workload.n_experts
    for leaf in numbers.leaves:
        if not isinstance(leaf, list) or len(leaf) != 2 * gpus:
            raise ValueError(f"a leaf lists {gpus} contents and {gpus} prices, found {leaf!r:.60}")
        covered, copies = 0, 0
        for content in leaf[:gpus]:
            _whole("a content", content, low=0, high=(1 << experts) - 1)
            if content.bit_count() > slots:
                raise ValueError(
                    f"a GPU of leaf {leaf} holds {content.bit_count()} experts, slots are {slots}"
                )
            covered |= content
            copies += content.bit_count()
        if covered != (1 << experts) - 1:
            raise ValueError(f"leaf {leaf} covers {covered.bit_count()} of {experts} experts")
        if copies != experts + problem.replicas:
            raise ValueError(f"leaf {leaf} has {copies} copies, not {experts} + {problem.replicas}")
        for price in leaf[gpus:]:
            _whole("a price", price, low=0, high=LARGEST)
    return numbers


def _whole(name: str, value: Any, *, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, found {value!r:.40}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, found {value!r:.60}")


def _proved_leaves(problem: Problem, numbers: _Numbers, *, bound: int) -> set[tuple[int, ...]]:
    """Contents, ascending, of the leaves that show the bound; ValueError when the sum of all is not that stated."""
    gpus, cap = problem.cluster.gpus, problem.load_cap
    if cap is None or not numbers.leaves:
        if numbers.shown:
            raise ValueError(f"no leaf shows 0, the certificate says {numbers.shown}")
        return set()
    (sets,) = problem.workload.layers
    peak = max(max(leaf[gpus:]) for leaf in numbers.leaves)
    cost = gpus * numbers.scale * _unit(problem) * problem.total_weight
    if cost + peak * (problem.load_total + gpus * cap) >= LARGEST:
        raise ValueError(
            f"prices to {peak} at scale {numbers.scale} too large to be checked in 64-bit arithmetic"
        )
    further = numbers.scale * _unit(problem) * problem.multipliers
    leaves = np.array(numbers.leaves, np.int64)
    shown = _shown_by_prices(leaves, sets.members, sets.counts, further, cap).tolist()
    if (total := sum(shown)) != numbers.shown:
        raise ValueError(f"the leaves show {total} together, the certificate says {numbers.shown}")
    pairs = zip(numbers.leaves, shown, strict=True)
    return {tuple(sorted(leaf[:gpus])) for leaf, own in pairs if -(-own // numbers.scale) >= bound}


def cheap_contents(problem: Problem, *, limit: int, room: int) -> list[tuple[int, ...]]:
    """Placements that cost less than `limit` before any dispatch and can be balanced, the first `room` of them.

    A placement is its contents as masks, ascending, and comes once. ValueError where the search would take too long.
    """
    (sets,) = problem.workload.layers
    gpus, experts, slots = problem.cluster.gpus, sets.n_experts, _slots(problem)
    order = np.argsort(-sets.load, kind="stable")  # inside, expert 0 is the heaviest
    single = 1 << np.argsort(order)
    inside, load, size = np.zeros((3, 1 << experts), np.int64)
    np.add.at(inside, single[sets.members].sum(axis=1), _unit(problem) * problem.set_weights(sets))
    load[single], size[single] = sets.load, 1
    for table in (inside, load, size):
        _sum_over_parts(table, experts)
    cap = int(load[-1]) if problem.load_cap is None else problem.load_cap
    most = min(problem.replicas, experts)
    touch = inside[-1] - inside[::-1]
    shared = np.zeros((gpus, most + 1, 1 << experts), np.int64)
    fewer = np.full(1 << experts, NEVER)
    fewer[0] = 0
    for count in range(1, gpus):
        fewer = shared_touch(touch, fewer, load, size, slots, cap)
        shared[count] = _without_few(fewer - touch, most if count > 1 else 0)  # one open GPU spares no touch
    found = np.zeros((room, gpus), np.int64)
    count, steps = cheap_placements(
        slots,
        experts + problem.replicas,
        inside,
        _without_few(touch, most),
        shared,
        load,
        size,
        cap,
        max(0, min(limit, gpus * int(inside[-1]) + 1)),
        found,
        MOST_STEPS,
    )
    if steps >= MOST_STEPS and count < room:
        raise ValueError(f"the search takes more than {MOST_STEPS} steps")
    own = 1 << order
    rows = (found[:count, :, None] >> np.arange(experts) & 1) @ own
    return [tuple(row) for row in np.sort(rows, axis=1).tolist()]


def _sum_over_parts(table: NDArray[np.int64], experts: int) -> None:
    """Entry by mask to sum over all parts of the mask, in place."""
    for bit in range(experts):
        halves = table.reshape(-1, 2, 1 << bit)
        halves[:, 1] += halves[:, 0]


def _without_few(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """int64 [most + 1, 2^E]: the least over a mask without at most 0, 1, ..., `most` of its experts."""
    least = np.empty((most + 1, len(values)), np.int64)
    least[0] = values
    for row in range(1, most + 1):
        least[row] = least[row - 1]
        for bit in range(len(values).bit_length() - 1):
            halves, before = (least[r].reshape(-1, 2, 1 << bit) for r in (row, row - 1))
            np.minimum(halves[:, 1], before[:, 0], out=halves[:, 1])
    return least


@njit(cache=True)  # type: ignore[untyped-decorator]
def _shown_by_prices(
    leaves: NDArray[np.int64],
    members: NDArray[np.int32],
    counts: NDArray[np.int64],
    further: NDArray[np.int64],
    cap: int,
) -> Any:
    """int64 [leaves]: what the prices of each leaf show, in units of 1 / scale.

    `leaves` int64 [leaves, 2 G]: contents and prices; `further` int64 [families]: scale x the cost of a further GPU
    for one token. A token of set s pays, for the best group of GPUs that serves it, further x (group - 1) and for
    each expert the least price in the group.
    """
    gpus = leaves.shape[1] // 2
    shown = np.zeros(len(leaves), np.int64)
    price = np.empty((1 << gpus, members.max() + 1), np.int64)
    best = np.empty(gpus + 1, np.int64)
    for leaf in range(len(leaves)):
        for group in range(1, 1 << gpus):
            price[group] = -1
            for gpu in range(gpus):
                own = leaves[leaf, gpus + gpu]
                for e in range(price.shape[1] if group >> gpu & 1 else 0):
                    if leaves[leaf, gpu] >> e & 1 and (price[group, e] < 0 or own < price[group, e]):
                        price[group, e] = own
        for s in range(len(members)):
            best[:] = -1
            for group in range(1, 1 << gpus):
                total, size = 0, 0
                for gpu in range(gpus):
                    size += group >> gpu & 1
                for e in members[s]:
                    if price[group, e] < 0:
                        total = -1
                        break
                    total += price[group, e]
                if total >= 0 and (best[size] < 0 or total < best[size]):
                    best[size] = total
            for family in range(len(further)):
                if counts[s, family]:
                    least = -1
                    for size in range(1, gpus + 1):
                        if best[size] >= 0:
                            value = (size - 1) * further[family] + best[size]
                            if least < 0 or value < least:
                                least = value
                    shown[leaf] += counts[s, family] * least
        for gpu in range(gpus):
            shown[leaf] -= cap * leaves[leaf, gpus + gpu]
    return shown
