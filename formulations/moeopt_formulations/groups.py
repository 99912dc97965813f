"""Requests and experts of several layers parted together, with activations linearised group by group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import Proven
from moeopt.grouping import Grouping, GroupingProblem
from moeopt.symmetry import alike, first_rows, renumbered

if TYPE_CHECKING:
    from moeopt.matrix import Matrix


SEARCH_SHARE, BOUND_SHARE = 0.1, 0.5  # of the time left, before any row is stated


@dataclass(frozen=True)
class Groups:
    """r[i,d] = 1: group d serves request i, x[l,e,d]: it holds expert e of layer l, z[i,l,e,d]: both.

    With a[i,l,e] activations, n[i] the size of a row, at most m[d] experts of a layer and q[d] requests a group:

        minimise    sum over i,l,e of  a[i,l,e] (1 - sum_d z[i,l,e,d])
        served      sum_d r[i,d] = 1                                  for every i
        quotas      least q[d] <= sum_i n[i] r[i,d] <= q[d]           for every d
        once        sum_d x[l,e,d] = 1                                for every l, e
        slots       fewest m[d] <= sum_e x[l,e,d] <= m[d]             for every l, d
        local       z[i,l,e,d] <= r[i,d],  z[i,l,e,d] <= x[l,e,d]     for every i, l, e with a > 0, and d
        by request  sum_e z[i,l,e,d] <= m[d] r[i,d]                   for every i, l, d
        by expert   sum_i n[i] z[i,l,e,d] <= q[d] x[l,e,d]            for every l, e, d
        first       sum over d' >= d of r[i,d'] <= sum over j<i of r[j,d-1]    for every i and alike d - 1, d

    Only r is binary: with r fixed the rest is a transportation problem for every layer, which is whole by itself.
    z = r x, and local alone would allow r = x = z = 1/D at cost 0. by request is the slots row times r[i,d], by
    expert the quotas row times x[l,e,d]; with them the relaxation is at least the degree-constrained matching of
    requests with experts: a request finds at most m experts of a layer at home, an expert q requests. first
    numbers groups that are alike by their first request.
    """

    name: ClassVar[str] = "groups"
    states: ClassVar[str] = "moeopt.grouping.GroupingProblem"
    summary: ClassVar[str] = (
        "requests and experts grouped together; fewest remote activations, exact capacities"
    )

    def supports(self, problem: object) -> str:
        if not isinstance(problem, GroupingProblem):
            return f"states a GroupingProblem, found {type(problem).__name__}: see moeopt.grouping"
        return ""

    def unsearchable(self, problem: GroupingProblem) -> str:
        """Every grouping can be searched; nothing is proved where there is one group."""
        return "" if problem.groups > 1 else "one group holds everything"

    def passes(self, problem: GroupingProblem, *, best: Any, clock: Any, session: Any) -> Iterator[Proven]:
        """An alternated grouping, then the semidefinite bound: at real sizes the rows yield neither."""
        from moeopt.grouping_search import alternated
        from moeopt.relaxations.grouping import grouping_bound

        if (found := alternated(problem, clock=clock.part(SEARCH_SHARE), seed=0)) is not None:
            best.offer(found)
        proof = grouping_bound(problem, clock=clock.part(BOUND_SHARE), seed=0, cost=best.cost)
        if proof is not None:
            yield Proven(proof.kind, proof.bound, proof.numbers)

    def build(self, problem: GroupingProblem) -> Any:
        import pyomo.environ as pyo

        a, n = problem.activations, problem.size_of.tolist()
        (least, q), (fewest, m) = problem.request_bounds.tolist(), problem.expert_bounds.tolist()
        requests, layers, experts = (range(size) for size in a.shape)
        groups = range(problem.groups)
        active = [tuple(key) for key in np.argwhere(a > 0).tolist()]
        of_request: dict[Any, list[int]] = {(i, layer): [] for i in requests for layer in layers}
        of_expert: dict[Any, list[int]] = {(layer, e): [] for layer in layers for e in experts}
        for i, layer, e in active:
            of_request[i, layer].append(e)
            of_expert[layer, e].append(i)

        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.r = pyo.Var(requests, groups, domain=pyo.Binary)
        model.x = pyo.Var(layers, experts, groups, bounds=(0, 1))
        model.z = pyo.Var(active, groups, bounds=(0, 1))
        r, x, z = model.r, model.x, model.z
        model.remote = pyo.Objective(
            expr=sum(int(a[key]) * (1 - sum(z[(*key, d)] for d in groups)) for key in active)
        )
        model.served = pyo.Constraint(requests, rule=lambda _, i: sum(r[i, d] for d in groups) == 1)
        model.quotas = pyo.Constraint(
            groups, rule=lambda _, d: pyo.inequality(least[d], sum(n[i] * r[i, d] for i in requests), q[d])
        )
        model.once = pyo.Constraint(
            layers, experts, rule=lambda _, layer, e: sum(x[layer, e, d] for d in groups) == 1
        )
        model.slots = pyo.Constraint(
            layers,
            groups,
            rule=lambda _, layer, d: pyo.inequality(fewest[d], sum(x[layer, e, d] for e in experts), m[d]),
        )
        model.local_request = pyo.Constraint(
            active, groups, rule=lambda _, i, layer, e, d: z[i, layer, e, d] <= r[i, d]
        )
        model.local_expert = pyo.Constraint(
            active, groups, rule=lambda _, i, layer, e, d: z[i, layer, e, d] <= x[layer, e, d]
        )
        model.by_request = pyo.Constraint(
            [key for key, members in of_request.items() if members],
            groups,
            rule=lambda _, i, layer, d: (
                sum(z[i, layer, e, d] for e in of_request[i, layer]) <= m[d] * r[i, d]
            ),
        )
        model.by_expert = pyo.Constraint(
            [key for key, members in of_expert.items() if members],
            groups,
            rule=lambda _, layer, e, d: (
                sum(n[i] * z[i, layer, e, d] for i in of_expert[layer, e]) <= q[d] * x[layer, e, d]
            ),
        )
        model.first = pyo.ConstraintList()
        for i, later, earlier, before in first_rows(_alike(problem), requests):
            model.first.add(sum(r[i, d] for d in later) <= sum(r[j, before] for j in earlier))
        return model

    def read(self, model: Any) -> Grouping:
        values = np.array([variable.value for variable in model.r.values()], dtype=np.float64)
        answer = self.placement(model.problem, values)
        if answer is None:
            raise ValueError("the values of the model do not put every request in one group")
        return answer

    def placement(self, problem: GroupingProblem, x: NDArray[np.float64]) -> Grouping | None:
        """The cheapest grouping with the request groups of a point of the matrix; None when it has none."""
        served = x[: problem.n_requests * problem.groups].reshape(problem.n_requests, problem.groups) > 0.5
        if (served.sum(axis=1) != 1).any():
            return None
        return problem.complete(served.argmax(axis=1))

    def values(self, problem: GroupingProblem, answer: Grouping) -> NDArray[np.float64]:
        """float [columns]: a grouping as a point of the matrix, alike groups renumbered by their first request."""
        name_of = renumbered(answer.request_group, _alike(problem), groups=problem.groups)
        r = name_of[answer.request_group][:, None] == np.arange(problem.groups)
        x = name_of[answer.expert_group][..., None] == np.arange(problem.groups)
        i, layer, e = np.nonzero(problem.activations)
        return np.concatenate([part.ravel() for part in (r, x, r[i] & x[layer, e])]).astype(float)

    def costs(self, problem: GroupingProblem) -> tuple[NDArray[np.int64], int]:
        """int64 [columns] and the constant: the objective in exact integers."""
        a = problem.activations
        free = (problem.n_requests + problem.n_layers * problem.n_experts) * problem.groups
        together = -np.repeat(a[np.nonzero(a)], problem.groups)
        return np.concatenate([np.zeros(free, np.int64), together]), int(a.sum())

    def matrix(self, problem: GroupingProblem) -> Matrix:
        """The standard form of the statement, built directly; columns are named as Pyomo names them."""
        from scipy.sparse import block_array, csr_array, eye_array, kron

        from moeopt.matrix import Matrix

        a, count = problem.activations, problem.groups
        requests, layers, experts = a.shape
        (least, q), (fewest, m) = problem.request_bounds, problem.expert_bounds
        i, layer, e = np.nonzero(a)
        numbers = np.arange(i.size)
        slot = layer * experts + e
        per_group = eye_array(count)

        def incidence(row: NDArray[np.intp], weight: NDArray[np.int64], rows: int) -> Any:
            return csr_array((weight.astype(float), (row, numbers)), shape=(rows, i.size))

        def expanded(row: Any) -> Any:
            return kron(row, per_group, format="csr")

        one = np.ones(i.size, np.int64)
        pair = i * layers + layer  # of request and layer
        used_pairs, used_slots = np.unique(pair), np.unique(slot)
        pick_request = eye_array(requests, format="csr")
        pick_slot = eye_array(layers * experts, format="csr")
        z = eye_array(i.size * count, format="csr")
        by_request = incidence(pair, one, requests * layers)[used_pairs]
        by_expert = incidence(slot, problem.size_of[i], layers * experts)[used_slots]
        first = _first_matrix(problem)
        total = problem.size_of[None].astype(float)
        blocks = [
            [kron(pick_request, np.ones((1, count))), None, None],
            [expanded(total), None, None],
            [None, kron(pick_slot, np.ones((1, count))), None],
            [None, expanded(kron(eye_array(layers), np.ones((1, experts)))), None],
            [-expanded(pick_request[i]), None, z],
            [None, -expanded(pick_slot[slot]), z],
            [-kron(pick_request[used_pairs // layers], np.diag(m)), None, expanded(by_request)],
            [None, -kron(pick_slot[used_slots], np.diag(q)), expanded(by_expert)],
            [first, csr_array((first.shape[0], layers * experts * count)), None],
        ]
        at_most_zero = 2 * z.shape[0] + (len(used_pairs) + len(used_slots)) * count + first.shape[0]
        ones = np.ones(requests), np.ones(layers * experts)
        nothing = np.full(at_most_zero, -np.inf)
        cost, offset = self.costs(problem)
        groups = range(count)
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=np.ones(cost.size),
            integer=np.arange(cost.size) < requests * count,
            rows=block_array(blocks, format="csr"),
            row_lower=np.concatenate([ones[0], least, ones[1], np.tile(fewest, layers), nothing]),
            row_upper=np.concatenate([ones[0], q, ones[1], np.tile(m, layers), np.zeros(at_most_zero)]),
            column_names=(
                *(f"r[{j},{d}]" for j in range(requests) for d in groups),
                *(f"x[{k},{f},{d}]" for k in range(layers) for f in range(experts) for d in groups),
                *(f"z[{j},{k},{f},{d}]" for j, k, f in np.argwhere(a > 0).tolist() for d in groups),
            ),
        )


def _alike(problem: GroupingProblem) -> list[tuple[int, ...]]:
    """Groups with equal quotas and equal slots."""
    return alike(*problem.request_bounds, *problem.expert_bounds)


def _first_matrix(problem: GroupingProblem) -> Any:
    """csr [rows, requests x groups]: the rows `first`, at most 0."""
    from scipy.sparse import csr_array

    rows, count = list(first_rows(_alike(problem), range(problem.n_requests))), problem.groups
    entries = [
        (number, item * count + group, sign)
        for number, row in enumerate(rows)
        for sign, items, groups in ((1.0, (row.item,), row.later), (-1.0, row.earlier, (row.before,)))
        for item in items
        for group in groups
    ]
    at, column, value = np.array(entries).reshape(-1, 3).T
    return csr_array(
        (value, (at.astype(int), column.astype(int))), shape=(len(rows), problem.n_requests * count)
    )
