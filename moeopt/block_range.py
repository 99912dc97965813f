"""All contents a GPU may have, too many to list: what they cost, and the traffic as kernels walk through it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.block_overlaps import Overlaps
from moeopt.columns import EMPTY, Columns, block_sizes
from moeopt.problem import Problem


@dataclass(frozen=True, eq=False)
class BlockRange:
    """Every content of `fewest` to `slots` experts within the load cap, on interchangeable GPUs.

    The cost of a content is sum of its experts' own weight - sum over sets of weight x (members inside - 1), where
    that is positive; of the cut, - the pairs inside.

    | field | holds |
    |---|---|
    | pair | int64 [experts, experts]: weight of the sets that contain both, and on the diagonal of those that contain
      the one; of the cut the co-activation, with a diagonal of zeros |
    | sets | int32 [incidences]: the sets of expert 0, those of expert 1, ...; none of the cut |
    | starts | int64 [experts + 1]: where those of each expert begin |
    | members | int16 [incidences, k]: of the set of each incidence, so that a walk through an expert's sets is one |
    | weights | int64 [incidences] |
    | n_sets | how many sets there are |
    | load | int64 [experts] |
    | cap | largest load of a content; None: any |
    | fewest, slots | experts of a content, without the empty one |
    | offset | cost of a placement = offset + sum of the cost of its contents |
    | groups | G |
    """

    pair: NDArray[np.int64]
    sets: NDArray[np.int32]
    starts: NDArray[np.int64]
    members: NDArray[np.int16]
    weights: NDArray[np.int64]
    n_sets: int
    load: NDArray[np.int64]
    cap: int | None
    fewest: int
    slots: int
    offset: int
    groups: int

    @classmethod
    def of(cls, problem: Problem, *, unit: int, offset: int) -> Self:
        """Of a problem of one layer; `unit` is the price of one more GPU."""
        (traffic,) = problem.workload.layers
        experts, cluster = traffic.n_experts, problem.cluster
        slots = min(int(cluster.slots_of[0]), experts)
        weights = problem.set_weights(traffic) * unit
        if problem.objective == "cut":  # pairs are all there is, and may be all that was recorded
            pair = traffic.affinity(weights)
            members, weights = np.zeros((0, 2), np.int16), weights[:0]
        else:
            members = traffic.members.astype(np.int16)
            pair = traffic.affinity(weights) + np.diag(traffic.weighted_load(weights))
        order = np.argsort(members.ravel(), kind="stable")
        starts = np.searchsorted(members.ravel()[order], np.arange(experts + 1))
        sets = (order // max(members.shape[1], 1)).astype(np.int32)
        return cls(
            pair=pair,
            sets=sets,
            starts=starts.astype(np.int64),
            members=np.ascontiguousarray(members[sets]),
            weights=weights[sets],
            n_sets=len(members),
            load=np.asarray(traffic.load),
            cap=problem.load_cap,
            fewest=block_sizes(experts, cluster.gpus, slots=slots)[0],
            slots=slots,
            offset=offset,
            groups=cluster.gpus,
        )

    @property
    def n_experts(self) -> int:
        return len(self.pair)

    @property
    def top_k(self) -> int:
        """Members of a set; 0 of the cut, where pairs are all there is."""
        return int(self.members.shape[1]) if self.n_sets else 0

    @cached_property
    def full(self) -> bool:
        """Whether every slot is used."""
        return self.slots * self.groups == self.n_experts

    @cached_property
    def alone(self) -> NDArray[np.int64]:
        """int64 [experts]: cost of a GPU that holds one expert."""
        return np.ascontiguousarray(np.diag(self.pair))

    @cached_property
    def overlaps(self) -> Overlaps | None:
        """Tables that say what an expert adds to a small content; None where it takes a walk through its sets."""
        return Overlaps.of(self)

    def costs(self, contents: NDArray[np.int16]) -> NDArray[np.int64]:
        """int64 [contents]: exact cost of each row of `contents`, padded with -1."""
        return np.asarray(
            _costs(contents, self.pair, self.sets, self.starts, self.weights, self.n_sets), np.int64
        )

    def columns(self, contents: NDArray[np.int16]) -> Columns:
        """These contents as the columns of a set partition."""
        return Columns(contents, self.costs(contents), self.offset, self.n_experts, self.groups)

    def held(self, gpu_of: NDArray[Any]) -> NDArray[np.int16]:
        """int16 [occupied GPUs, slots]: the contents of a partition, experts ascending, padded with -1."""
        rows = np.full((self.groups, self.slots), EMPTY, np.int16)
        for gpu in range(self.groups):
            inside = np.flatnonzero(gpu_of == gpu)
            rows[gpu, : len(inside)] = inside
        return rows[rows[:, 0] >= 0]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _costs(
    contents: NDArray[np.int16],
    pair: NDArray[np.int64],
    sets: NDArray[np.int32],
    starts: NDArray[np.int64],
    weights: NDArray[np.int64],
    n_sets: int,
) -> Any:
    total = np.zeros(len(contents), np.int64)
    seen = np.full(n_sets, -1, np.int64)
    for row in range(len(contents)):
        for a in range(contents.shape[1]):
            e = contents[row, a]
            if e < 0:
                break
            if not n_sets:
                for b in range(a):
                    total[row] -= pair[e, contents[row, b]]
                continue
            for at in range(starts[e], starts[e + 1]):
                if seen[sets[at]] != row:
                    seen[sets[at]] = row
                    total[row] += weights[at]
    return total
