"""How far numbers of a random sample of tokens lie from those of all tokens."""

from dataclasses import dataclass
from math import log, sqrt

__all__ = ["Sample"]


@dataclass(frozen=True)
class Sample:
    """`taken` tokens drawn without replacement out of `of`; every set of so many is equally likely.

    Raises ValueError unless 0 <= taken <= of.
    """

    taken: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.taken <= self.of:
            raise ValueError(f"a sample of {self.of} tokens has 0 to {self.of} of them, found {self.taken}")

    @property
    def exact(self) -> bool:
        """Whether all tokens were taken."""
        return self.taken == self.of

    @property
    def share(self) -> float:
        """Part of the tokens taken."""
        return self.taken / self.of if self.of else 1.0

    def standard_error(self, *, deviation: float) -> float:
        """Of the sample's mean of a quantity per token whose standard deviation is `deviation`, in its unit.

        deviation x sqrt((1 - n / N) / n): Cochran, Sampling Techniques (1977), theorem 2.2. The mean is unbiased.
        """
        if not deviation >= 0:
            raise ValueError(f"a standard deviation is at least 0, found {deviation}")
        if self.exact:
            return 0.0
        return deviation * sqrt((1 - self.share) / self.taken) if self.taken else float("inf")

    def bound(self, *, span: float, confidence: float = 0.95, quantities: int = 1) -> float:
        """How far the means of `quantities` per-token quantities lie from those of all tokens, at most, all at once.

        It holds with probability `confidence`, for quantities fixed before the sample was drawn that vary by `span` at
        most: span x sqrt((1 - (n - 1) / N) ln(2 quantities / (1 - confidence)) / (2 n)), Serfling, Annals of Statistics
        2 (1974), corollary 1.1, and the union bound. Further GPUs of a token vary by min(k, GPUs) - 1. A placement that
        was fitted to this sample is not fixed before it: judge it on another one, or count all it was chosen from.
        """
        if not span >= 0 or not 0 < confidence < 1 or quantities < 1:
            raise ValueError(
                "a bound needs span >= 0, confidence between 0 and 1 and at least one quantity, "
                f"found {span}, {confidence}, {quantities}"
            )
        if self.exact:
            return 0.0
        if not self.taken:
            return span
        left = 1 - (self.taken - 1) / self.of
        return min(span, span * sqrt(left * log(2 * quantities / (1 - confidence)) / (2 * self.taken)))
