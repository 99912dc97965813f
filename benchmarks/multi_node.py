"""Requests and experts on several nodes: what crosses between them, on requests that nothing was learned from."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from benchmarks.cases import NULL, read_source
from benchmarks.suite import CORES, FRACTION, SEEDS, experiment
from moeopt.api import solve
from moeopt.bench_rows import Key, Row, Task
from moeopt.cluster import Cluster
from moeopt.expert_groups import AtHome, ExpertGroups
from moeopt.heuristics.eplb import Eplb
from moeopt.heuristics.linear import Linear
from moeopt.joint_batches import JointBatches
from moeopt.method import Method
from moeopt.micro_batches import MicroBatches
from moeopt.node_volumes import between_nodes, mixed_ranks
from moeopt.openings import Openings
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace

MODELS = ("deepseek-v2-lite", "gpt-oss-20b")
NODES = (4, 8, 16)
ONCE = Stop(seconds=None, candidates=1)
LAST = "joint, 1 copy a node and layer"  # names the task: its rows end with it
SECONDS = 120.0
NULL_SEEDS = range(1)


@experiment("multi-node", workers=CORES)
def multi_node() -> Iterable[Task]:
    """Volume between 4, 8 and 16 nodes on held-out requests: grouped batches and expert placements."""
    for prefix, seeds in (("", SEEDS), (NULL, NULL_SEEDS)):
        for seed in seeds:
            for model in MODELS:
                for nodes in NODES:
                    key = Key(f"{prefix}{model}, {nodes} nodes", None, LAST, seed, repr(ONCE))
                    yield Task(key, measure_nodes, (prefix + model, nodes, key), SECONDS)


def measure_nodes(source: str, nodes: int, key: Key) -> list[Row]:
    """A row a method: volumes of what is served of the held-out requests, over linear with mixed batches."""
    learned, held = read_source(source).split(FRACTION, seed=key.seed)
    parts = Openings.of(held)
    served = held.take(parts.served)
    mixed = mixed_ranks(held, nodes, seed=key.seed)
    linear = _placed(learned, nodes, Linear())
    families = min(len(learned.families), nodes)
    paper = MicroBatches(nodes).fit(learned, seed=key.seed)
    balanced = MicroBatches(nodes, overflow="balanced")
    joint = JointBatches(nodes)
    found = joint.fit(learned, seed=key.seed)
    copies = replace(joint, replicas=nodes)
    fitted: dict[str, ExpertGroups] = {
        "k-means, K = D": paper,
        f"k-means, K = {families} families": MicroBatches(nodes, clusters=families).fit(
            learned, seed=key.seed
        ),
        "k-means, K = D, equal groups": balanced.fit(learned, seed=key.seed),
        "joint, equal groups": replace(joint, room=0.0).fit(learned, seed=key.seed),
        "joint, lengths known": replace(found, router=AtHome(found.placement.hosts)),
        "joint": found,
        "joint, equal groups, 1 copy a node and layer": replace(copies, room=0.0).fit(learned, seed=key.seed),
        LAST: copies.fit(learned, seed=key.seed),
    }
    compared: dict[str, tuple[Placement, Any]] = {
        "linear, mixed": (linear, mixed),
        "eplb, 0 replicas, mixed": (_placed(learned, nodes, Eplb(groups=1)), mixed),
        "k-means placement, mixed": (paper.placement, mixed),
        "k-means groups, linear": (linear, paper.ranks(held)),
        **{name: (groups.placement, groups.ranks(held)) for name, groups in fitted.items()},
    }
    base = between_nodes(linear, served, ranks=mixed[parts.served])
    rows = []
    for name, (placement, ranks) in compared.items():
        volumes = between_nodes(placement, served, ranks=ranks[parts.served])
        memory = placement.hosts.sum() / placement.primary.size - 1
        rows.append(
            replace(key, method=name).row(
                "done",
                reason="",
                **volumes.over(base),
                local_share=1 - volumes.remote / volumes.experts,
                busiest=volumes.busiest,
                extra_memory=float(memory),
                vectors=volumes.to_dict(),
                requests=len(parts.requests),
                decided_by=parts.decided_by,
            )
        )
    return rows


def _placed(learned: Trace, nodes: int, method: Method) -> Placement:
    """By a method that groups no requests, a GPU a node."""
    cluster = Cluster(nodes=nodes, gpus_per_node=1, slots=learned.n_experts // nodes)
    placement = solve(Problem.from_trace(learned, cluster), method, stop=ONCE).placement
    if placement is None:
        raise RuntimeError(f"{method!r} placed nothing")
    return placement
