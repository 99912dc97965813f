"""A problem with a tail, its families weighed by one mixture."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moeopt.problem import Problem


@dataclass(frozen=True, eq=False)
class Mixed(Problem):
    """A problem with a tail under one mixture of its families: `mixture` int [families] are its multipliers."""

    mixture: tuple[int, ...] = ()

    @cached_property
    def multipliers(self) -> NDArray[np.int64]:
        """int64 [families]: the mixture."""
        return np.array(self.mixture, np.int64)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the problem and the mixture."""
        return hashlib.sha256(f"{super().digest} {self.mixture}".encode()).hexdigest()
