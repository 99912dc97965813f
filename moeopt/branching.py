"""A branch and bound of our own over the linear relaxation: small trees whose every leaf can be checked.

The solver finds optima; this proves them. Each leaf keeps the row multipliers of its linear model, rounded to
integers, so that the tree is a certificate (the idea of Cheung, Gleixner, Steffy, Verifying integer programming
results, IPCO 2017, with Lagrangian leaves instead of derivations).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.matrix import Matrix
from moeopt.multipliers import whole_multipliers
from moeopt.solvers.door import Outcome, Session, Status
from moeopt.statement import Statement
from moeopt.stop import Clock
from moeopt.whole_model import Multipliers, WholeModel

__all__ = ["GIANT", "Tree", "scale_of", "sparse", "without_vertices"]

HUGE, GIANT = 150_000, 1_000_000  # entries of a matrix
_WHOLE = 1e-6
_PRECISION = 24  # bits below the unit of the costs
_STRETCH = 1 << 60  # of an infeasibility ray, relative to costs
Point = NDArray[np.float64]


def scale_of(unit: int) -> int:
    """The scale of multipliers for costs that a solver sees in `unit`."""
    return max(1, (1 << _PRECISION) // unit)


@dataclass
class _Node:
    """lower, upper: int64 [columns]; what its multipliers prove, times scale; x: the point of its linear model."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    multipliers: Multipliers
    dual: int
    x: Point | None
    split: tuple[int, int] | None = None
    parts: tuple[_Node, _Node] | None = None


@dataclass
class Tree:
    """Best bound first.

    | field | holds |
    |---|---|
    | model, statement | in integers, and as the solver sees it; both grow by the rows that points break |
    | nodes, numbers | linear models solved, and multipliers kept |
    | stuck | whole points whose multipliers do not prove their cost |
    """

    model: WholeModel
    statement: Statement
    session: Session
    clock: Clock
    seed: int
    nodes: int = 0
    numbers: int = 0
    stuck: int = 0
    _matrix: Matrix = field(init=False)
    _parts: int = field(init=False)
    _open: list[tuple[int, int, _Node]] = field(default_factory=list)
    _ticks: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        self._matrix, self._parts = self.statement.complete(), len(self.statement.lazy)

    def grow(
        self,
        root: Multipliers,
        *,
        cost: Callable[[], int | None],
        offer: Callable[[Point], object],
        most_nodes: int,
        most_numbers: int,
    ) -> _Node:
        """Branch until no open case may hold a cheaper answer than `cost()`, or clock, nodes or numbers have run out.

        Whole points go to `offer`. Returns the root of the tree; `listed` and `bound` read it.
        """
        top = self._node(self.model.lower, self.model.upper, root)
        self._push(top)
        if most_nodes:
            self.session.load(self._matrix)
        while (
            self._open and not self.clock.expired and self.nodes < most_nodes and self.numbers < most_numbers
        ):
            best = cost()
            if best is not None and self._bound(self._open[0][2]) >= best:
                break
            node = heapq.heappop(self._open)[2]
            if not self._solve(node, best):
                self._push(node)
                break
            best = cost()
            if best is not None and self._bound(node) >= best:
                continue
            if node.x is None:
                self.stuck += 1
                continue
            column = self._fractional(node.x)
            if column is None:
                offer(node.x)
                self._caught_up()  # rounded, the point may have broken rows that it did not
                best = cost()
                self.stuck += best is None or self._bound(node) < best
                continue
            self._part(node, column)
        return top

    def _part(self, node: _Node, column: int) -> None:
        split = int(np.floor(node.x[column])) if node.x is not None else 0
        below, above = node.upper.copy(), node.lower.copy()
        below[column], above[column] = split, split + 1
        node.split = (column, split)
        node.parts = (
            self._node(node.lower, below, node.multipliers),
            self._node(above, node.upper, node.multipliers),
        )
        node.x = None
        for part in node.parts:
            self._push(part)

    def _node(self, lower: NDArray[np.int64], upper: NDArray[np.int64], multipliers: Multipliers) -> _Node:
        dual = self.model.dual(multipliers, scale=self._scale, lower=lower, upper=upper)
        return _Node(lower, upper, multipliers, dual, None)

    @property
    def _scale(self) -> int:
        return scale_of(self.statement.unit)

    def _push(self, node: _Node) -> None:
        heapq.heappush(self._open, (node.dual, next(self._ticks), node))

    def _bound(self, node: _Node) -> int:
        return self.model.bound(node.dual, self._scale)

    def _solve(self, node: _Node, best: int | None) -> bool:
        """Solve the linear model of a node; False when there was no time."""
        self.session.set_bounds(lower=node.lower.astype(float), upper=node.upper.astype(float))
        while True:
            outcome = self._resolve()
            self.nodes += 1
            if outcome.status != Status.OPTIMAL or outcome.x is None or not self._separate(outcome.x):
                break
        if outcome.status in (Status.INFEASIBLE, Status.INFEASIBLE_OR_UNBOUNDED):
            return self._refute(node, best)
        if outcome.status != Status.OPTIMAL or outcome.row_duals is None or outcome.x is None:
            return False
        node.x = outcome.x
        unit = self.statement.unit
        numbers = whole_multipliers(self._matrix, outcome.row_duals, unit=unit, scale=self._scale)
        self._improve(node, sparse(numbers))
        return True

    def _resolve(self) -> Outcome:
        return self.session.resolve(
            seconds=self.clock.left,
            seed=self.seed,
            options=without_vertices(self._matrix),
            should_stop=lambda: self.clock.expired,
        )

    def _separate(self, x: Point) -> bool:
        """Whether a point breaks rows that were not known; they are now."""
        return self.statement.separate(x) is not None and self._caught_up()

    def _caught_up(self) -> bool:
        """True, once session and model know the rows that the statement knows."""
        for fresh in self.statement.lazy[self._parts :]:
            self.session.add_rows(rows=fresh.rows, row_lower=fresh.lower, row_upper=fresh.upper)
            self.model = self.model.grown(fresh)
        self._parts, self._matrix = len(self.statement.lazy), self.statement.complete()
        return True

    def _improve(self, node: _Node, multipliers: Multipliers) -> None:
        dual = self.model.dual(multipliers, scale=self._scale, lower=node.lower, upper=node.upper)
        if dual > node.dual:
            self.numbers += len(multipliers[1])
            node.dual, node.multipliers = dual, multipliers

    def _refute(self, node: _Node, best: int | None) -> bool:
        """Multipliers that show that no point is left: those of the model that pays for broken rows alone."""
        elastic, largest = _elastic(self._matrix, node.lower, node.upper)
        outcome = self.session.solve(elastic, relax=True, seconds=self.clock.left, seed=self.seed)
        if outcome.status != Status.OPTIMAL or outcome.row_duals is None:
            return False
        ray = whole_multipliers(self._matrix, outcome.row_duals, unit=1, scale=largest << _PRECISION)
        stretch = 1
        while stretch < _STRETCH:
            self._improve(node, sparse([stretch * number for number in ray]))
            if best is not None and self._bound(node) >= best:
                break
            stretch *= 16
        return True

    def _fractional(self, x: Point) -> int | None:
        """The column to branch on: farthest from whole, the first of them; None when all are whole."""
        off = np.where(self.model.integer, np.abs(x - np.round(x)), 0.0)
        column = int(off.argmax())
        return column if off[column] > _WHOLE else None

    def bound(self, top: _Node) -> int:
        """The least of the leaves."""
        return min(self._bound(leaf) for leaf in _leaves(top))

    def listed(self, top: _Node) -> dict[str, Any]:
        """The tree as the checker reads it, in preorder, and the keys of the lazy rows that it uses."""
        first = self.statement.matrix.row_lower.size
        used = {int(row) for leaf in _leaves(top) for row in leaf.multipliers[0] if row >= first}
        place = {row: first + at for at, row in enumerate(sorted(used))}
        keys = (
            self.statement.keys[[row - first for row in sorted(used)]] if used else np.zeros((0, 0), np.int32)
        )
        cases: list[dict[str, Any]] = []
        todo, duals = [top], 0
        while todo:
            node = todo.pop()
            if node.parts is not None and node.split is not None:
                cases.append({"column": node.split[0], "split": node.split[1]})
                todo += [node.parts[1], node.parts[0]]
                continue
            duals += node.dual
            rows = [place.get(row, row) for row in node.multipliers[0].tolist()]
            cases.append({"rows": rows, "numbers": list(node.multipliers[1])})
        return {"scale": self._scale, "duals": duals, "keys": keys.tolist(), "tree": cases}


def without_vertices(matrix: Matrix) -> dict[str, str | float] | None:
    """Options of HiGHS for linear models so large and degenerate that the way from an interior point to a vertex is
    what takes the time: the multipliers of the interior point are as good.

    The largest are left to a first-order method (PDLP, Applegate et al., NeurIPS 2021), whose multipliers prove a bound
    however early it is stopped.
    """
    if matrix.rows.nnz > GIANT:
        return {"solver": "pdlp", "presolve": "off", "pdlp_optimality_tolerance": 1e-4}
    return {"solver": "ipm", "run_crossover": "off"} if matrix.rows.nnz > HUGE else None


def sparse(numbers: list[int]) -> Multipliers:
    """The multipliers that are not 0."""
    places = [at for at, number in enumerate(numbers) if number]
    return np.array(places, np.int64), [numbers[at] for at in places]


def _leaves(top: _Node) -> list[_Node]:
    leaves, todo = [], [top]
    while todo:
        node = todo.pop()
        if node.parts is None:
            leaves.append(node)
        else:
            todo += node.parts
    return leaves


def _elastic(matrix: Matrix, lower: NDArray[np.int64], upper: NDArray[np.int64]) -> tuple[Matrix, int]:
    """The least sum by which the rows are broken between other bounds, each in units of its largest entry.

    With the largest of these units, a power of two as all of them.
    """
    from scipy.sparse import diags_array, hstack

    rows, width = matrix.rows.shape
    peaks = abs(matrix.rows).max(axis=1).toarray().ravel()
    units = np.exp2(np.ceil(np.log2(np.maximum(peaks, 1.0))))
    slack = diags_array(units)
    model = Matrix(
        cost=np.concatenate([np.zeros(width), np.ones(2 * rows)]),
        offset=0.0,
        lower=np.concatenate([lower.astype(float), np.zeros(2 * rows)]),
        upper=np.concatenate([upper.astype(float), np.full(2 * rows, np.inf)]),
        integer=np.zeros(width + 2 * rows, bool),
        rows=hstack([matrix.rows, slack, -slack], format="csr"),
        row_lower=matrix.row_lower,
        row_upper=matrix.row_upper,
    )
    return model, int(units.max(initial=1.0))
