"""Check of the counting bound: slots for the fan-out, shares for the load."""

from moeopt.certificate import Proof
from moeopt.problem import Problem


def check_counting(problem: Problem, proof: Proof) -> str:
    """Empty when the bound is what counting slots proves: k experts need at least so many GPUs and nodes."""
    if proof.numbers:
        return f"counting needs no numbers, found {sorted(proof.numbers)}"
    if problem.objective == "load":
        return _check_shares(problem, proof)
    if problem.objective != "fan-out":
        return "counting bounds the fan-out and the load only"
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


def _check_shares(problem: Problem, proof: Proof) -> str:
    """GPUs serve an equal share each at best, and an expert has at most 1 + replicas GPUs to share its load."""
    (sets,) = problem.workload.layers
    load = sets.weighted_load(sets.counts @ problem.multipliers).tolist()
    gpus = problem.cluster.gpus
    shared = (-(-sum(load) // gpus), *(-(-one // min(gpus, 1 + problem.replicas)) for one in load))
    if max(shared) != proof.bound:
        return f"shares prove a load of {max(shared)}, the certificate says {proof.bound}"
    return ""


def _fewest(capacities: list[int], k: int) -> int:
    """Fewest of the capacities, largest first, that hold k experts."""
    held, used = 0, 0
    while held < k:
        held += capacities[used]
        used += 1
    return used
