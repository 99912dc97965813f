"""Prices of experts, GPUs and triples: the linear relaxation of set partitioning by column and row generation."""

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.columns import Columns
from moeopt.stop import Clock

if TYPE_CHECKING:
    from moeopt.matrix import Matrix
    from moeopt.solvers.door import Session

FIRST = 5_000  # columns of the first linear program
BATCH = 3_000  # columns added a round
CUTS = 60  # rows added a round
VIOLATION = 0.05  # below it a row moves the bound less than it slows the rest
DEAR = 10  # times more than any cover: the cost of leaving an expert out
TALLEST = 1e5  # largest cost the solver sees: its tolerances are absolute
ROOM = 1 << 61  # every integer of a proof stays below
_OWN = threading.local()  # a session talks to one thread


@dataclass(frozen=True, eq=False)
class Prices:
    """Integer dual prices of set-partition columns: a proof of a bound by themselves.

    | field | holds |
    |---|---|
    | scale | S: prices are in units of cost / S |
    | experts | int64 [experts] |
    | group | price of one more GPU; at most 0 when GPUs may stay empty |
    | triples | int64 [rows, 3]: triples of experts, of which at most one block can hold two or more |
    | discounts | int64 [rows], at least 0: price of those rows |
    | reduced | int64 [columns]: S cost - prices of the members - group + discounts of the triples of which the block
      holds two or more; at least 0 |
    """

    scale: int
    experts: NDArray[np.int64]
    group: int
    triples: NDArray[np.int64]
    discounts: NDArray[np.int64]
    reduced: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        columns: Columns,
        *,
        duals: NDArray[np.float64],
        group: float,
        triples: NDArray[np.int64],
        discounts: NDArray[np.float64],
    ) -> Self:
        """Round real duals in units of cost; lower the group price until no reduced cost is negative."""
        parts = (columns.cost, duals, discounts, np.array([group]))
        highest = max(int(np.abs(part).max(initial=0)) + 1 for part in parts)
        terms = (columns.members.shape[1] + 2 + len(discounts)) * max(columns.groups, 2)
        scale = 1
        while scale < 1 << 20 and 4 * scale * highest * terms < ROOM:
            scale *= 2
        experts = np.rint(duals * scale).astype(np.int64)
        rounded = np.rint(np.maximum(discounts, 0) * scale).astype(np.int64)
        used = rounded > 0
        triples, rounded = triples[used], rounded[used]
        free = cls(scale, experts, 0, triples, rounded, np.empty(0, np.int64))
        reduced = free.reduced_costs(columns)
        price = 0 if columns.full else min(0, int(np.rint(group * scale)))
        least = int(reduced.min())
        price = least if columns.full else min(price, least)
        return cls(scale, experts, price, triples, rounded, reduced - price)

    def reduced_costs(self, columns: Columns) -> NDArray[np.int64]:
        """int64 [columns]: of any blocks at these prices."""
        extra = discounted(
            columns.members, self.triples, discounts=self.discounts, n_experts=columns.n_experts
        )
        return np.asarray(
            columns.cost * self.scale - columns.priced(self.experts) - self.group + extra, np.int64
        )

    def dual(self, columns: Columns) -> int:
        """Scaled bound on the sum of block costs."""
        return int(self.experts.sum()) + columns.groups * self.group - int(self.discounts.sum())

    def bound(self, columns: Columns, *, searched: int) -> int:
        """Proved when every cover of total reduced cost up to `searched` is known to cost at least this."""
        return columns.offset - (-(self.dual(columns) + searched + 1) // self.scale)

    def numbers(self, columns: Columns, *, bound: int) -> dict[str, Any]:
        """What a certificate of kind "blocks" carries: no more search than the bound needs."""
        searched = max(-1, self.scale * (bound - columns.offset - 1) - self.dual(columns))
        return {
            "scale": self.scale,
            "prices": self.experts.tolist(),
            "group_price": self.group,
            "triples": self.triples.tolist(),
            "discounts": self.discounts.tolist(),
            "dual": self.dual(columns),
            "searched": searched,
        }

    @property
    def empty(self) -> int:
        """Reduced cost of an empty GPU; 0 where every slot is used and none is empty."""
        return max(0, -self.group)


def discounted(
    members: NDArray[np.int16], triples: NDArray[np.int64], *, discounts: NDArray[Any], n_experts: int
) -> NDArray[Any]:
    """[blocks]: sum of the discounts of the triples of which a block, a row of `members`, holds two or more."""
    if not len(triples):
        return np.zeros(len(members), discounts.dtype)
    from moeopt.triples import held_discounts

    return held_discounts(members, triples, discounts=discounts, n_experts=n_experts)


class Earlier(NamedTuple):
    """What an earlier run knew of a linear relaxation: prices of the experts in units of cost, triples of its rows."""

    prices: Sequence[float]
    triples: Sequence[Sequence[int]] = ()


class Relaxation:
    """The linear relaxation over all columns, kept in a solver worker and tightened by subset rows.

    A restricted program is solved over and over; each round one pass over all columns finds those of negative reduced
    cost, and the most negative enter. `cut` adds rows "at most one block holds two or more of three experts", the
    subset-row inequalities of Jepsen, Petersen, Spoorendonk and Pisinger (Operations Research 56, 2008).
    """

    def __init__(self, columns: Columns, *, seed: int, earlier: "Earlier | None" = None) -> None:
        self.columns = columns
        self.triples = np.empty((0, 3), np.int64)
        rng = np.random.default_rng(seed)
        self._entered = np.zeros(len(columns), bool)
        value = columns.cost if earlier is None else columns.cost - columns.priced(np.array(earlier.prices))
        cheapest = np.argpartition(value, min(FIRST // 2, len(columns) - 1))[: FIRST // 2]
        self._entered[cheapest] = True
        self._entered[rng.integers(0, len(columns), FIRST // 2)] = True
        self._order = np.flatnonzero(self._entered)
        self._unit = TALLEST / max(int(np.abs(columns.cost).max()), 1)
        self._session = shared_session()
        self._session.load(_restricted(columns, self._order, self._unit))
        self._duals, self._group = np.zeros(columns.n_experts), 0.0
        self._discounts = np.empty(0)
        self._point = np.empty(0)
        if earlier is not None and earlier.triples:
            self._add(np.array(earlier.triples, np.int64))

    def solve(self, clock: Clock) -> Prices:
        """Prices of the relaxation with the rows so far; valid, if weaker, when the clock ends it early."""
        columns, experts = self.columns, self.columns.n_experts
        while True:
            outcome = self._session.resolve(seconds=clock.left, should_stop=lambda: clock.interrupted)
            if outcome.row_duals is None or outcome.x is None:
                break
            self._duals = outcome.row_duals[:experts] / self._unit
            rest = outcome.row_duals[experts:] / self._unit
            if not columns.full:
                self._group, rest = min(0.0, float(rest[0])), rest[1:]
            self._discounts = np.maximum(-rest, 0)
            self._point = outcome.x[experts:]
            reduced = columns.cost - columns.priced(self._duals) - self._group
            attractive = np.flatnonzero((reduced < -1e-6 / self._unit) & ~self._entered)
            if len(self.triples) and len(
                attractive
            ):  # discounts only add: they cannot make others attractive
                reduced[attractive] += discounted(
                    columns.members[attractive], self.triples, discounts=self._discounts, n_experts=experts
                )
                attractive = attractive[reduced[attractive] < -1e-6 / self._unit]
            if not len(attractive) or clock.expired:
                break
            if len(attractive) > BATCH:
                attractive = attractive[np.argpartition(reduced[attractive], BATCH)[:BATCH]]
            self._enter(attractive)
        discounts = np.zeros(len(self.triples))
        discounts[: len(self._discounts)] = self._discounts
        return Prices.of(
            columns, duals=self._duals, group=self._group, triples=self.triples, discounts=discounts
        )

    def _enter(self, chosen: NDArray[np.int64]) -> None:
        self._entered[chosen] = True
        self._order = np.append(self._order, chosen)
        self._session.add_columns(
            cost=np.asarray(self.columns.cost[chosen] * self._unit, float),
            lower=np.zeros(len(chosen)),
            upper=np.full(len(chosen), np.inf),
            columns=coefficients(self.columns, chosen, triples=self.triples),
        )

    def cut(self) -> bool:
        """Add the most violated subset rows; False when none is violated enough."""
        from moeopt.triples import together

        positive = np.flatnonzero(self._point > 1e-7)
        weight = together(
            self.columns.members[self._order[positive]],
            self._point[positive],
            n_experts=self.columns.n_experts,
        )
        i, j, k = np.nonzero(weight > 1 + VIOLATION)
        if not len(i):
            return False
        worst = np.argsort(-weight[i, j, k], kind="stable")[:CUTS]
        self._add(np.column_stack([i, j, k])[worst])
        return True

    def _add(self, fresh: NDArray[np.int64]) -> None:
        """Rows for more triples."""
        from scipy import sparse

        self.triples = np.concatenate([self.triples, fresh])
        block = _two_of_three(self.columns.members[self._order], fresh, self.columns.n_experts)
        artificial = sparse.csr_array((len(fresh), self.columns.n_experts))
        self._session.add_rows(
            rows=sparse.csr_array(sparse.hstack([artificial, block])),
            row_lower=np.full(len(fresh), -np.inf),
            row_upper=np.ones(len(fresh)),
        )


def _restricted(columns: Columns, chosen: NDArray[np.int64], unit: float) -> "Matrix":
    """Chosen columns behind one artificial column an expert, dearer than any cover."""
    from scipy import sparse

    from moeopt.matrix import Matrix

    experts, rows = columns.n_experts, columns.n_experts + (not columns.full)
    dear = DEAR * (columns.groups + 1) * (float(np.abs(columns.cost).max()) + 1) * unit
    artificial = sparse.eye_array(rows, experts, format="csc")
    block = coefficients(columns, chosen)
    width = experts + len(chosen)
    return Matrix(
        cost=np.append(np.full(experts, dear), columns.cost[chosen] * unit),
        lower=np.zeros(width),
        upper=np.full(width, np.inf),
        integer=np.zeros(width, bool),
        rows=sparse.csr_array(sparse.hstack([artificial, block])),
        row_lower=np.append(np.ones(experts), [] if columns.full else [-np.inf]),
        row_upper=np.append(np.ones(experts), [] if columns.full else [columns.groups]),
    )


def coefficients(
    columns: Columns, chosen: NDArray[np.int64], *, triples: NDArray[np.int64] | None = None
) -> Any:
    """Sparse [experts (+ 1 when GPUs may stay empty) + triples, chosen]: what the columns cover, use and hold."""
    from scipy import sparse

    members = columns.members[chosen]
    used = members >= 0
    rows, places = members[used].astype(np.int64), np.nonzero(used)[0]
    height = columns.n_experts
    if not columns.full:
        rows = np.append(rows, np.full(len(chosen), height))
        places = np.append(places, np.arange(len(chosen)))
        height += 1
    cover = sparse.csc_array((np.ones(len(rows)), (rows, places)), shape=(height, len(chosen)))
    if triples is None or not len(triples):
        return cover
    return sparse.csc_array(sparse.vstack([cover, _two_of_three(members, triples, columns.n_experts)]))


def _two_of_three(members: NDArray[np.int16], triples: NDArray[np.int64], n_experts: int) -> Any:
    """Sparse 0/1 [triples, columns]: the block holds two or more of the triple."""
    from scipy import sparse

    inside = np.zeros((n_experts + 1, len(triples)), np.int8)  # the last row is read for padding
    inside[triples.T, np.arange(len(triples))] = 1
    return sparse.csr_array((inside[members].sum(axis=1) >= 2).T.astype(float))


def shared_session() -> "Session":
    """One solver worker for this thread, kept warm from layer to layer; it ends with the thread or the process."""
    from moeopt.solvers.door import Session

    if not hasattr(_OWN, "session"):
        _OWN.session = Session("highs")
        ending = weakref.finalize(threading.current_thread(), _OWN.session.close)
        ending.atexit = False  # with the process its pipes close, and the worker goes
    session: Session = _OWN.session
    return session
