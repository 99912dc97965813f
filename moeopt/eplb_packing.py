"""DeepSeek's expert-parallelism load balancer: which experts get copies, and how copies are packed on GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeopt.problem import Problem
from moeopt.reference import equal_sizes

__all__ = ["Packing", "copied", "duplicates_of", "is_hierarchical", "packed"]


@dataclass(frozen=True, eq=False)
class Packing:
    """Copies of the experts of one layer on GPUs. Two copies of an expert on one GPU are a duplicate.

    | field | holds |
    |---|---|
    | expert | int64 [copies]: expert of each copy |
    | gpu | int64 [copies]: its GPU |
    | load | float [copies]: load of the expert, divided by its copies |

    Source: deepseek-ai/EPLB, its description: hierarchical and global load balancing.
    """

    expert: NDArray[np.int64]
    gpu: NDArray[np.int64]
    load: NDArray[np.float64]

    @classmethod
    def of(
        cls, problem: Problem, *, groups: int | None = None, load: NDArray[np.int64] | None = None
    ) -> Packing:
        """The packing of a problem of one layer with `problem.replicas` copies beyond the first ones.

        `load` int64 [experts]; None: recorded traffic, unweighted.

        Hierarchical where `is_hierarchical`: `groups` of consecutive experts (None: one for each node) are packed on
        nodes by load; then each node has copies made of its own experts and packed on its GPUs. Global else: the same
        on one node that holds everything.
        """
        (sets,) = problem.workload.layers
        cluster, load = problem.cluster, sets.load if load is None else load
        groups = cluster.nodes if groups is None else groups
        if not is_hierarchical(problem, groups=groups):
            groups = 1
        nodes = cluster.nodes if groups > 1 else 1
        group_of = np.repeat(np.arange(groups), sets.n_experts // groups)
        carried = np.bincount(group_of, weights=load, minlength=groups)
        node_of = packed(carried, np.full(nodes, groups // nodes))[group_of]
        parts = []
        for node, gpus in enumerate(np.arange(cluster.gpus).reshape(nodes, -1)):
            own = np.flatnonzero(node_of == node)
            slots = np.minimum(cluster.slots_of[gpus], len(own) if nodes > 1 else sets.n_experts)
            total = (sets.n_experts + problem.replicas) // nodes
            which = copied(load[own], total)
            share = load[own][which] / np.bincount(which)[which]
            parts.append(cls(own[which], gpus[packed(share, equal_sizes(total, slots))], share))
        return cls(
            np.concatenate([part.expert for part in parts]),
            np.concatenate([part.gpu for part in parts]),
            np.concatenate([part.load for part in parts]),
        )

    @property
    def extra(self) -> NDArray[np.int64]:
        """int64 [duplicates]: copies, by position, of an expert that an earlier copy has brought to the same GPU."""
        seats = np.stack([self.expert, self.gpu], axis=1)
        _, first = np.unique(seats, axis=0, return_index=True)
        return np.setdiff1d(np.arange(len(seats)), first)

    def mended(self) -> Packing:
        """Without duplicates: each in turn changes places with a copy of another GPU, or is dropped.

        The partner is the copy of nearest load, the first of them, that neither GPU then holds twice; GPUs keep their
        counts. Where there is none, as when an expert has more copies than there are GPUs, the duplicate is dropped,
        and its GPU has a free slot.
        """
        packing = self
        while (extra := packing.extra).size:
            packing = packing._without(int(extra[0]))
        return packing

    def _without(self, row: int) -> Packing:
        """The duplicate `row` exchanged or dropped."""
        expert, gpu = self.expert[row], self.gpu[row]
        there = self.gpu[self.expert == expert]
        here = self.expert[self.gpu == gpu]
        fits = np.flatnonzero(~np.isin(self.gpu, there) & ~np.isin(self.expert, here))
        if fits.size:
            partner = fits[np.abs(self.load[fits] - self.load[row]).argmin()]
            moved = self.gpu.copy()
            moved[row], moved[partner] = moved[partner], gpu
            return replace(self, gpu=moved)
        own = self.expert == expert
        load = np.where(own, self.load * own.sum() / max(1, own.sum() - 1), self.load)
        kept = np.arange(len(own)) != row
        return Packing(self.expert[kept], self.gpu[kept], load[kept])

    def hosts(self, problem: Problem) -> NDArray[np.bool_]:
        """bool [experts, gpus]: the GPU holds a copy."""
        held = np.zeros((problem.workload.n_experts, problem.cluster.gpus), bool)
        held[self.expert, self.gpu] = True
        return held


def is_hierarchical(problem: Problem, *, groups: int) -> bool:
    """Whether experts divide by `groups`, and groups and copies by the nodes, of which there are several.

    Slots must agree: every node holds its share of the copies, no expert twice on a GPU for want of others.
    """
    cluster, experts = problem.cluster, problem.workload.n_experts
    total = experts + problem.replicas
    if cluster.nodes == 1 or experts % groups or groups % cluster.nodes or total % cluster.nodes:
        return False
    room = np.minimum(cluster.slots_of, experts // cluster.nodes).reshape(cluster.nodes, -1).sum(axis=1)
    return bool((room >= total // cluster.nodes).all())


def copied(load: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """int64 [total]: expert of each copy: one of each, then one after the other of the largest load over copies."""
    copies = np.ones(len(load), np.int64)
    more = []
    for _ in range(total - len(load)):
        expert = int((load / copies).argmax())
        copies[expert] += 1
        more.append(expert)
    return np.concatenate([np.arange(len(load)), np.array(more, np.int64)])


def packed(load: NDArray[np.floating] | NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [items]: heaviest first, each to the least loaded pack that has not its `sizes` int64 [packs] yet.

    Packs of one item each take them in the order given. Ties go to the first item and the first pack.
    """
    if sizes.max() == 1:
        return np.flatnonzero(sizes)
    carried, room = np.zeros(len(sizes)), sizes.copy()
    pack_of = np.empty(len(load), np.int64)
    for item in np.argsort(-load, kind="stable"):
        pack = int(np.where(room > 0, carried, np.inf).argmin())
        pack_of[item] = pack
        carried[pack] += load[item]
        room[pack] -= 1
    return pack_of


def duplicates_of(problem: Problem, *, groups: int | None = None) -> tuple[Packing, int]:
    """The packing as the balancer makes it, and its number of duplicates, which `Packing.mended` moves or drops."""
    packing = Packing.of(problem, groups=groups)
    return packing, len(packing.extra)
