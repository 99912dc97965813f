"""Requests and experts grouped in one problem, and unseen requests sent where their opening is most at home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from moeopt.expert_groups import AtHome, ExpertGroups, capacity, dealt, filled, placed, usage_of
from moeopt.grouping import GroupingProblem
from moeopt.grouping_search import alternated
from moeopt.kmeans import clusters
from moeopt.micro_batches import learnable, unit
from moeopt.openings import OPENING, Openings
from moeopt.stop import Stop
from moeopt.trace import Trace

__all__ = ["JointBatches"]


@dataclass(frozen=True)
class JointBatches:
    """The cheapest groups of requests and experts that alternating assignments find.

    | field | holds |
    |---|---|
    | groups | D, expert groups, a node each |
    | replicas | R, copies of a layer's experts beyond the first; D must divide E + R |
    | room | share by which a group may miss its equal share of the requests, learned or unseen; 0: equal groups |
    | judged_by | of an opening, "share": its activations count as 1 in sum; "count": as they are |
    | starts | K-means clusterings, of as many seeds, that the first rounds begin from |
    | rounds | of `moeopt.grouping_search.alternated` |
    | opening | share of a request that stands for its prefill where there is none |

    The objective is that of `moeopt.grouping.GroupingProblem`: remote activations, all layers at once. With replicas
    experts are placed anew, first copies and others together (`moeopt.expert_groups.filled`), and requests once more,
    until neither gains. An unseen request goes where most activations of its opening are local, within the room. Where
    the room decides, "count" prefers requests with a long opening: right if they have much to serve, as where the
    opening is a share of the request itself and so tells its length, which no prefill does.
    """

    groups: int = 8
    replicas: int = 0
    room: float = 0.5
    judged_by: Literal["share", "count"] = "share"
    starts: int = 5
    rounds: int = 8
    opening: float = OPENING

    def __post_init__(self) -> None:
        if not 0 <= self.room < float("inf"):
            raise ValueError(f"room must be finite and at least 0, found {self.room}")
        if self.judged_by not in ("share", "count"):
            raise ValueError(f"judged_by must be share or count, found {self.judged_by!r}")
        if self.starts < 0 or self.rounds < 1:
            raise ValueError(f"starts must be at least 0 and rounds 1, found {self.starts} and {self.rounds}")

    def fit(self, trace: Trace, *, seed: int) -> ExpertGroups:
        """Groups learned from the requests of `trace`; errors as `moeopt.micro_batches.MicroBatches.fit`."""
        held = capacity(trace.n_experts, self.groups, replicas=self.replicas)
        parts = Openings.of(trace, share=self.opening)
        learnable(parts, groups=self.groups)
        points, starts = unit(parts.rest), []
        for child in np.random.default_rng(seed).spawn(self.starts):
            _, centres = clusters(points, k=self.groups, rng=child, restarts=1)
            centres = np.concatenate([centres, np.zeros((self.groups - len(centres), points.shape[1]))])
            length = np.linalg.norm(centres, axis=1)
            starts.append(points @ (centres / np.where(length > 0, length, 1.0)[:, None]).T)
        slack = int(self.room * len(parts.requests) / self.groups)
        problem = GroupingProblem(parts.rest, self.groups, slack=slack)
        clock = Stop(seconds=None, candidates=self.rounds).start()
        found = alternated(problem, clock=clock, seed=seed, rounds=self.rounds, starts=starts)
        if found is None:
            raise RuntimeError("rows of one request each were not grouped")
        every = np.arange(self.groups)
        group, hosts = found.request_group.astype(np.int32), found.expert_group[..., None] == every
        used = usage_of(parts.rest, group[:, None] == every)
        local = -1
        while self.replicas:
            better = filled(used, held=held)
            if (kept := int(used[better].sum())) <= local:
                break
            hosts, local = better, kept
            group = dealt(AtHome(hosts).gains(parts.rest), room=self.room)
            used = usage_of(parts.rest, group[:, None] == every)
        router = AtHome(hosts, relative=self.judged_by == "share")
        return ExpertGroups(
            placed(hosts, trace, used=used), parts.requests, group, router, self.room, self.opening
        )
