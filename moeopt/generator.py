"""Synthetic traces with planted co-activation, load skew, phase shift and drift."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, UnionType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from moeopt.trace import DECODE, PREFILL, Trace

STEPS = 8  # drift moves in this many steps over the requests, and over the positions of a request
CHUNK = 8_192  # tokens drawn at once: bounds the memory to CHUNK x experts


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Parameters of a synthetic trace. Strengths are in logits of a softmax router.

    | field | holds |
    |---|---|
    | layers, experts, top_k, tokens, requests | sizes |
    | families, shares | names of the task families and their shares of the requests (none given: equal) |
    | skew | spread of the popularity that an expert has in all families |
    | family_skew | spread of its popularity in one family alone |
    | groups | co-activated groups of experts per family and layer |
    | shared | share of a family's groups that all families have in common |
    | group_size | mean experts of a group, sizes vary by half of it; groups overlap |
    | pull | strength that its group adds to an expert, between 0.3 and 1 times this |
    | follow | share of tokens that follow a group in a layer; the others choose by popularity alone |
    | loyalty | share of its tokens for which a request keeps to its favourite group |
    | prompt | share of a request's tokens that are prefill; the rest is decode |
    | phase_shift | spread of the difference between prefill and decode |
    | position_drift | spread of the change from the first to the last position of a request |
    | request_drift | spread of the change from the first to the last request |
    | seed | the same seed and parameters give the same trace |
    | model | name of the model |

    A token's group is the same number in every layer, so that layers are correlated as in real traces.
    Raises ValueError naming the parameter, its range and the value found.
    """

    layers: int = 4
    experts: int = 64
    top_k: int = 6
    tokens: int = 20_000
    requests: int = 200
    families: tuple[str, ...] = ("code", "math", "chat", "general")
    shares: tuple[float, ...] = ()
    skew: float = 0.5
    family_skew: float = 0.5
    groups: int = 8
    shared: float = 0.25
    group_size: int = 10
    pull: float = 3.0
    follow: float = 0.8
    loyalty: float = 0.5
    prompt: float = 0.6
    phase_shift: float = 0.3
    position_drift: float = 0.2
    request_drift: float = 0.2
    seed: int = 0
    model: str = "synthetic"

    def __post_init__(self) -> None:
        families = tuple(self.families)
        shares = tuple(self.shares) or (1.0,) * len(families)
        object.__setattr__(self, "families", families)
        object.__setattr__(self, "shares", shares)
        if not families or len(set(families)) != len(families):
            raise ValueError(f"families must be distinct names, found {list(families)}")
        counts = {
            "layers": (1, 10_000),
            "experts": (1, 65_536),
            "top_k": (1, self.experts),
            "tokens": (self.requests, 2**31 - 1),
            "requests": (len(families), 2**31 - 1),
            "groups": (1, 4_096),
            "group_size": (1, self.experts),
            "seed": (0, 2**63 - 1),
        }
        for name, (least, most) in counts.items():
            _within(name, getattr(self, name), least, most, kinds=int)
        # Past 8 logits float32 rates leave their range, and a router no longer chooses.
        for name in ("skew", "family_skew", "pull", "phase_shift", "position_drift", "request_drift"):
            _within(name, getattr(self, name), 0, 8, kinds=int | float)
        for name in ("shared", "follow", "loyalty", "prompt"):
            _within(name, getattr(self, name), 0, 1, kinds=int | float)
        if len(shares) != len(families) or not min(shares, default=0.0) > 0 or not sum(shares) < np.inf:
            raise ValueError(f"shares must be {len(families)} positive numbers, found {list(shares)}")

    def generate(self) -> Trace:
        """Draw the trace; time and memory grow with tokens x experts, a layer at a time."""
        rng = np.random.default_rng([self.seed, 0])
        lengths = self._lengths(rng)
        request = np.repeat(np.arange(self.requests), lengths)
        position = np.arange(self.tokens) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        place = position / lengths[request]
        phase = np.where(place < self.prompt, PREFILL, DECODE)
        family_of = self._families(rng)
        group = self._groups(rng, request, family_of)
        steps = np.stack([place * STEPS, request * STEPS / self.requests]).astype(np.int64)
        context = np.ravel_multi_index((family_of[request], phase, *steps), self._contexts)
        experts = np.empty(
            (self.tokens, self.layers, self.top_k), np.uint8 if self.experts <= 256 else np.uint16
        )
        for layer in range(self.layers):
            self._draw(np.random.default_rng([self.seed, 1 + layer]), experts[:, layer], context, group)
        return Trace(
            experts,
            self.experts,
            families=self.families,
            family=family_of[request].astype(np.uint8),
            request=request.astype(np.int32),
            position=position.astype(np.int32),
            phase=phase.astype(np.uint8),
            model=self.model,
        )

    @property
    def _contexts(self) -> tuple[int, int, int, int]:
        """Axes of the popularity table: family, phase, step of position, step of request."""
        return len(self.families), 2, STEPS, STEPS

    @property
    def _common(self) -> int:
        """Groups that all families share."""
        return round(self.shared * self.groups)

    def _lengths(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """int64 [requests]: at least one token each, long and short ones, summing to the tokens."""
        weights = rng.lognormal(0.0, 0.6, self.requests)
        return 1 + rng.multinomial(self.tokens - self.requests, weights / weights.sum())

    def _families(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """int64 [requests]: every family at least once, the others by their shares."""
        count, shares = len(self.families), np.array(self.shares)
        rest = rng.choice(count, self.requests - count, p=shares / shares.sum())
        return rng.permutation(np.append(np.arange(count), rest))

    def _groups(
        self, rng: np.random.Generator, request: NDArray[np.int64], family_of: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """int64 [tokens]: the group a token follows; the shared groups come first, then each family's own."""
        weights = rng.permuted(
            np.tile(np.arange(1, self.groups + 1) ** -0.5, (len(self.families), 1)), axis=1
        )
        cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
        cumulative[:, -1] = 1.0

        def pick(families: NDArray[np.int64]) -> NDArray[np.int64]:
            numbers: NDArray[np.int64] = (rng.random(len(families))[:, None] > cumulative[families]).sum(
                axis=1
            )
            return numbers

        favourite = pick(family_of)[request]
        loyal = rng.random(self.tokens) < self.loyalty
        family = family_of[request]
        number = np.where(loyal, favourite, pick(family))
        own = self._common + family * (self.groups - self._common) + number - self._common
        return np.where(number < self._common, number, own)

    def _draw(
        self,
        rng: np.random.Generator,
        chosen: NDArray[Any],
        context: NDArray[np.int64],
        group: NDArray[np.int64],
    ) -> None:
        """Fill `chosen` [tokens, k], highest gate first.

        Taking the k largest of logit + Gumbel noise is taking the k smallest of exponential draws times
        exp(-logit) (Efraimidis and Spirakis, 2006); products of tables are the same on every machine.
        """
        slowness = np.exp(-self._popularity(rng)).astype(np.float32)
        bonus = np.exp(-self._bonus(rng)).astype(np.float32)
        followed = np.where(rng.random(self.tokens) < self.follow, group, len(bonus) - 1)
        for start in range(0, self.tokens, CHUNK):
            rows = slice(start, start + CHUNK)
            keys = rng.standard_exponential((len(context[rows]), self.experts), dtype=np.float32)
            keys *= slowness[context[rows]]
            keys *= bonus[followed[rows]]
            first = np.argpartition(keys, self.top_k - 1, axis=1)[:, : self.top_k]
            order = np.argsort(np.take_along_axis(keys, first, axis=1), axis=1)
            chosen[rows] = np.take_along_axis(first, order, axis=1)

    def _popularity(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Logits [contexts, experts] of a token that follows no group."""
        families, phases, places, times = self._contexts
        common, shift, over_position, over_requests = rng.standard_normal((4, self.experts))
        own = rng.standard_normal((families, self.experts))
        table = np.zeros((*self._contexts, self.experts))
        table += self.skew * common + self.family_skew * own[:, None, None, None]
        table += self.phase_shift * np.linspace(-0.5, 0.5, phases)[:, None, None, None] * shift
        table += self.position_drift * np.linspace(-0.5, 0.5, places)[:, None, None] * over_position
        table += self.request_drift * np.linspace(-0.5, 0.5, times)[:, None] * over_requests
        return table.reshape(-1, self.experts)

    def _bonus(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Logits [groups + 1, experts] added by each group; the last row, zero, is for no group."""
        count = self._common + len(self.families) * (self.groups - self._common)
        sizes = np.rint(self.group_size * rng.uniform(0.5, 1.5, count)).clip(1, self.experts)
        rank = np.argsort(np.argsort(rng.random((count, self.experts)), axis=1), axis=1)
        strength = self.pull * rng.uniform(0.3, 1.0, (count, self.experts))
        return np.concatenate([np.where(rank < sizes[:, None], strength, 0.0), np.zeros((1, self.experts))])


def _within(name: str, value: object, least: float, most: float, *, kinds: type | UnionType) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ValueError(f"{name} must be a {'whole ' if kinds is int else ''}number, found {value!r}")
    if not least <= cast(float, value) <= most:
        raise ValueError(f"{name} must lie between {least} and {most}, found {value}")


_MIX = (0.30, 0.20, 0.15, 0.35)

# Calibrated: per layer load max/mean 2.5-7, family load correlation 0-0.8, fan-out 20-40 % below linear by
# swap search, under 10 % for the null. GPUs of that measurement: 16, 32, 64, 64. Tests hold them to it.
PRESETS: Mapping[str, Generator] = MappingProxyType(
    {
        "synthetic-64": Generator(
            experts=64,
            top_k=6,
            tokens=24_000,
            requests=240,
            shares=_MIX,
            skew=0.35,
            family_skew=0.65,
            groups=6,
            group_size=8,
            pull=5.5,
            follow=0.92,
            seed=13,
            model="synthetic-64",
        ),
        "synthetic-128": Generator(
            experts=128,
            top_k=8,
            tokens=32_000,
            requests=320,
            shares=_MIX,
            skew=0.5,
            family_skew=0.6,
            groups=8,
            group_size=10,
            pull=6.0,
            follow=0.94,
            seed=5,
            model="synthetic-128",
        ),
        "synthetic-256": Generator(
            layers=2,
            experts=256,
            top_k=8,
            tokens=32_000,
            requests=320,
            shares=_MIX,
            skew=0.45,
            family_skew=0.6,
            groups=14,
            group_size=11,
            pull=6.5,
            follow=0.95,
            seed=5,
            model="synthetic-256",
        ),
        "synthetic-512": Generator(
            layers=2,
            experts=512,
            top_k=8,
            tokens=40_000,
            requests=400,
            shares=_MIX,
            skew=0.5,
            family_skew=0.6,
            groups=24,
            group_size=10,
            pull=6.5,
            follow=0.95,
            seed=3,
            model="synthetic-512",
        ),
    }
)
