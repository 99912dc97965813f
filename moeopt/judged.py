"""What a formulation may state: any problem that judges its own answers; and the best of these so far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from moeopt.result import Event

__all__ = ["Best", "Judged"]


@runtime_checkable
class Judged(Protocol):
    """A problem whose answers it costs and checks itself, in exact integers.

    `moeopt.problem.Problem` (placements of experts) is one; others are in the modules of the same name as what they
    decide. An answer is an immutable value; what it is belongs to the problem.
    """

    @property
    def digest(self) -> str:
        """SHA-256 of everything that `cost` and `violation` depend on."""

    def cost(self, answer: Any, /) -> int:
        """Exact objective of an answer, admissible or not; less is better."""

    def violation(self, answer: Any, /) -> str:
        """The first rule that the answer breaks, with its numbers; empty when it breaks none."""

    def candidates(self) -> Iterator[Any]:
        """Every answer that could be admissible and optimal, for brute force; ValueError where there are too many."""


class Best(Protocol):
    """The cheapest admissible answer so far, judged by the problem alone."""

    history: list[Event]

    @property
    def cost(self) -> int | None:
        """Exact cost of the answer, or None."""

    @property
    def found(self) -> Any:
        """The answer, or None."""

    @property
    def reason(self) -> str:
        """Why the last answer offered was not admissible."""

    def offer(self, answer: Any, /) -> bool:
        """Judge an answer; True when it is admissible and the cheapest so far."""

    def raise_bound(self, bound: int) -> None:
        """A bound that a proof has reached."""
