"""A problem with a tail, its families weighed by one mixture."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.problem import Problem


@dataclass(frozen=True, eq=False)
class Mixed(Problem):
    """A problem with a tail under one mixture of its families: `mixture` int [families] are its multipliers."""

    mixture: tuple[int, ...] = ()

    @classmethod
    def of(cls, problem: Problem, weights: Sequence[int]) -> Self:
        """The problem without its tail, a token of family f weighing `weights[f]`."""
        own = {field.name: getattr(problem, field.name) for field in fields(Problem)}
        return cls(**{**own, "tail": None, "family_weights": None}, mixture=tuple(weights))

    @cached_property
    def multipliers(self) -> NDArray[np.int64]:
        """int64 [families]: the mixture."""
        return np.array(self.mixture, np.int64)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the problem and the mixture."""
        return hashlib.sha256(f"{super().digest} {self.mixture}".encode()).hexdigest()
