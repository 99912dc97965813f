"""What a formulation may state: any problem that judges its own answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

__all__ = ["Judged"]


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
