r"""Set partitioning over contents of a GPU that are too many to list: the statement of `blocks`, columns by pricing.

Sets, data, variables, objective and constraints are those of `moeopt_formulations.blocks`. What differs is the route:
prices pi of the experts and mu of a GPU come from the contents met so far; the contents of least reduced cost
c_B - pi(B) - mu are found by branch and bound over partial contents, never by a list of all. A placement cheaper than
the best one known uses only contents whose reduced costs are below the gap, and these are few enough to search.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from moeopt.columns import Columns
from moeopt.problem import Problem
from moeopt_formulations.blocks import LARGEST_COUNT, Blocks, common_reason

MOST_SLOTS, MOST_EXPERTS = 16, 1024


@dataclass(frozen=True)
class Priced(Blocks):
    """Set partitioning with columns priced instead of listed: any number of contents, GPUs of 2 to 16 slots."""

    name: ClassVar[str] = "priced"
    summary: ClassVar[str] = (
        "set partitioning over contents too many to list, priced by branch and bound; exact fan-out or cut"
    )

    def supports(self, problem: Problem) -> str:
        """Why not; empty when it does."""
        if reason := common_reason(problem):
            return reason
        size, _ = self._size(problem)
        if not 2 <= size <= MOST_SLOTS:
            return f"prices contents of 2 to {MOST_SLOTS} experts, found slots for {size}"
        if problem.workload.n_experts > MOST_EXPERTS:
            return f"keeps pairs of up to {MOST_EXPERTS} experts, found {problem.workload.n_experts}"
        return ""

    def columns(self, problem: Problem) -> Columns:
        """Every content, where they can be listed; ValueError with their number elsewhere."""
        size, count = self._size(problem)
        if count > LARGEST_COUNT:
            raise ValueError(f"{count:,} contents of {size} experts, enumeration ends at {LARGEST_COUNT:,}")
        return super().columns(problem)

    def block_range(self, problem: Problem) -> Any:
        """The contents as `moeopt` searches them (`moeopt.block_range.BlockRange`)."""
        from moeopt.block_range import BlockRange

        unit = problem.cluster.further_gpu
        offset = -problem.total_weight if problem.objective == "fan-out" else problem.pair_weight
        return BlockRange.of(problem, unit=unit, offset=unit * offset)
