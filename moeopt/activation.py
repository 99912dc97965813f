"""Experts that a batch activates on every GPU: what decoding waits for, since each one is read from memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import links
from moeopt.cluster import Cluster
from moeopt.splitting import SplitProblem
from moeopt.trace import DECODE, Trace


@dataclass(frozen=True, eq=False)
class Activation:
    """A placement of one layer with, for every batch, the copy that serves each activated expert.

    | field | holds |
    |---|---|
    | hosts | bool [experts, gpus]: the GPU holds a copy |
    | serving | int32 [batches, experts]: GPU that serves the expert, -1 where the batch does not activate it |

    Equal and hashable by value.
    """

    hosts: NDArray[np.bool_]
    serving: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        for name, dtype in (("hosts", np.bool_), ("serving", np.int32)):
            value = np.array(getattr(self, name), dtype)
            if value.ndim != 2:
                raise ValueError(f"{name} must have two axes, found shape {list(value.shape)}")
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    def _key(self) -> tuple[object, ...]:
        return (self.hosts.shape, self.serving.shape, self.hosts.tobytes(), self.serving.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True, eq=False)
class ActivationProblem:
    """Place the experts of one layer so that no GPU activates many of them in a decode batch.

    | field | holds |
    |---|---|
    | batches | bool [batches, experts]: the batch activates the expert |
    | cluster | GPUs and their slots; prices do not matter here |
    | replicas | copies beyond the first, at most |
    | hosts | bool [experts, gpus] when the placement is given and only the copies are chosen; None: it is free |
    | worst | count the worst batch only; else the sum over batches |

    A batch uses one copy of every expert that it activates. cost = sum (or, with worst, maximum) over the batches of
    the most experts that a GPU activates.

    Source: METRO (expert parallelism for memory-bound decoding), which chooses copies greedily for a given placement.
    Raises ValueError for what arithmetic alone rules out.
    """

    batches: NDArray[np.bool_]
    cluster: Cluster
    replicas: int = 0
    hosts: NDArray[np.bool_] | None = None
    worst: bool = False

    def __post_init__(self) -> None:
        batches = np.array(self.batches)
        if batches.ndim != 2 or 0 in batches.shape or batches.dtype != np.bool_:
            raise ValueError(
                f"batches must be bool [batches, experts], found {batches.dtype}{list(batches.shape)}"
            )
        batches.setflags(write=False)
        object.__setattr__(self, "batches", batches)
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int) or self.replicas < 0:
            raise ValueError(f"replicas must be a whole number, at least 0, found {self.replicas!r}")
        slots = int(np.minimum(self.cluster.slots_of, self.n_experts).sum())
        if self.n_experts + self.replicas > slots:
            raise ValueError(
                f"{self.n_experts} experts and {self.replicas} replicas need as many slots, "
                f"{self.cluster.gpus} GPUs offer {slots}"
            )
        if self.hosts is None:
            return
        hosts = np.array(self.hosts)
        if hosts.shape != (self.n_experts, self.cluster.gpus) or hosts.dtype != np.bool_:
            raise ValueError(
                f"hosts must be bool [{self.n_experts}, {self.cluster.gpus}], found {hosts.dtype}{list(hosts.shape)}"
            )
        if broken := self._hosting(hosts):
            raise ValueError(f"hosts: {broken}")
        hosts.setflags(write=False)
        object.__setattr__(self, "hosts", hosts)

    @classmethod
    def from_trace(
        cls,
        trace: Trace,
        cluster: Cluster,
        *,
        batch_size: int,
        layer: int,
        phase: int | None = DECODE,
        most: int | None = None,
        replicas: int = 0,
        hosts: NDArray[np.bool_] | None = None,
        worst: bool = False,
    ) -> Self:
        """Batches as if all requests of a trace started together and were decoded side by side.

        The tokens of the phase (None: of all) are ordered by their step, which is their rank within their request,
        then by request, and cut into batches of `batch_size` tokens; what is left at the end is left out. `most`
        keeps that many batches, evenly spaced. `layer` is an absolute layer index.

        Raises ValueError when the tokens do not fill a batch.
        """
        chosen = trace.layers([layer])
        if phase is not None:
            if not (chosen.phase == phase).any():
                raise ValueError(f"the trace has no token of phase {phase}")
            chosen = chosen.take(chosen.phase == phase)
        for name, value in (("batch_size", batch_size), ("most", 1 if most is None else most)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number, at least 1, found {value!r}")
        count = chosen.n_tokens // batch_size
        if not count:
            raise ValueError(f"{chosen.n_tokens} tokens do not fill a batch of {batch_size}")
        order = np.lexsort([chosen.position, chosen.request])
        starts = np.flatnonzero(np.diff(chosen.request[order], prepend=-1))
        lengths = np.diff(starts, append=chosen.n_tokens)
        step = np.arange(chosen.n_tokens) - np.repeat(starts, lengths)
        order = order[np.argsort(step, kind="stable")][: count * batch_size]
        kept = np.arange(count) if most is None else np.unique(np.linspace(0, count - 1, most).astype(int))
        experts = chosen.experts[order, 0].reshape(count, -1)[kept]
        batches = np.zeros((len(kept), trace.n_experts), bool)
        np.put_along_axis(batches, experts.astype(np.int64), True, axis=1)
        return cls(batches, cluster, replicas, hosts, worst)

    @property
    def n_batches(self) -> int:
        return int(self.batches.shape[0])

    @property
    def n_experts(self) -> int:
        return int(self.batches.shape[1])

    @cached_property
    def digest(self) -> str:
        facts = (self.cluster.slots_of.tolist(), self.replicas, self.worst)
        hosts = None if self.hosts is None else self.hosts.astype(np.int64)
        return links.fingerprint("moeopt-activation", facts, self.batches.astype(np.int64), hosts)

    def activated(self, answer: Activation) -> NDArray[np.int64]:
        """int64 [batches, gpus]: experts that each GPU serves in each batch."""
        self._check_shape(answer)
        served: NDArray[np.int64] = (answer.serving[..., None] == np.arange(self.cluster.gpus)).sum(axis=1)
        return served

    def cost(self, answer: Activation, /) -> int:
        most = self.activated(answer).max(axis=1)
        return int(most.max() if self.worst else most.sum())

    def violation(self, answer: Activation, /) -> str:
        self._check_shape(answer)
        if broken := self._hosting(answer.hosts):
            return broken
        if self.hosts is not None and (moved := (answer.hosts != self.hosts).any(axis=1)).any():
            return f"expert {int(moved.argmax())} is not on the GPUs that are given"
        served = answer.serving >= 0
        for batch, expert in np.argwhere(served != self.batches)[:1]:
            found, wanted = answer.serving[batch, expert], self.batches[batch, expert]
            return f"batch {batch}, expert {expert}: served by GPU {found}, activated is {bool(wanted)}"
        held = answer.hosts[np.arange(self.n_experts), answer.serving]
        for batch, expert in np.argwhere(served & ~held)[:1]:
            return f"batch {batch}: GPU {answer.serving[batch, expert]} serves expert {expert} and does not hold it"
        return ""

    def serve(self, hosts: NDArray[np.bool_]) -> Activation:
        """The best choice of copies for a placement, bool [experts, gpus]: exact, batch by batch."""
        serving = np.full(self.batches.shape, -1, np.int32)
        for row, active in zip(serving, self.batches, strict=True):
            split, _ = SplitProblem(active.astype(np.int64), hosts).solve()
            row[active] = split.tokens[active].argmax(axis=1)
        return Activation(hosts, serving)

    def candidates(self) -> Iterator[Activation]:
        """For every admissible placement one with the best choice of copies, found by trying every choice."""
        for hosts in self._placements():
            serving = np.full(self.batches.shape, -1)
            for row, active in zip(serving, self.batches, strict=True):
                ways = links.every_choice([np.flatnonzero(held).tolist() for held in hosts[active]])
                row[active] = min(ways, key=lambda way: max(map(way.count, way), default=0))
            yield Activation(hosts, serving)

    def _placements(self) -> Iterator[NDArray[np.bool_]]:
        if self.hosts is not None:
            yield self.hosts
            return
        gpus = range(self.cluster.gpus)
        subsets = [[mask >> g & 1 for g in gpus] for mask in range(1, 1 << len(gpus))]
        for rows in links.every_choice([subsets] * self.n_experts):
            hosts = np.array(rows, bool)
            if not self._hosting(hosts):
                yield hosts

    def _hosting(self, hosts: NDArray[np.bool_]) -> str:
        """The first rule that a placement breaks."""
        held, slots = hosts.sum(axis=0), self.cluster.slots_of
        for gpu in np.flatnonzero(held > slots)[:1]:
            return f"GPU {gpu} holds {held[gpu]} experts, slots are {slots[gpu]}"
        if not hosts.any(axis=1).all():
            return f"expert {int(hosts.any(axis=1).argmin())} is on no GPU"
        if (copies := int(hosts.sum()) - self.n_experts) > self.replicas:
            return f"{copies} replicas, the budget is {self.replicas}"
        return ""

    def _check_shape(self, answer: Activation) -> None:
        shapes: tuple[tuple[str, Any], ...] = (
            ("hosts", (self.n_experts, self.cluster.gpus)),
            ("serving", self.batches.shape),
        )
        for name, shape in shapes:
            if (found := getattr(answer, name).shape) != shape:
                raise ValueError(f"{name} must have shape {list(shape)}, found {list(found)}")
        if answer.serving.min() < -1 or answer.serving.max() >= self.cluster.gpus:
            raise ValueError(
                f"serving must name GPUs 0..{self.cluster.gpus - 1} or -1, "
                f"found {answer.serving.min()}..{answer.serving.max()}"
            )
