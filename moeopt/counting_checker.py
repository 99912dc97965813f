"""Check of the counting bound."""

from moeopt.certificate import Proof
from moeopt.problem import Problem


def check_counting(problem: Problem, proof: Proof) -> str:
    """Empty when the bound is what counting slots proves: k experts need at least so many GPUs and nodes."""
    if problem.objective != "fan-out":
        return "counting bounds the fan-out only"
    if proof.numbers:
        return f"counting needs no numbers, found {sorted(proof.numbers)}"
    k, cluster = problem.workload.top_k, problem.cluster
    slots = sorted(cluster.slots_of.tolist(), reverse=True)
    node_slots = sorted(
        (sum(cluster.slots_of[cluster.node_of == node].tolist()) for node in range(cluster.nodes)),
        reverse=True,
    )
    further = cluster.gpu_cost * (_fewest(slots, k) - 1) + cluster.node_cost * (_fewest(node_slots, k) - 1)
    if further * problem.total_weight != proof.bound:
        return f"counting proves {further * problem.total_weight}, the certificate says {proof.bound}"
    return ""


def _fewest(capacities: list[int], k: int) -> int:
    """Fewest of the capacities, largest first, that hold k experts."""
    held, used = 0, 0
    while held < k:
        held += capacities[used]
        used += 1
    return used
