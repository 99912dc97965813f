"""Compiled kernel: the cheapest service of expert sets whose experts have copies, at prices that rise with load."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

TOGETHER = 8  # members with a choice that choose together; further ones follow one by one
MOST_GPUS = 127  # that they choose among
UNREACHED = 1e300
BITS, FIELD = 7, 127  # of the word that names the GPU of each member


class Traffic(NamedTuple):
    """The sets of one layer.

    | field | holds |
    |---|---|
    | members | int32 [sets, k] |
    | weights, tokens | float [sets]: objective weight and recorded tokens of a set |
    | starts, of_expert | int64 [experts + 1], int32: the sets of each expert, ascending |
    | node_of | int64 [gpus] |
    | costs | float [2]: of a further GPU, of a further node |
    | soft | float [gpus]: the load from which on a GPU asks a price |
    """

    members: NDArray[np.int32]
    weights: NDArray[np.float64]
    tokens: NDArray[np.float64]
    starts: NDArray[np.int64]
    of_expert: NDArray[np.int32]
    node_of: NDArray[np.int64]
    costs: NDArray[np.float64]
    soft: NDArray[np.float64]


class Service(NamedTuple):
    """Copies and how the sets use them.

    | field | holds |
    |---|---|
    | expert, gpu | int32 [seats]: what a slot holds (-1: nothing) and where it is, ascending |
    | first | int64 [gpus + 1]: the first seat of each GPU |
    | hosts, copies | int32 [experts, most], int64 [experts]: the GPUs of each expert, and how many |
    | at | bool [experts, gpus]: the same as a table |
    | served | int32 [sets, k]: the GPU that serves each member |
    | hops | float [sets]: weight times the cost of the GPUs and nodes that a set touches |
    | loads | float [gpus] |
    """

    expert: NDArray[np.int32]
    gpu: NDArray[np.int32]
    first: NDArray[np.int64]
    hosts: NDArray[np.int32]
    copies: NDArray[np.int64]
    at: NDArray[np.bool_]
    served: NDArray[np.int32]
    hops: NDArray[np.float64]
    loads: NDArray[np.float64]


class Desk(NamedTuple):
    """Scratch space of `serve`.

    | field | holds |
    |---|---|
    | turn | int64 [1]: the set being served |
    | touched, entered | int64 [gpus], [nodes]: the last turn that did |
    | place | int64 [gpus]: index among the candidates |
    | candidate, own | int64 [MOST_GPUS]: GPUs that may be used, and the members each holds, as bits |
    | bid, price | float [MOST_GPUS]: for each member served, and once |
    | least, within | float [2^k]: cheapest way to leave only these members unserved, so far and in the open node |
    | word, inner | int64 [2^k]: its GPUs |
    """

    turn: NDArray[np.int64]
    touched: NDArray[np.int64]
    entered: NDArray[np.int64]
    place: NDArray[np.int64]
    candidate: NDArray[np.int64]
    own: NDArray[np.int64]
    bid: NDArray[np.float64]
    price: NDArray[np.float64]
    least: NDArray[np.float64]
    within: NDArray[np.float64]
    word: NDArray[np.int64]
    inner: NDArray[np.int64]

    @classmethod
    def of(cls, *, gpus: int, nodes: int, top_k: int) -> "Desk":
        """Empty space for sets of `top_k` experts."""
        states = 1 << min(top_k, TOGETHER)
        return cls(
            turn=np.zeros(1, np.int64),
            touched=np.zeros(gpus, np.int64),
            entered=np.zeros(nodes, np.int64),
            place=np.zeros(gpus, np.int64),
            candidate=np.zeros(MOST_GPUS, np.int64),
            own=np.zeros(MOST_GPUS, np.int64),
            bid=np.zeros(MOST_GPUS),
            price=np.zeros(MOST_GPUS),
            least=np.zeros(states),
            within=np.zeros(states),
            word=np.zeros(states, np.int64),
            inner=np.zeros(states, np.int64),
        )


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def serve(which: NDArray[np.int32], traffic: Traffic, service: Service, desk: Desk, slope: float) -> None:
    """Serve these sets anew, one after the other, each at the least sum of hops and bids for the loads it finds.

    Their loads have been taken off and are put back. A GPU whose load stands x above `soft` asks slope times x of an
    activation. Members of one copy come first; one whose cheapest GPU is touched anyway goes there; the others choose
    together, exactly up to `TOGETHER` of them on one node.
    """
    all_members, all_served, hosts, copies = traffic.members, service.served, service.hosts, service.copies
    loads, soft, node_of = service.loads, traffic.soft, traffic.node_of
    touched, entered, place, own = desk.touched, desk.entered, desk.place, desk.own
    candidate, bid, price = desk.candidate, desk.bid, desk.price
    gpu_cost, node_cost = traffic.costs[0], traffic.costs[1]
    k, now = all_members.shape[1], desk.turn[0]
    choice = np.empty(k, np.int64)
    for s in which:
        now += 1
        weight, tokens = traffic.weights[s], traffic.tokens[s]
        hops, open_ = -gpu_cost - node_cost, 0
        for j in range(k):
            e = all_members[s, j]
            if copies[e] > 1:
                choice[open_] = j
                open_ += 1
                continue
            g = hosts[e, 0]
            all_served[s, j] = g
            loads[g] += tokens
            if touched[g] != now:
                touched[g] = now
                hops += gpu_cost
                if entered[node_of[g]] != now:
                    entered[node_of[g]] = now
                    hops += node_cost
        left = 0
        for i in range(open_):
            j = choice[i]
            e = all_members[s, j]
            near, lowest, low = -1, UNREACHED, UNREACHED
            for c in range(copies[e]):
                g = hosts[e, c]
                asked = slope * max(0.0, loads[g] + 0.5 * tokens - soft[g])
                low = min(low, asked)
                if touched[g] == now and asked < lowest:
                    near, lowest = g, asked
            if near >= 0 and lowest <= low:
                all_served[s, j] = near
                loads[near] += tokens
            else:
                choice[left] = j
                left += 1
        done = 0
        if left > 1:
            done = min(left, TOGETHER)
            count = 0
            for i in range(done):
                e = all_members[s, choice[i]]
                if i and len(place) > MOST_GPUS and count + copies[e] > MOST_GPUS:
                    done = i
                    break
                for c in range(copies[e]):
                    g = hosts[e, c]
                    p = place[g]
                    if p >= count or candidate[p] != g:
                        if count == MOST_GPUS:
                            continue
                        asked = tokens * slope * max(0.0, loads[g] + 0.5 * tokens - soft[g])
                        p = count
                        count += 1
                        place[g], candidate[p], own[p] = p, g, 0
                        bid[p] = asked
                        price[p] = 0.0 if touched[g] == now else weight * gpu_cost
                    own[p] |= 1 << i
            word = _choose(done, count, now, weight * node_cost, node_of, desk)
            for i in range(done):
                g = candidate[word >> (BITS * i) & FIELD]
                all_served[s, choice[i]] = g
                loads[g] += tokens
                if touched[g] != now:
                    touched[g] = now
                    hops += gpu_cost
                    if entered[node_of[g]] != now:
                        entered[node_of[g]] = now
                        hops += node_cost
        for i in range(done, left):
            e = all_members[s, choice[i]]
            best, lowest = -1, UNREACHED
            for c in range(copies[e]):
                g = hosts[e, c]
                value = tokens * slope * max(0.0, loads[g] + 0.5 * tokens - soft[g])
                if touched[g] != now:
                    value += weight * gpu_cost
                    if entered[node_of[g]] != now:
                        value += weight * node_cost
                if value < lowest:
                    best, lowest = g, value
            all_served[s, choice[i]] = best
            loads[best] += tokens
            if touched[best] != now:
                touched[best] = now
                hops += gpu_cost
                if entered[node_of[best]] != now:
                    entered[node_of[best]] = now
                    hops += node_cost
        service.hops[s] = weight * hops
    desk.turn[0] = now


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _choose(
    members: int, count: int, now: int, node_price: float, node_of: NDArray[np.int64], desk: Desk
) -> int:
    """The cheapest GPUs of `members` members among `count` candidates, `BITS` bits each.

    A dynamic programme over the members still to be served, GPU by GPU in the order of their bids: one that is used
    takes all that it holds. With a node price it goes node by node, exact where bids are equal.
    """
    candidate, own, bid, price, entered = desk.candidate, desk.own, desk.bid, desk.price, desk.entered
    least, within, word, inner = desk.least, desk.within, desk.word, desk.inner
    for p in range(1, count):
        q = p
        while q > 0:
            earlier = bid[q] < bid[q - 1]
            if node_price > 0.0:
                a, b = node_of[candidate[q]], node_of[candidate[q - 1]]
                first, second = entered[a] == now, entered[b] == now
                if a != b:
                    earlier = (first and not second) or (first == second and a < b)
            if not earlier:
                break
            candidate[q], candidate[q - 1] = candidate[q - 1], candidate[q]
            own[q], own[q - 1] = own[q - 1], own[q]
            bid[q], bid[q - 1] = bid[q - 1], bid[q]
            price[q], price[q - 1] = price[q - 1], price[q]
            q -= 1
    full = (1 << members) - 1
    for rest in range(full):
        within[rest] = UNREACHED
    within[full], inner[full] = 0.0, 0
    p = 0
    while p < count:
        node = node_of[candidate[p]]
        if node_price > 0.0:
            fee = 0.0 if entered[node] == now else node_price
            for rest in range(full + 1):
                least[rest], word[rest] = within[rest], inner[rest]
                within[rest] += fee
        while p < count and (node_price == 0.0 or node_of[candidate[p]] == node):
            for rest in range(full, 0, -1):
                taken = rest & own[p]
                if taken == 0 or within[rest] >= UNREACHED:
                    continue
                value, gpus = within[rest] + price[p], inner[rest]
                for i in range(members):
                    if taken >> i & 1:
                        value += bid[p]
                        gpus |= p << (BITS * i)
                if value < within[rest ^ taken]:
                    within[rest ^ taken], inner[rest ^ taken] = value, gpus
            p += 1
        if node_price > 0.0:
            for rest in range(full + 1):
                if least[rest] < within[rest]:
                    within[rest], inner[rest] = least[rest], word[rest]
    return int(inner[0])
