"""Frozen placements under streams whose mix of families shifts: arXiv 2606.01007, section 4.5."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.papers import key_for, on_nulls
from benchmarks.placing import MEMORY, placed, split
from benchmarks.serving_figures import figures
from benchmarks.suite import CORES, SEEDS, experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.placement import Placement
from moeopt.trace import Trace

COMPARED = (
    *("linear", "tacg", "spectral", "occult", "search"),
    *("eplb + copies", "linear + GESR", "spectral + GESR", "occult + GESR", "TACG + GESR", "search + GESR"),
    "search with copies",
)
LAST = COMPARED[-1]  # names the task: its rows end with it
FEWEST_REQUESTS, FEWEST_TOKENS = 2, 500  # held out, of a family that has streams of its own
MOST_FAMILIES = 4
HEAVY = (0.6, 0.8)
DOMINANT = 0.8  # share of the dominant family in a phase
ROUNDS = {"slow": 1, "fast": 8}  # through all families
BURST, BURSTS, BURSTING = 0.15, 4, 2  # share in bursts, bursts of a stream, families that have such a stream
BLOCK = 128  # tokens in which the shares are met and requests run side by side
SECONDS = 600.0

Segment = tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Stream:
    """A mix of families over time.

    | field | holds |
    |---|---|
    | name | of the stream |
    | segments | in order: share of the stream's tokens, and in it the share of each family |
    """

    name: str
    segments: tuple[Segment, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each family in the whole stream."""
        columns = zip(*(part for _, part in self.segments), strict=True)
        lengths = [length for length, _ in self.segments]
        return tuple(
            sum(length * share for length, share in zip(lengths, column, strict=True)) for column in columns
        )


@experiment("shifts", workers=CORES)
def shifts() -> Iterable[Task]:
    """Frozen placements on 13 streams of held-out requests: balanced, heavy, phase shifts and bursts."""
    for prefix, seed in on_nulls(SEEDS):
        for model in MEMORY:
            key = key_for(LAST, prefix + model, model=model, seed=seed)
            yield Task(key, measure_shifts, (prefix + model, model, key), SECONDS)


def measure_shifts(source: str, model: str, key: Key) -> list[Row]:
    """A row a scheme, each with a dict of the streams; all schemes serve the same ones."""
    held = split(source, key.seed)[1]
    made = {name: placed(name, source, seed=key.seed, model=model).placement for name in COMPARED}
    families, left_out = families_kept(held)
    served, facts = serve({name: one for name, one in made.items() if one is not None}, held, seed=key.seed)
    rows = []
    for name in COMPARED:
        own = replace(key_for(name, source, model=model, seed=key.seed), stop=key.stop)
        if name not in served:
            rows.append(own.row("failed", reason="no placement", scheme=name))
            continue
        rows.append(
            own.row(
                "done",
                scheme=name,
                model=model,
                families=families,
                left_out=left_out,
                drawn_from=facts,
                streams=served[name],
            )
        )
    return rows


def serve(
    placements: Mapping[str, Placement], held: Trace, *, seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """(scheme -> stream -> figures, stream -> tokens, requests and shares as they came out)."""
    families, _ = families_kept(held)
    served: dict[str, dict[str, Any]] = {name: {} for name in placements}
    facts = {}
    for stream, trace in streams_of(held, seed=seed):
        counts = np.bincount(trace.family, minlength=len(trace.families))
        facts[stream.name] = {
            "tokens": trace.n_tokens,
            "requests": len(np.unique(trace.request)),
            "shares": {name: float(counts[trace.families.index(name)]) / trace.n_tokens for name in families},
        }
        for name, placement in placements.items():
            served[name][stream.name] = figures(placement, trace, order="recorded")
    return served, facts


def families_kept(held: Trace) -> tuple[list[str], dict[str, str]]:
    """(families with streams of their own, in the trace's order; reason of each one left out).

    Kept are families with at least FEWEST_REQUESTS requests and FEWEST_TOKENS tokens held out; of more than
    MOST_FAMILIES those with the most tokens.
    """
    sizes, reasons = {}, {}
    for index, name in enumerate(held.families):
        own = held.family == index
        tokens, requests = int(own.sum()), len(np.unique(held.request[own]))
        if requests < FEWEST_REQUESTS or tokens < FEWEST_TOKENS:
            reasons[name] = f"{requests} requests and {tokens} tokens held out"
        else:
            sizes[name] = tokens
    largest = sorted(sizes, key=lambda name: -sizes[name])[:MOST_FAMILIES]
    reasons |= {name: f"not among the {MOST_FAMILIES} largest" for name in sizes if name not in largest}
    return [name for name in held.families if name in largest], reasons


def mixes(families: Sequence[str]) -> list[Stream]:
    """1 balanced stream, 2 heavy ones a family, 2 phase shifts and 2 with bursts: 13 of four families."""
    count = len(families)
    if count < 2:
        raise ValueError(f"shifts need at least 2 families, found {count}")
    even = (1 / count,) * count

    def heavy(index: int, share: float) -> tuple[float, ...]:
        return tuple(share if at == index else (1 - share) / (count - 1) for at in range(count))

    streams = [Stream("balanced", ((1.0, even),))]
    for index, name in enumerate(families):
        streams += [Stream(f"{name} {share:.0%}", ((1.0, heavy(index, share)),)) for share in HEAVY]
    for pace, rounds in ROUNDS.items():
        round_ = tuple((1 / (rounds * count), heavy(index, DOMINANT)) for index in range(count))
        streams.append(Stream(f"phases, {pace}", round_ * rounds))
    for index, name in enumerate(families[:BURSTING]):
        burst: Segment = (BURST / BURSTS, heavy(index, 1.0))
        streams.append(Stream(f"bursts of {name}", (((1 - BURST) / BURSTS, even), burst) * BURSTS))
    return streams


def streams_of(held: Trace, *, seed: int) -> Iterator[tuple[Stream, Trace]]:
    """Each mix as a trace in arrival order, with as many tokens as the families have held out together."""
    families, _ = families_kept(held)
    own = [held.families.index(name) for name in families]
    tokens = int(np.isin(held.family, own).sum())
    for number, stream in enumerate(mixes(families)):
        rng = np.random.default_rng([seed, number])
        yield stream, held.take(arrivals(held, own, stream=stream, tokens=tokens, rng=rng))


def arrivals(
    held: Trace, families: Sequence[int], *, stream: Stream, tokens: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """int64 [tokens]: rows of `held` in the order in which they arrive.

    Of every family whole requests are drawn with replacement, one after the other; the last one ends where the stream
    does. Shares are met to one token in blocks of at most BLOCK; in a block the requests of all families advance
    together, a token each, and a request that the block does not finish goes on in the next block of its family.
    """
    quotas = [quota for segment in stream.segments for quota in _quotas(segment, tokens)]
    queues = [
        _queue(held, family, tokens=sum(quota[at] for quota in quotas), rng=rng)
        for at, family in enumerate(families)
    ]
    taken = [0] * len(families)
    blocks = []
    for quota in quotas:
        rows, lanes = [], []
        for at, count in enumerate(quota):
            part = slice(taken[at], taken[at] + count)
            rows.append(queues[at][0][part])
            lanes.append(queues[at][1][part] * len(families) + at)
            taken[at] += count
        row, lane = np.concatenate(rows), np.concatenate(lanes)
        starts = np.flatnonzero(np.append(True, lane[1:] != lane[:-1]))
        step = np.arange(len(lane)) - np.repeat(starts, np.diff(np.append(starts, len(lane))))
        blocks.append(row[np.lexsort((rng.permutation(lane.max() + 1)[lane], step))])
    return np.concatenate(blocks)


def _quotas(segment: Segment, tokens: int) -> Iterator[list[int]]:
    """Tokens of each family in each block of a segment: largest remainders."""
    length, shares = round(segment[0] * tokens), np.array(segment[1])
    count = max(1, -(-length // BLOCK))
    for block in range(count):
        size = length * (block + 1) // count - length * block // count
        whole = np.floor(shares * size).astype(np.int64)
        rest = np.argsort(whole - shares * size, kind="stable")[: size - int(whole.sum())]
        whole[rest] += 1
        if size:
            yield whole.tolist()


def _queue(
    held: Trace, family: int, *, tokens: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row of `held`, number of the draw) of each token of one family, requests drawn until there are enough."""
    own = np.flatnonzero(held.family == family)
    own = own[np.lexsort((held.position[own], held.phase[own], held.request[own]))]
    requests = np.split(own, np.flatnonzero(np.diff(held.request[own])) + 1)
    drawn: list[NDArray[np.int64]] = []
    found = 0
    while found < tokens:
        drawn.append(requests[int(rng.integers(len(requests)))])
        found += len(drawn[-1])
    if not drawn:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    lanes = np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])
    return np.concatenate(drawn)[:tokens], lanes[:tokens]
