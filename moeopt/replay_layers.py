"""One layer of a replay: served slice by slice, counted batch by batch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.latency import BatchCounts, ExpertWork, Machine, Seconds, batch_seconds
from moeopt.placement import Placement
from moeopt.replay_rules import Rule
from moeopt.trace import Trace

SLICE = 1 << 16  # tokens of one layer that are held at a time, where a batch is no larger
MOST_COUNTS = 1 << 20  # batches of a slice x GPUs

# What a vector is sent for, one way. The home of a token is the GPU whose requests it belongs to.
VOLUMES: Mapping[str, str] = MappingProxyType(
    {
        "experts": "every expert of a token",
        "gpus": "every GPU of a token: fan-out + 1",
        "nodes": "every node of a token",
        "remote_experts": "experts off the home GPU",
        "remote_gpus": "GPUs but the home",
        "remote_nodes": "nodes but the home's",
        "off_node_experts": "experts off the home's node",
        "off_node_gpus": "GPUs off the home's node",
        "padded": "remote_gpus, each pair the largest",
    }
)


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """What a layer did.

    | field | holds |
    |---|---|
    | touched | int64 [families, 2]: GPUs and nodes touched, summed over tokens |
    | loads | int64 [gpus]: activations served |
    | volumes | int64 [batches, volumes]: vectors sent, in the order of `VOLUMES` |
    | activated | sum over batches of the most experts that one GPU activates |
    | seconds | of each batch; None without a machine |
    """

    touched: NDArray[np.int64]
    loads: NDArray[np.int64]
    volumes: NDArray[np.int64]
    activated: int
    seconds: Seconds | None


@dataclass(frozen=True, eq=False)
class Pass:
    """One replay of a trace, layer by layer.

    | field | holds |
    |---|---|
    | placement, trace, rule, cluster, batch | as `moeopt.replaying.replay` takes them, checked |
    | rows | tokens in the order of the replay; None: as recorded |
    | source | int32 [tokens]: home GPUs, in the trace's order |
    | machine, work | for seconds; None: none |
    """

    placement: Placement
    trace: Trace
    rule: Rule
    cluster: Cluster
    batch: int
    rows: NDArray[np.intp] | None
    source: NDArray[np.int32]
    machine: Machine | None
    work: ExpertWork | None

    def layer(self, index: int, at: int) -> LayerCounts:
        """Layer `index` of the placement, `at` of the trace."""
        from moeopt.replay_kernels import tally

        hosts, primary = self.placement.hosts[index], self.placement.primary[index]
        gpus, per_node = self.cluster.gpus, self.cluster.gpus_per_node
        touched = np.zeros((len(self.trace.families), 2), np.int64)
        loads = np.zeros(gpus, np.int64)
        memory, activated = self.rule.remember(hosts, self.cluster), 0
        volumes: list[NDArray[np.int64]] = []
        times: list[Seconds] = []
        for tokens in self._slices():
            experts = self.trace.experts[tokens, at].astype(np.int32)
            source = np.ascontiguousarray(self.source[tokens])
            served = self.rule.assign(
                experts, hosts, primary=primary, cluster=self.cluster, source=source, memory=memory
            )
            self._check(served, experts, hosts)
            family = np.ascontiguousarray(self.trace.family[tokens])
            sizes = (gpus, per_node, self.trace.n_experts)
            own, used, messages, sent = tally(experts, served, source, family, self.batch, sizes, touched)
            loads += own.sum(axis=0, dtype=np.int64)
            activated += int(used.max(axis=1).sum())
            volumes.append(sent)
            if self.machine is not None and self.work is not None:
                largest, near, far = messages.T
                found = BatchCounts(own, used, largest, near, far, per_node)
                times.append(batch_seconds(found, self.machine, work=self.work))
        seconds = Seconds.join(times) if times else None
        return LayerCounts(touched, loads, np.concatenate(volumes), activated, seconds)

    def _check(self, served: NDArray[np.int32], experts: NDArray[np.int32], hosts: NDArray[np.bool_]) -> None:
        """A rule's word is a claim: every activation is served by a GPU that holds its expert."""
        if served.shape != experts.shape or served.dtype != np.int32:
            raise ValueError(
                f"rule {self.rule.name} must serve int32 {experts.shape}, found {served.dtype} {served.shape}"
            )
        inside = (served >= 0) & (served < hosts.shape[1])
        held = inside & hosts[experts, np.where(inside, served, 0)]
        if not held.all():
            token, member = np.argwhere(~held)[0]
            gpu, expert = served[token, member], experts[token, member]
            raise ValueError(f"rule {self.rule.name}: GPU {gpu} does not hold expert {expert}")

    def _slices(self) -> Iterator[slice | NDArray[np.intp]]:
        """Whole batches, as many as a slice holds: which tokens of the trace."""
        batches = min(SLICE // self.batch, MOST_COUNTS // self.cluster.gpus)
        step = self.batch * max(1, batches)
        for begin in range(0, self.trace.n_tokens, step):
            part = slice(begin, begin + step)
            yield part if self.rows is None else self.rows[part]
