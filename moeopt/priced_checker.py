"""Check of prices of blocks that are too many to list. Own listing of those that matter, nothing of the prover's."""

from typing import Any

import numpy as np

from moeopt.blocks_checker import LARGEST, TOO_LARGE, BlockPrices, Frame, Listed, inapplicable
from moeopt.certificate import Proof
from moeopt.priced_recount import LONG, MANY, NEGATIVE, Priced, near_blocks
from moeopt.problem import Problem

MOST_NEAR = 32_000_000
MOST_STEPS = 10**12
NAMES = ("dual", "group_price", "inner", "prices", "scale", "searched")


def check_priced(problem: Problem, proof: Proof) -> str:
    """Empty when the prices, and those inside of what they leave open, prove the bound.

    Reduced cost r_B = S c_B - sum of prices over B - group price, all r_B >= 0 (and an empty GPU at
    r_0 = -group price >= 0 when there may be one), so that cost >= offset + (dual + sum of r over its GPUs) / S with
    dual = sum of prices + G group price. W are the blocks with r_B <= searched. A placement with a block outside W
    costs at least outer = offset + (dual + searched + 1) / S. One of blocks in W alone costs at least what the inner
    numbers prove, those of a proof of kind "blocks" with W for all blocks. The bound is the lesser of the two; without
    a search (searched -1, inner None) it is offset + dual / S.
    """
    if reason := inapplicable(problem):
        return reason
    frame = Frame.of(problem)
    outer, inner = _numbers(proof, frame.experts)
    if reason := frame.refusal(outer):
        return reason
    if inner is not None and (reason := frame.refusal(inner)):
        return f"inner prices: {reason}"
    listed = near_contents(problem, outer)
    if isinstance(listed, str):
        return listed
    bound = frame.proved(outer)
    if inner is not None:
        bound = min(bound, frame.proved(inner))
    if bound != proof.bound:
        return f"the numbers prove {bound}, the certificate says {proof.bound}"
    if inner is None:
        return ""
    near = frame.near(inner, listed=listed)
    if isinstance(near, str):
        return f"inner prices: {near}"
    return frame.undercut(inner, near=near, bound=proof.bound)


def near_contents(problem: Problem, numbers: BlockPrices) -> list[Listed] | str:
    """All admissible blocks with a reduced cost of at most `searched`, a pair (blocks, costs) for each size.

    The reason instead, when a reduced cost is negative, the blocks are too many or finding them takes too long.
    Discounts are not looked at. ValueError where the prices do not fit the experts.
    """
    frame = Frame.of(problem)
    (sets,) = problem.workload.layers
    if len(numbers.prices) != frame.experts:
        raise ValueError(f"expected {frame.experts} prices, found {len(numbers.prices)}")
    scaled = numbers.scale * frame.unit
    dearest = max(abs(price) for price in numbers.prices)
    if frame.slots * (2 * scaled * frame.weight + dearest) + abs(numbers.group_price) >= LARGEST:
        return TOO_LARGE
    if (frame.slots + 1) ** 2 * max(frame.weight, scaled) >= LARGEST:
        return TOO_LARGE
    priced = _priced(problem, numbers, scale=scaled)
    cap = int(sets.load.sum()) if problem.load_cap is None else problem.load_cap
    listed: list[Listed] = []
    held = 0
    for size in frame.sizes:
        blocks, reduced, end = near_blocks(priced, size, numbers.searched, cap, MOST_NEAR - held, MOST_STEPS)
        if end == NEGATIVE:
            return f"block {blocks[-1].tolist()} has reduced cost {reduced[-1]}, below 0"
        if end == MANY:
            return f"more than {MOST_NEAR} blocks have a reduced cost of at most {numbers.searched}"
        if end == LONG:
            return f"listing the blocks of {size} experts takes more than {MOST_STEPS} steps"
        held += len(blocks)
        left = reduced + numbers.group_price
        for column in blocks.T:
            left += priced.price[column]
        listed.append((blocks, left // numbers.scale))
    return listed


def _priced(problem: Problem, numbers: BlockPrices, *, scale: int) -> Priced:
    (sets,) = problem.workload.layers
    weights = problem.set_weights(sets)
    fan_out = problem.objective == "fan-out"
    members = sets.members if fan_out else np.zeros((0, sets.top_k), np.int32)  # the cut is of pairs
    experts = members.ravel()
    return Priced(
        fan_out=fan_out,
        scale=scale,
        group=numbers.group_price,
        price=np.array(numbers.prices, np.int64),
        load=sets.load,
        alone=sets.weighted_load(weights) if fan_out else np.zeros(sets.n_experts, np.int64),
        together=sets.affinity(weights),
        members=members,
        weights=weights,
        start=np.append(0, np.cumsum(np.bincount(experts, minlength=sets.n_experts))),
        holding=np.argsort(experts, kind="stable") // sets.top_k,
    )


def _numbers(proof: Proof, experts: int) -> tuple[BlockPrices, BlockPrices | None]:
    """The numbers of the proof and the inner ones; ValueError unless they are well formed."""
    if set(proof.numbers) != set(NAMES):
        raise ValueError(f"expected {list(NAMES)}, found {sorted(proof.numbers)}")
    own: dict[str, Any] = {name: value for name, value in proof.numbers.items() if name != "inner"}
    outer = BlockPrices.read({**own, "triples": [], "discounts": []}, experts=experts)
    inner = proof.numbers["inner"]
    if inner is not None and not isinstance(inner, dict):
        raise ValueError(f"inner must be an object or nothing, found {inner!r:.60}")
    if (inner is None) != (outer.searched < 0):
        found = "no inner prices" if inner is None else "inner prices"
        raise ValueError(
            f"a search needs inner prices, and only a search: searched {outer.searched}, {found}"
        )
    if inner is None:
        return outer, None
    try:
        return outer, BlockPrices.read(inner, experts=experts)
    except ValueError as error:
        raise ValueError(f"inner prices: {error}") from error
