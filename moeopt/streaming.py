"""Data sets of any size as workloads: one pass, bounded memory, shards that merge.

A Parquet file keeps a column a layer, so that a pass reads a layer at a time, of all shards: every column is decoded
once (that of the families with each layer), one table of sets is open for each worker, and layers go to the workers of
an executor.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from os import PathLike as OsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt import parallel
from moeopt.set_counting import SetCounter
from moeopt.set_tallies import SetTally, packing
from moeopt.shards import Shard, find_shards
from moeopt.stop import Stop, is_interrupt
from moeopt.storage import PathLike
from moeopt.streamed import MOST_TOKENS, Streamed
from moeopt.trace import Trace

__all__ = ["LEAST_SETS", "stream_workload"]

Follow = Callable[[str, int], Callable[[], object]]
BASE = 320 << 20  # bytes of a process that counts, before it counts: Python, NumPy, PyArrow, Numba, batches
LEAST_SETS = 1024  # a layer, or the memory is refused


def stream_workload(
    source: PathLike | Sequence[PathLike] | Trace | Iterable[Trace],
    *,
    layer_ids: Iterable[int] | None = None,
    families: Sequence[str] | None = None,
    memory: int = 2 << 30,
    most_sets: int | None = None,
    executor: Executor | None = None,
    follow: Follow | None = None,
    sample_seed: int = 0,
) -> Streamed:
    """The workload of a data set, in one pass: of a Parquet file, a folder or list of them, a trace or its batches.

    | parameter | is |
    |---|---|
    | layer_ids, families | those to count, by absolute index and by name; None: all |
    | memory | bytes of this process at its peak, the workload included; of worker processes together with it |
    | most_sets | sets kept of a layer; None: as many as the memory holds |
    | executor | counts layers of files in parallel; a thread pool shares memory, and kernels release the lock |
    | follow | follow(text, steps) gives what is called after each layer, or each batch |
    | sample_seed | of the draw. Files differ by content; batches counted apart need different seeds to merge |

    Up to `most_sets` sets of each layer the workload is exact, that of `Workload.from_trace`; beyond, of a simple
    random sample of the tokens: see `Streamed`. Batches of a trace share layers and experts, and families, unless
    `families` names some. Ctrl-C raises KeyboardInterrupt once the layers begun are counted; nothing is left behind.
    Raises ValueError naming the file, the rule and the value found, or how much memory is needed.
    """
    if isinstance(source, Trace):
        source = (source,)
    choice = _Choice.of(layer_ids, families, memory=memory, most_sets=most_sets, seed=sample_seed)
    if not isinstance(source, str | OsPath):
        if not isinstance(source, Iterable):
            raise ValueError(f"a data set is of files or of traces, found {type(source).__name__}")
        parts = iter(source)
        first = next(parts, None)
        if first is None:
            raise ValueError("a data set must have at least one batch or file, found none")
        whole: Any = chain([first], parts)
        if isinstance(first, Trace):
            try:
                return _of_batches(first, whole, choice, follow)
            except SystemError as error:
                if not is_interrupt(error):
                    raise
                raise KeyboardInterrupt from error
        source = list(whole)
    return _of_shards(find_shards(source), choice, executor, follow)


@dataclass(frozen=True)
class _Choice:
    """What the caller chose: layers and families (None: all), memory in bytes, sets of a layer, seed."""

    layer_ids: tuple[int, ...] | None
    families: tuple[str, ...] | None
    memory: int
    most_sets: int | None
    seed: int

    @classmethod
    def of(
        cls,
        layer_ids: Iterable[int] | None,
        families: Sequence[str] | None,
        *,
        memory: int,
        most_sets: int | None,
        seed: int,
    ) -> "_Choice":
        if memory < 1 or (most_sets is not None and most_sets < 1):
            raise ValueError(f"memory and most_sets must be at least 1, found {memory} and {most_sets}")
        names = None if families is None else tuple(families)
        if names is not None and (not names or len(set(names)) != len(names)):
            raise ValueError(f"families must be distinct names, at least one, found {list(names)[:300]}")
        ids = None if layer_ids is None else tuple(sorted(set(layer_ids)))
        if ids is not None and not ids:
            raise ValueError("at least one layer must be chosen, found none")
        return cls(ids, names, memory, most_sets, seed)

    def layers(self, known: tuple[int, ...]) -> tuple[int, ...]:
        """Those to count of the layers there are."""
        if self.layer_ids is None:
            return known
        if missing := [layer for layer in self.layer_ids if layer not in known]:
            raise ValueError(f"layer {missing[0]} is not recorded, the layers are {list(known)}")
        return self.layer_ids

    def names(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Those to count of the families there are."""
        if self.families is not None and (missing := [name for name in self.families if name not in known]):
            raise ValueError(f"family {missing[0]!r} is not recorded, the families are {sorted(known)}")
        names = known if self.families is None else self.families
        if len(names) > 256:
            raise ValueError(f"at most 256 families, found {len(names)}")
        return names

    def limit(
        self, *, layers: int, n_experts: int, top_k: int, families: int, tables: int, processes: int = 1
    ) -> int:
        """Sets of a layer that the memory holds, with `tables` layers being counted at a time in all processes."""
        if self.most_sets is not None:
            return min(self.most_sets, MOST_TOKENS)
        words = packing(n_experts, top_k)[2]
        entry, token, row = 8 * words + 4 * families, 8 * words + 2, 4 * top_k + 8 * families
        # A set in its tally, a token of the sample and a set of the workload, of every layer; a table at its growth, or
        # its copy with 24 bytes to order it; one layer of the workload being made.
        each = layers * (entry + token + row) + tables * (5 * entry + 24 + token) + 3 * row
        fixed = processes * BASE + 2 * layers * n_experts * families * 8
        limit = (self.memory - fixed) // each
        if limit < LEAST_SETS:
            raise ValueError(
                f"{layers} layers of {families} families need at least {fixed + LEAST_SETS * each} bytes of memory, "
                f"for {LEAST_SETS} expert sets each, found {self.memory}"
            )
        return min(limit, MOST_TOKENS)


def _of_shards(
    shards: tuple[Shard, ...], choice: _Choice, executor: Executor | None, follow: Follow | None
) -> Streamed:
    """Counts files, a layer a task."""
    first = shards[0]
    layers = choice.layers(first.layer_ids)
    names = choice.names(tuple(dict.fromkeys(name for shard in shards for name in shard.families)))
    total = _within(sum(shard.rows for shard in shards))
    workers = 1 if executor is None else getattr(executor, "_max_workers", parallel.available_cores())
    shared = executor is None or isinstance(executor, ThreadPoolExecutor)
    limit = choice.limit(
        layers=len(layers),
        n_experts=first.n_experts,
        top_k=first.top_k,
        families=len(names),
        tables=min(workers, len(layers)),
        processes=1 if shared else 1 + workers,
    )
    step = (
        (lambda: None) if follow is None else follow(f"{total:,} tokens, {len(layers)} layers", len(layers))
    )
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (_count_layer, (layer, shards, names, limit, choice.seed)) for layer in layers
    ]
    tallies, interrupted = parallel.run(
        executor,
        tasks,
        done=lambda tally: step() if tally is not None else None,
        gave_up=lambda tally: tally is None,
    )
    found = tuple(tally for tally in tallies if tally is not None)
    if interrupted or len(found) < len(layers):
        raise KeyboardInterrupt
    return Streamed(found, layers, names, first.model)


def _count_layer(
    layer: int, shards: tuple[Shard, ...], names: tuple[str, ...], limit: int, seed: int
) -> SetTally | None:
    """One layer of all shards; None where the user interrupts."""
    first, clock = shards[0], Stop(seconds=None).start()
    counter = SetCounter(first.n_experts, top_k=first.top_k, families=len(names), limit=limit)
    for shard in shards:
        column, salt, row = _columns(shard.families, names), _salt(seed, shard.salt), 0
        for ids, family in shard.batches(layer):
            if clock.interrupted:
                return None
            try:
                counter.add(ids, column[family], salt=salt, first=row)
            except ValueError as error:
                raise ValueError(f"{shard.path}: layer {layer}: {error}") from error
            row += len(ids)
    return counter.tally()


def _of_batches(first: Trace, batches: Iterable[Trace], choice: _Choice, follow: Follow | None) -> Streamed:
    """Counts batches, all layers as they come."""
    own = tuple(first.layer_ids.tolist())
    layers = choice.layers(own)
    names = first.families if choice.families is None else choice.families
    sizes = {"n_experts": first.n_experts, "top_k": first.top_k, "families": len(names)}
    limit = choice.limit(layers=len(layers), tables=len(layers), **sizes)
    counters = {
        layer: SetCounter(first.n_experts, top_k=first.top_k, families=len(names), limit=limit)
        for layer in layers
    }
    step = (lambda: None) if follow is None else follow("batches of tokens", 0)
    salt, row, seen = _salt(choice.seed, 0), 0, dict.fromkeys(first.families)
    shape = (first.n_experts, first.top_k, own)
    for number, batch in enumerate(batches):
        if not isinstance(batch, Trace):
            raise ValueError(
                f"batch {number}: a trace is wanted like the first, found {type(batch).__name__}"
            )
        found = (batch.n_experts, batch.top_k, tuple(batch.layer_ids.tolist()))
        if found != shape:
            raise ValueError(f"batch {number}: experts, top-k and layers must be {shape}, found {found}")
        new = [name for name in batch.families if name not in names]
        if choice.families is None and new:
            raise ValueError(f"batch {number}: family {new[0]!r} is not in the first batch: give families")
        seen |= dict.fromkeys(batch.families)
        family = _columns(batch.families, names)[batch.family]
        for layer, counter in counters.items():
            ids = batch.experts[:, own.index(layer)].astype(np.uint16)
            counter.add(ids, family, salt=salt, first=row)
        row = _within(row + batch.n_tokens)
        step()
    choice.names(tuple(seen))
    tallies = tuple(counters.pop(layer).tally() for layer in layers)  # one open table less at a time
    return Streamed(tallies, layers, names, first.model)


def _within(tokens: int) -> int:
    if tokens > MOST_TOKENS:
        raise ValueError(
            f"a data set must have at most {MOST_TOKENS} tokens: stream parts of it, found {tokens}"
        )
    return tokens


def _columns(families: tuple[str, ...], names: tuple[str, ...]) -> NDArray[np.int16]:
    """int16 [families]: the number of each in `names`, -1 of those left out."""
    return np.array([names.index(name) if name in names else -1 for name in families], np.int16)


def _salt(seed: int, own: int) -> int:
    """63 bits of both."""
    content = hashlib.blake2b(f"moeopt-draw {seed} {own}".encode(), digest_size=8)
    return int.from_bytes(content.digest(), "little") >> 1
