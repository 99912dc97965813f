"""Tokens split over the copies of a given placement: the fullest GPU serves as few as possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.splitting import Split, SplitProblem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix


@dataclass(frozen=True)
class TokenSplit:
    """x[e,g] tokens of expert e are served by GPU g, t by the fullest. With load[e] and the hosts of every expert:

        minimise    t
        served      sum over hosts g of x[e,g] = load[e]     for every e
        fullest     sum_e x[e,g] <= t                        for every g that holds an expert

    x and t are whole. For a whole t the rows are those of a flow from experts to GPUs, which is whole at every
    vertex; so the least cost is the value of the linear relaxation rounded up, and a solver branches on t at most.
    The relaxation is the largest load(experts with every copy in S) / |S| over the sets S of GPUs.
    `SplitProblem.solve` finds both without a solver.

    Source: FineMoE, arXiv 2511.16947.
    """

    name: ClassVar[str] = "token-split"
    states: ClassVar[str] = "moeopt.splitting.SplitProblem"
    summary: ClassVar[str] = "tokens split over the copies of a placement; smallest maximum load of a GPU"

    def supports(self, problem: object) -> str:
        if not isinstance(problem, SplitProblem):
            return f"states a SplitProblem, found {type(problem).__name__}: see moeopt.splitting"
        return ""

    def build(self, problem: SplitProblem) -> Any:
        import pyomo.environ as pyo

        load, hosts = problem.load.tolist(), [tuple(key) for key in np.argwhere(problem.hosts).tolist()]
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.x = pyo.Var(hosts, domain=pyo.Integers, bounds=lambda _, e, g: (0, load[e]))
        model.t = pyo.Var(domain=pyo.Integers, bounds=(0, sum(load)))
        model.maximum = pyo.Objective(expr=model.t)
        model.served = pyo.Constraint(
            range(problem.n_experts),
            rule=lambda _, e: sum(model.x[f, g] for f, g in hosts if f == e) == load[e],
        )
        model.fullest = pyo.Constraint(
            sorted({g for _, g in hosts}),
            rule=lambda _, g: sum(model.x[e, h] for e, h in hosts if h == g) - model.t <= 0,
        )
        return model

    def read(self, model: Any) -> Split:
        return self.placement(model.problem, np.array([variable.value for variable in model.x.values()]))

    def placement(self, problem: SplitProblem, x: NDArray[np.float64]) -> Split:
        """The split of a point of the matrix, whole up to rounding."""
        tokens = np.zeros(problem.hosts.shape, np.int64)
        tokens[problem.hosts] = np.rint(x[: int(problem.hosts.sum())]).astype(np.int64)
        return Split(tokens, problem.hosts)

    def values(self, problem: SplitProblem, answer: Split) -> NDArray[np.float64]:
        """float [columns]: a split as a point of the matrix."""
        return np.append(answer.tokens[problem.hosts], problem.cost(answer)).astype(float)

    def costs(self, problem: SplitProblem) -> tuple[NDArray[np.int64], int]:
        """int64 [columns] and the constant: the objective in exact integers."""
        return np.append(np.zeros(int(problem.hosts.sum()), np.int64), 1), 0

    def matrix(self, problem: SplitProblem) -> Matrix:
        """The standard form of the statement, built directly; columns are named as Pyomo names them."""
        from scipy.sparse import block_array, csr_array

        from moeopt.matrix import Matrix

        expert, gpu = np.nonzero(problem.hosts)
        copies = np.arange(expert.size)
        served = csr_array((np.ones(expert.size), (expert, copies)), shape=(problem.n_experts, expert.size))
        on = csr_array((np.ones(expert.size), (gpu, copies)), shape=(problem.gpus, expert.size))
        on = on[np.unique(gpu)]
        width, nobody = expert.size + 1, np.zeros((problem.n_experts, 1))
        load = problem.load.astype(float)
        return Matrix(
            cost=self.costs(problem)[0].astype(float),
            lower=np.zeros(width),
            upper=np.append(load[expert], load.sum()),
            integer=np.ones(width, bool),
            rows=block_array([[served, csr_array(nobody)], [on, -np.ones((on.shape[0], 1))]], format="csr"),
            row_lower=np.concatenate([load, np.full(on.shape[0], -np.inf)]),
            row_upper=np.concatenate([load, np.zeros(on.shape[0])]),
            column_names=(
                *(f"x[{e},{g}]" for e, g in np.argwhere(problem.hosts).tolist()),
                "t",
            ),
        )
