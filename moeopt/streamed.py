"""What a pass over a data set found: a workload, exact or of a random sample, and by how much it may err."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moeopt.load_counts import load_workload
from moeopt.set_samples import Sample
from moeopt.set_tallies import SetTally
from moeopt.storage import PathLike
from moeopt.workload import Workload

__all__ = ["MOST_TOKENS", "Streamed"]

MOST_TOKENS = 2**32 - 1  # of a data set: counts of sets have 32 bits until they become a workload


@dataclass(frozen=True, eq=False)
class Streamed:
    """Traffic of a data set of any size; `a + b` is that of both, what one pass over both would have found.

    | field | holds |
    |---|---|
    | tallies | SetTally of each layer |
    | layer_ids | absolute layer indices |
    | families | names |
    | model | name of the model |

    `tokens` and `loads` are of all tokens, whatever the size. `workload` is of all tokens where the sets of every layer
    were within the limit, and then `sample.exact`; otherwise it is the workload of the tokens drawn, the same ones in
    every layer, a simple random sample without replacement: shares of loads and of pairs, means of fan-out and of cuts
    are unbiased, and `sample` states their error. Raises ValueError where the tallies do not fit together.
    """

    tallies: tuple[SetTally, ...]
    layer_ids: tuple[int, ...]
    families: tuple[str, ...]
    model: str = ""

    def __post_init__(self) -> None:
        if not self.tallies or len(self.tallies) != len(self.layer_ids):
            raise ValueError(f"{len(self.layer_ids)} layer ids for {len(self.tallies)} layers")
        first = self.tallies[0]
        for layer, tally in zip(self.layer_ids, self.tallies, strict=True):
            for name in ("n_experts", "top_k", "limit", "least", "taken"):
                if getattr(tally, name) != getattr(first, name):
                    raise ValueError(
                        f"layer {layer}: {name} is {getattr(tally, name)}, that of layer {self.layer_ids[0]} is "
                        f"{getattr(first, name)}"
                    )
            if tally.loads.shape[1] != len(self.families):
                raise ValueError(
                    f"layer {layer}: loads of {tally.loads.shape[1]} families, there are {len(self.families)}"
                )
            if (tally.loads.sum(axis=0) != self.tokens * tally.top_k).any():
                raise ValueError(f"layer {layer}: loads are of other tokens than those of the first layer")
        if not 0 < (total := int(self.tokens.sum())) <= MOST_TOKENS:
            raise ValueError(
                f"a data set must have 1 to {MOST_TOKENS} tokens of the families chosen, found {total}"
            )

    @property
    def n_experts(self) -> int:
        return self.tallies[0].n_experts

    @property
    def top_k(self) -> int:
        return self.tallies[0].top_k

    @property
    def limit(self) -> int:
        """Sets kept of a layer at most: given as `most_sets` with the same seed, the same workload on any machine."""
        return self.tallies[0].limit

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """int64 [families]: all tokens, exact."""
        return np.asarray(self.tallies[0].loads.sum(axis=0) // self.top_k)

    @cached_property
    def loads(self) -> NDArray[np.int64]:
        """int64 [layers, experts, families]: activations of all tokens, exact."""
        return np.stack([tally.loads for tally in self.tallies])

    @cached_property
    def taken(self) -> NDArray[np.int64]:
        """int64 [families]: tokens that the workload is of."""
        if self.exact:
            return self.tokens
        return np.bincount(self.tallies[0].family, minlength=len(self.families)).astype(np.int64)

    @property
    def exact(self) -> bool:
        """Whether the workload is of all tokens."""
        return all(tally.exact for tally in self.tallies)

    @property
    def sample(self) -> Sample:
        """Tokens the workload is of, out of all: states the error of what is computed from the workload."""
        return Sample(int(self.taken.sum()), int(self.tokens.sum()))

    @property
    def family_samples(self) -> dict[str, Sample]:
        """The same of each family, by name; within a family it is a simple random sample as well."""
        pairs = zip(self.families, self.taken.tolist(), self.tokens.tolist(), strict=True)
        return {name: Sample(taken, of) for name, taken, of in pairs}

    @cached_property
    def workload(self) -> Workload:
        """Of all tokens if `exact`, else of the sample; made on first use, a layer at a time."""
        if not self.taken.sum():
            raise ValueError(f"a limit of {self.limit} leaves no token in the sample")
        tokens = self.taken.copy()
        tokens.setflags(write=False)
        layers = tuple(tally.expert_sets(exact=self.exact) for tally in self.tallies)
        return Workload(layers, self.layer_ids, self.families, tokens, self.model)

    @property
    def load_counts(self) -> Workload:
        """The exact loads as a workload of loads alone, for `moeopt.loads` and `objective="load"`."""
        return load_workload(
            self.loads, layer_ids=self.layer_ids, families=self.families, top_k=self.top_k, model=self.model
        )

    @cached_property
    def load_errors(self) -> NDArray[np.float64]:
        """float64 [layers]: the largest error of a load in the workload, as part of the mean load: found out."""
        own = np.stack([sets.load for sets in self.workload.layers]).astype(np.float64)
        true = self.loads.sum(axis=2).astype(np.float64)
        worst = np.abs(own / own.sum(axis=1, keepdims=True) - true / true.sum(axis=1, keepdims=True)).max(
            axis=1
        )
        return np.asarray(worst * self.n_experts)

    def statement(self, *, confidence: float = 0.95) -> list[str]:
        """What is exact and what is estimated, in lines to show."""
        rows = f"{self.sample.of:,} tokens x {len(self.layer_ids)} layers, top-{self.top_k} of {self.n_experts} experts"
        if self.exact:
            return [f"{rows}: every expert set counted"]
        bound = self.sample.bound(span=self.top_k - 1, confidence=confidence)
        return [
            f"{rows}: loads of all tokens, expert sets of {self.sample.taken:,} drawn at random "
            f"({100 * self.sample.share:.3g} %; most_sets={self.limit} draws them again)",
            f"fan-out of a placement fixed beforehand within {bound:.2g} GPUs a token with {100 * confidence:g} %; "
            f"loads of the sample within {100 * self.load_errors.max():.2g} % of the mean load",
        ]

    def __add__(self, other: "Streamed") -> "Streamed":
        """Tokens of both, which must be different ones; families are united by name, the smaller limit holds."""
        for name in ("layer_ids", "n_experts", "top_k"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"data sets differ in {name}: {getattr(self, name)} and {getattr(other, name)}"
                )
        families = tuple(dict.fromkeys(self.families + other.families))
        if len(families) > 256:
            raise ValueError(f"at most 256 families, found {len(families)}")
        if (total := int(self.tokens.sum() + other.tokens.sum())) > MOST_TOKENS:
            raise ValueError(f"a data set must have at most {MOST_TOKENS} tokens, found {total}")
        own, others = (
            np.array([families.index(name) for name in part.families], np.int64) for part in (self, other)
        )
        tallies = tuple(
            a.recoded(own, families=len(families)).merged(b.recoded(others, families=len(families)))
            for a, b in zip(self.tallies, other.tallies, strict=True)
        )
        return replace(self, tallies=tallies, families=families)

    def write(self, path: PathLike) -> None:
        """Keep it, to add to that of other shards later; the whole file or nothing. See `moeopt.partials`."""
        from moeopt.partials import write_streamed

        write_streamed(self, path)

    @classmethod
    def read(cls, path: PathLike) -> "Streamed":
        """What `write` wrote; ValueError names the file and what is wrong with it."""
        from moeopt.partials import read_streamed

        return read_streamed(path)
