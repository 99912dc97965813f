"""Replicas without GPU labels: which contents are held, and which parts of every set they serve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.content_search import passes, unsearchable
from moeopt.coverage import answer_of, exact_costs, point_of, standard_form
from moeopt.dispatch import Plan
from moeopt.formulation import Proven, unsupported_extras
from moeopt.gatherings import Gatherings, content_count, content_sizes, partitions, togetherness
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

LARGEST_CONTENTS = 200_000
LARGEST_COLUMNS = 3_000_000


@dataclass(frozen=True)
class Covers:
    """Interchangeable GPUs, fan-out, replicas; z[B]: how many GPUs hold exactly the experts B.

    Each set s is parted into parts, each served by one GPU that holds it; P: a partition of s, |P| its parts.
    y[s,P] is the share of s that is parted so, m[A] the number of GPUs that hold all of A, price a further GPU's.

        minimise   sum_s price w[s] (k - 1)  -  sum_s,P price w[s] (k - |P|) y[s,P]
        gpus       sum_B z[B] = G
        copies     sum_B |B| z[B] = E + R
        held       m[A] = sum over B that contain A of z[B]      for every expert and every part A of a set
        once       sum_P y[s,P] <= 1                             for every s; what is left is served expert by expert
        part       sum over P with a part that contains A of y[s,P] <= m[A]          for every A in s, |A| > 1
        star       sum over P with a together with b or c of y[s,P] <= m[ab] + m[ac] - m[abc]      a, b, c in s
        triple     sum over P with two of abc together of y[s,P] <= m[ab] + m[ac] + m[bc] - 2 m[abc]

    z and m are whole, 1 <= m[e], 0 <= y. The right sides of part, star and triple count GPUs: they are 0, and forbid
    their partitions, or at least 1, and follow from once. So for whole z the shares range over the simplex of the
    partitions that can be served: y is whole at a vertex, and star and triple only tighten the relaxation.

    With a load tolerance y counts tokens, whole numbers, of each set and each group v of families with one
    multiplier q; u[A,B] are tokens whose part A is served by the GPUs B. Contents that could be held twice are listed
    once for each GPU, so that z <= 1 and B names one GPU; load[e] is the recorded traffic.

        minimise   sum_s,v,P price q[v] (|P| - 1) y[s,v,P]
        once       sum_P y[s,v,P] = n[s,v]                       part, star, triple: right sides times n[s,v]
        serve      sum_B u[A,B] = sum of y[s,v,P] over P with the part A            for every A
        host       sum over A that contain e of u[A,B] <= load[e] z[B]              for every B, e in B
        loads      sum_A |A| u[A,B] <= cap z[B]                                     for every B
        repeat     z[second B] <= z[first B]

    Dominance: another copy never makes a plan worse or inadmissible, and as long as copies are fewer than E + R
    some GPU has a free slot and lacks an expert (E + R <= sum of min(slots, E)). So all E + R copies are placed,
    and no content is smaller than E + R - (G - 1) m. Single experts need no y: they are available everywhere.
    """

    name: ClassVar[str] = "covers"
    summary: ClassVar[str] = "replicas without GPU labels; exact fan-out, with a load tolerance or without"

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem, replicas=True):
            return reason
        cluster = problem.cluster
        if problem.objective != "fan-out":
            return f"states the fan-out, not the {problem.objective}"
        if not cluster.equal:
            return 'needs interchangeable GPUs, slots or speeds are unequal: use "replicated"'
        if cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost:
            nodes = f"{cluster.nodes} nodes have node cost {cluster.node_cost}"
            return f'needs interchangeable GPUs, {nodes}: use "replicated"'
        if (count := content_count(problem)) > LARGEST_CONTENTS:
            return f"{count:,} contents of a GPU, enumeration ends at {LARGEST_CONTENTS:,}"
        (sets,) = problem.workload.layers
        if sets.top_k > 10:
            return f"partitions of {sets.top_k} experts of a token, enumeration ends at 10"
        columns = len(sets) * len(partitions(sets.top_k, most=int(cluster.slots_of[0])))
        if problem.load_caps is not None:
            columns += sum(
                comb(sets.n_experts, size) * sum(comb(size, part) for part in range(1, sets.top_k + 1))
                for size in content_sizes(problem)
            )
        if columns > LARGEST_COLUMNS:
            return f"{columns:,} columns for {len(sets):,} expert sets, the limit is {LARGEST_COLUMNS:,}"
        return ""

    def unsearchable(self, problem: Problem) -> str:
        return unsearchable(problem)

    def passes(self, problem: Problem, *, best: Any, clock: Any, session: Any) -> Iterator[Proven]:
        return passes(self, problem, best=best, clock=clock, session=session)

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        data = Gatherings.of(problem)
        k, capped = data.members.shape[1], data.capped
        contents, parts, demands = range(len(data.contents)), range(len(data.parts)), range(len(data.sets))
        ways = range(len(data.partitions) - (0 if capped else 1))
        tokens, weights = data.tokens.tolist(), data.weights.tolist()
        inside = list(zip(*(side.tolist() for side in data.inside), strict=True))
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.z = pyo.Var(contents, domain=pyo.Integers, bounds=(0, 1 if capped else data.gpus))
        model.m = pyo.Var(
            parts,
            domain=pyo.Integers,
            bounds=lambda _, a: (1 if len(data.parts[a]) == 1 else 0, data.most_copies),
        )
        model.y = pyo.Var(
            demands,
            ways,
            domain=pyo.Integers if capped else pyo.Reals,
            bounds=lambda _, s, w: (0, tokens[s]),
        )
        model.gpus = pyo.Constraint(expr=sum(model.z.values()) == data.gpus)
        model.copies = pyo.Constraint(
            expr=sum(len(data.contents[b]) * model.z[b] for b in contents) == data.copies
        )
        holding: list[list[int]] = [[] for _ in parts]
        for part, content in inside:
            holding[part].append(content)
        model.held = pyo.Constraint(
            parts, rule=lambda _, a: sum(model.z[b] for b in holding[a]) - model.m[a] == 0
        )
        if ways:
            model.once = pyo.Constraint(
                demands,
                rule=lambda _, s: pyo.inequality(
                    tokens[s] if capped else None, sum(model.y[s, w] for w in ways), tokens[s]
                ),
            )
        rows = togetherness(k, most=data.slots)
        part_of = {places: index.tolist() for places, index in data.demand_parts.items()}
        model.together = pyo.Constraint(
            demands,
            range(len(rows)),
            rule=lambda _, s, r: (
                sum(model.y[s, w] for w in rows[r][0])
                <= tokens[s] * sum(times * model.m[part_of[places][s]] for places, times in rows[r][1])
            ),
        )
        cost: Any = sum(
            weights[s] * (len(data.partitions[w]) - (1 if capped else k)) * model.y[s, w]
            for s in demands
            for w in ways
        )
        model.fan_out = pyo.Objective(expr=cost + (0 if capped else (k - 1) * sum(weights)))
        if capped:
            self._add_loads(model, problem, data, part_of)
        return model

    def _add_loads(
        self, model: Any, problem: Problem, data: Gatherings, part_of: dict[tuple[int, ...], list[int]]
    ) -> None:
        import pyomo.environ as pyo

        traffic = data.traffic.tolist()
        inside = list(zip(*(side.tolist() for side in data.served), strict=True))
        model.u = pyo.Var(inside, domain=pyo.Integers, bounds=lambda _, a, b: (0, traffic[a]))
        served: dict[int, Any] = {a: 0 for a in range(len(data.parts)) if traffic[a]}
        hosted: dict[tuple[int, int], Any] = {}
        loads: dict[int, Any] = {}
        for a, b in inside:
            served[a] += model.u[a, b]
            loads[b] = loads.get(b, 0) + len(data.parts[a]) * model.u[a, b]
            for e in data.parts[a]:
                hosted[e, b] = hosted.get((e, b), 0) + model.u[a, b]
        for places, index in part_of.items():
            for s, a in enumerate(index):
                for w, partition in enumerate(data.partitions):
                    if places in partition:
                        served[a] -= model.y[s, w]
        model.serve = pyo.Constraint(list(served), rule=lambda _, a: served[a] == 0)
        model.host = pyo.Constraint(
            list(hosted), rule=lambda _, e, b: hosted[e, b] <= traffic[e] * model.z[b]
        )
        model.loads = pyo.Constraint(list(loads), rule=lambda _, b: loads[b] <= problem.load_cap * model.z[b])
        again = np.flatnonzero(data.repeats).tolist()
        model.repeat = pyo.Constraint(again, rule=lambda _, b: model.z[b] <= model.z[b - 1])

    def read(self, model: Any) -> Placement | Plan:
        values = [variable.value for variable in model.component_data_objects(model.z.ctype)]
        answer = self.placement(model.problem, np.array(values, dtype=np.float64))
        if answer is None:
            raise ValueError("the values of the model stand for no placement")
        return answer

    def matrix(self, problem: Problem) -> Matrix:
        return standard_form(problem)

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        return exact_costs(problem)

    def values(self, problem: Problem, answer: Placement | Plan) -> NDArray[np.float64]:
        """float [columns]: the point of a placement, or of a plan under a load tolerance; free slots are filled."""
        return point_of(problem, answer)

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | Plan | None:
        return answer_of(problem, x)
