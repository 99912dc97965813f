"""Experts of all layers at once, for tokens that travel from layer to layer (ExFlow)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.placement import Placement

if TYPE_CHECKING:
    from moeopt.matrix import Matrix


@dataclass(frozen=True)
class Layers:
    """Several layers, one copy each; x[l,e,g] = 1: expert e of layer l is on GPU g.

    With F[l,e,f] transfers from e to f of the next layer, prices p and q of a further GPU and node, slots m[g],
    P[l,e,g] the cost of e's transfers with the homes of tokens when e is on g, and s[l,e,f,g] = 1: e of layer l
    and f of layer l+1 share GPU g, stated for F[l,e,f] > 0:

        minimise    sum P[l,e,g] x[l,e,g]  +  sum over l,e,f of  F[l,e,f] p (1 - sum_g s[l,e,f,g])
        once        sum_g x[l,e,g] = 1                                 for every l, e
        slots       sum_e x[l,e,g] <= m[g]                             for every l, g
        loads       sum_e load[l,e] x[l,e,g] <= cap[l,g]               for every l, g, with a load tolerance
        together    s[l,e,f,g] <= x[l,e,g],  s[l,e,f,g] <= x[l+1,f,g]  for every l, e, f, g
        room        sum_f s[l,e,f,g] <= m[g] x[l,e,g]                  for every l, e, g with more than m[g] f
                    sum_e s[l,e,f,g] <= m[g] x[l+1,f,g]                for every l, f, g with more than m[g] e
        order       sum over h>g of x[0,e,h] <= sum over e'<e of x[0,e',g]   for every e, g < G, when GPUs are alike

    With a price on nodes of several GPUs there is s_node[l,e,f,n], of price q, with the same rows together and room
    over x_node, the sum of x over the GPUs of a node, and m over its slots; order then holds inside each node, and
    for x_node among nodes. x is binary, 0 <= s <= 1 is whole by itself.

    The s say as much as a transport y[l,e,f,g,h] between the GPUs of e and f, with G times fewer columns: prices of
    two levels are a tree, where the cheapest transport keeps on a GPU, then in a node, all that both ends have there.
    room is slots times x[l,e,g]: without it x = 1/G costs nothing. With it the relaxation, but for order, is
    one transportation problem a step, in which each expert keeps its m best partners. Where nothing passes from expert
    to expert (tokens return home) there is no s: a transportation problem a layer, whole by itself without loads.

    Source: ExFlow, arXiv 2401.08383, which states |x - x'| token by token; here tokens are summed into F.
    """

    name: ClassVar[str] = "layers"
    states: ClassVar[str] = "moeopt.flow.FlowProblem"
    summary: ClassVar[str] = "all layers at once, transfers from layer to layer or home and back (ExFlow)"

    def supports(self, problem: Any) -> str:
        if not isinstance(problem, FlowProblem):
            return f"states a FlowProblem, found {type(problem).__name__}: see moeopt.flow"
        return ""

    def build(self, problem: FlowProblem) -> Any:
        import pyomo.environ as pyo

        cluster, pull = problem.cluster, problem.pull
        layers, experts, gpus = range(problem.n_layers), range(problem.n_experts), range(cluster.gpus)
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        x = model.x = pyo.Var(layers, experts, gpus, domain=pyo.Binary)
        model.once = pyo.Constraint(layers, experts, rule=lambda _, i, e: sum(x[i, e, g] for g in gpus) == 1)
        model.slots = pyo.Constraint(
            layers, gpus, rule=lambda _, i, g: sum(x[i, e, g] for e in experts) <= int(cluster.slots_of[g])
        )
        if problem.load is not None and problem.load_caps is not None:
            load, caps = problem.load.tolist(), problem.load_caps.tolist()
            model.loads = pyo.Constraint(
                layers,
                gpus,
                rule=lambda _, i, g: sum(load[i][e] * x[i, e, g] for e in experts) <= caps[i][g],
            )
        model.travel = pyo.Objective(
            expr=sum(int(pull[at]) * x[at] for at in x)
            + sum(_shared(model, problem, level) for level in _levels(problem))
        )
        if _nameless(problem):
            pairs = [
                tuple(np.flatnonzero(row).tolist() for row in pair)
                for pair in zip(*_openings(cluster), strict=True)
            ]
            model.order = pyo.Constraint(
                experts,
                range(len(pairs)),
                rule=lambda _, e, r: (
                    sum(x[0, e, g] for g in pairs[r][1])
                    <= sum(x[0, d, g] for d in range(e) for g in pairs[r][0])
                ),
            )
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.x.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError("the values of the model do not put every expert on one GPU")
        return placement

    def matrix(self, problem: FlowProblem) -> Matrix:
        """The standard form, built in array arithmetic."""
        from scipy.sparse import block_array, csr_array, eye_array, kron

        from moeopt.matrix import Matrix

        layers, experts, gpus = problem.n_layers, problem.n_experts, problem.cluster.gpus
        levels, ties = _levels(problem), np.argwhere(problem.flow > 0)
        seats = eye_array(layers * experts, format="csr")  # rows [layers x experts], times the GPUs of x
        per_gpu = kron(np.ones((1, experts)), eye_array(gpus))
        blocks: list[list[Any]] = [
            [kron(seats, np.ones((1, gpus)))],
            [kron(eye_array(layers), per_gpu)],
        ]
        lower = [np.ones(layers * experts), np.full(layers * gpus, -np.inf)]
        upper = [np.ones(layers * experts), np.tile(problem.cluster.slots_of, layers).astype(float)]
        if problem.load is not None and problem.load_caps is not None:
            each = csr_array(problem.load.ravel()[None, :].astype(float))
            total = kron(eye_array(layers), np.ones((1, experts))).multiply(each)
            blocks.append([kron(total, eye_array(gpus))])
            lower.append(np.full(layers * gpus, -np.inf))
            upper.append(problem.load_caps.ravel().astype(float))
        if _nameless(problem):
            before, after = _openings(problem.cluster)
            earlier = np.tri(experts, k=-1)
            first = kron(eye_array(experts), after) - kron(earlier, before)
            rest = csr_array((first.shape[0], (layers - 1) * experts * gpus))
            blocks.append([block_array([[first, rest]]) if layers > 1 else first])
            lower.append(np.full(first.shape[0], -np.inf))
            upper.append(np.zeros(first.shape[0]))
        names = [f"x[{i},{e},{g}]" for i in range(layers) for e in range(experts) for g in range(gpus)]
        for position, level in enumerate(levels):
            inside = level.inside(gpus)
            for step in (0, 1):
                owner = (ties[:, 0] + step) * experts + ties[:, 1 + step]
                onto = csr_array(
                    (np.ones(len(ties)), (owner, np.arange(len(ties)))), (layers * experts, len(ties))
                )
                many = (onto.sum(axis=1)[:, None] > level.slots).ravel()
                room = kron(onto, eye_array(level.groups), format="csr")[many]
                limit = kron(seats, level.slots[:, None] * inside, format="csr")[many]
                for mine, of_x in ((eye_array(room.shape[1]), kron(seats[owner], inside)), (room, limit)):
                    row: list[Any] = [-of_x] + [None] * len(levels)
                    row[1 + position] = mine
                    blocks.append(row)
                    lower.append(np.full(mine.shape[0], -np.inf))
                    upper.append(np.zeros(mine.shape[0]))
            names += [
                f"{level.name}[{i},{e},{f},{a}]" for i, e, f in ties.tolist() for a in range(level.groups)
            ]
        full = [row + [None] * (1 + len(levels) - len(row)) for row in blocks]
        cost, offset = self.costs(problem)
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=np.ones(cost.size),
            integer=np.arange(cost.size) < layers * experts * gpus,
            rows=block_array(full, format="csr"),
            row_lower=np.concatenate(lower),
            row_upper=np.concatenate(upper),
            column_names=tuple(names),
        )

    def costs(self, problem: FlowProblem) -> tuple[NDArray[np.int64], int]:
        """int64 [columns] and the constant: the objective in exact integers."""
        flow = problem.flow[problem.flow > 0]
        levels = _levels(problem)
        shared = [np.repeat(-level.price * flow, level.groups) for level in levels]
        return np.concatenate([problem.pull.ravel(), *shared]), sum(
            int(level.price * flow.sum()) for level in levels
        )

    def values(self, problem: FlowProblem, placement: Placement) -> NDArray[np.float64]:
        """float [columns]: the placement, its GPUs renamed as order wants them where they are alike."""
        gpu_of = _renamed(problem.cluster, placement.primary) if _nameless(problem) else placement.primary
        step, e, f = np.argwhere(problem.flow > 0).T
        parts = [gpu_of[..., None] == np.arange(problem.cluster.gpus)]
        for level in _levels(problem):
            on = level.group_of[gpu_of][..., None] == np.arange(level.groups)
            parts.append(on[step, e] & on[step + 1, f])
        return np.concatenate([part.ravel() for part in parts]).astype(float)

    def placement(self, problem: FlowProblem, x: NDArray[np.float64]) -> Placement | None:
        """The placement that a point stands for; None when an expert is not on one GPU."""
        shape = (problem.n_layers, problem.n_experts, problem.cluster.gpus)
        on = x[: int(np.prod(shape))].reshape(shape) > 0.5
        if (on.sum(axis=2) != 1).any():
            return None
        return problem.partition(on.argmax(axis=2))


@dataclass(frozen=True, eq=False)
class _Level:
    """GPUs or nodes: name of the variables s, price, int64 [gpus] group of each GPU, int64 [groups] slots."""

    name: str
    price: int
    group_of: NDArray[np.int64]
    slots: NDArray[np.int64]

    @property
    def groups(self) -> int:
        return len(self.slots)

    def inside(self, gpus: int) -> NDArray[np.float64]:
        """float [groups, gpus]: whether a GPU belongs to a group."""
        return np.asarray(self.group_of == np.arange(self.groups)[:, None], float)


def _two_levels(cluster: Cluster) -> bool:
    return bool(cluster.node_cost) and cluster.nodes > 1 and cluster.gpus_per_node > 1


def _levels(problem: FlowProblem) -> list[_Level]:
    """The levels that cost something; none where nothing passes from expert to expert."""
    cluster = problem.cluster
    slots = np.minimum(cluster.slots_of, problem.n_experts)
    on_node = np.bincount(cluster.node_of, slots).astype(np.int64)
    single = cluster.node_cost if cluster.nodes > 1 and cluster.gpus_per_node == 1 else 0
    levels = [_Level("s", cluster.gpu_cost + single, np.arange(cluster.gpus), slots)]
    if _two_levels(cluster):
        levels.append(_Level("s_node", cluster.node_cost, cluster.node_of, on_node))
    return [level for level in levels if level.price and problem.flow.any()]


def _shared(model: Any, problem: FlowProblem, level: _Level) -> Any:
    """The price of a level, its variables s and their rows together and room added to the model."""
    import pyomo.environ as pyo

    ties = [tuple(tie) for tie in np.argwhere(problem.flow > 0).tolist()]
    groups = range(level.groups)
    members = [np.flatnonzero(level.group_of == a).tolist() for a in groups]
    partners: dict[tuple[int, int, int], list[Any]] = {}
    for i, e, f in ties:
        partners.setdefault((i, e, 0), []).append((i, e, f))
        partners.setdefault((i + 1, f, 1), []).append((i, e, f))

    def x(i: int, e: int, a: int) -> Any:
        return sum(model.x[i, e, g] for g in members[a])

    s = pyo.Var(ties, groups, bounds=(0, 1))
    model.add_component(level.name, s)
    model.add_component(
        f"together_{level.name}",
        pyo.Constraint(
            ties, groups, [0, 1], rule=lambda _, i, e, f, a, end: s[i, e, f, a] <= x(i + end, (e, f)[end], a)
        ),
    )
    model.add_component(
        f"room_{level.name}",
        pyo.Constraint(
            [(*at, a) for at, of in partners.items() for a in groups if len(of) > level.slots[a]],
            rule=lambda _, i, e, end, a: (
                sum(s[(*tie, a)] for tie in partners[i, e, end]) <= int(level.slots[a]) * x(i, e, a)
            ),
        ),
    )
    apart = (int(problem.flow[tie]) * (1 - sum(s[(*tie, a)] for a in groups)) for tie in ties)
    return level.price * sum(apart)


def _nameless(problem: FlowProblem) -> bool:
    """Whether GPUs are alike: no homes, equal slots and speeds. Where nodes count: those of a node, and all nodes."""
    return problem.cluster.equal and problem.home is None


def _cells(cluster: Cluster) -> NDArray[np.int64]:
    """int64 [gpus]: GPUs of one cell are alike, and so are cells: nodes where they count, else one for all."""
    return cluster.node_of if _two_levels(cluster) else np.zeros(cluster.gpus, np.int64)


def _openings(cluster: Cluster) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64 [rows, gpus] twice: a GPU or node, and all later ones of its kind; these hold no expert before it does."""
    cell = _cells(cluster)
    later = np.triu(cell[:, None] == cell, 1).astype(np.int64)
    has_next = later.any(axis=1)
    cells = np.arange(cell.max() + 1)
    node = (cell == cells[:, None]).astype(np.int64)
    later_nodes = (cell > cells[:, None]).astype(np.int64)
    before = np.concatenate([np.eye(cluster.gpus, dtype=np.int64)[has_next], node[:-1]])
    return before, np.concatenate([later[has_next], later_nodes[:-1]])


def _renamed(cluster: Cluster, gpu_of: NDArray[np.int32]) -> NDArray[np.int64]:
    """int64 [layers, experts]: GPUs in the order of their first expert in layer 0, node by node where nodes count."""
    on = gpu_of[0] == np.arange(cluster.gpus)[:, None]
    first = np.where(on.any(axis=1), on.argmax(axis=1), on.shape[1] + np.arange(cluster.gpus))
    cell = _cells(cluster)
    opened = np.full(cell.max() + 1, on.shape[1] + cluster.gpus)
    np.minimum.at(opened, cell, first)
    name = np.empty(cluster.gpus, np.int64)
    name[np.lexsort((first, opened[cell]))] = np.arange(cluster.gpus)
    return name[gpu_of]
