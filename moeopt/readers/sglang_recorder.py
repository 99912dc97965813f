"""Dumps of SGLang's expert distribution recorder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.load_counts import load_workload
from moeopt.sglang_tokens import joined, whole
from moeopt.supplement import Supplement
from moeopt.torch_archive import opening, read_archive
from moeopt.trace import Trace
from moeopt.workload import Workload

MAP = "last_physical_to_logical_map"
TOKENS = "topk_ids_of_layer"
Dumps = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class SGLangRecorder:
    """Reader of `/dump_expert_distribution_record`: one file, or the folder of the files of one dump (`*.pt`).

    | field | of mode | holds |
    |---|---|---|
    | logical_count | stat, stat_approx | int [steps, layers, E], sum over ranks; [layers, E] too |
    | records | per_pass, per_token | dicts, one a forward pass, of one rank |
    | last_physical_to_logical_map | per_pass, per_token | int [layers, slots]: the expert in each slot |

    | field of a record | holds |
    |---|---|
    | forward_pass_id, rank, gatherer_key | int, int, "primary" |
    | global_physical_count | per_pass: int [layers, slots] |
    | topk_ids_of_layer | per_token: int [layers, tokens, 8], slots, filled up with -1 |
    | input_ids, positions | per_token: int [tokens] |
    | extend_seq_lens | per_token: tokens of each request of a prefill |
    | forward_mode | per_token: 1 prefill, 2 decode, 3 mixed, 4 idle |

    Rows are all hidden layers. In counts a dense layer is one of zeros, in tokens one of -1: both are left out, and
    `layer_ids` picks among the others. Counts become loads, tokens a trace.

    - stat: steps are in the order of a ring buffer, unused ones zero: they are summed. Files of several ranks hold the
      same sums each (SGLang of old): one is taken once they prove equal, since to add them would count all ranks again.
    - per_pass: summed over passes and ranks, as SGLang's eplb_simulator does; without attention parallel over data
      every rank counts the same tokens, which scales the loads. A file alone says what its rank saw.
    - per_token: passes in order, ranks one after the other within a pass; ranks that name the same tokens all along
      (tensor parallelism) are taken once. Requests: see `moeopt.sglang_requests`. Slots become experts by the
      map at the time of the dump: do not record across a rebalancing.

    `limit` bounds the size of all files, and the memory that each takes, in bytes. Source: sglang 0.5.23,
    python/sglang/srt/eplb/expert_distribution.py.
    """

    limit: int = 8 * 2**30

    name: ClassVar[str] = "sglang-recorder"

    def accepts(self, path: Path, head: bytes) -> bool:
        if head:
            return head.startswith(b"PK") and _known(opening(path))
        try:
            return path.is_dir() and _known(opening(min(path.glob("*.pt"), default=path)))
        except OSError:
            return False

    def read(self, path: Path, supplement: Supplement) -> Trace | Workload:
        dumps = self._dumps(path)
        if all("logical_count" in content for content in dumps.values()):
            return _loads(_once(dumps), supplement)
        for name, content in dumps.items():
            if not isinstance(content.get("records"), list):
                raise ValueError(f"{name}: records must be a list beside other records, found none")
        experts = _map(dumps)
        records = _records(dumps)
        n_experts = int(experts.max()) + 1
        if not all(TOKENS in record for record in records):
            if any(TOKENS in record for record in records):
                raise ValueError("records must be of one mode, found per_pass and per_token")
            return _loads(_logical(_summed(records, experts.shape), experts, n_experts), supplement)
        own = joined(records, experts=experts, n_experts=n_experts, supplement=supplement)
        return supplement.settled(own)

    def _dumps(self, path: Path) -> Dumps:
        """Content of the files, by their names."""
        files = sorted(path.glob("*.pt")) if path.is_dir() else [path]
        if path.is_dir() and (links := [file.name for file in files if file.is_symlink()]):
            raise ValueError(f"a dump must hold its files, found the symbolic link {links[0]!r}")
        if (size := sum(file.stat().st_size for file in files)) > self.limit:
            raise ValueError(f"a dump may have {self.limit} bytes, found {size}")
        dumps: Dumps = {}
        for file in files:
            try:
                dumps[file.name] = read_archive(file, limit=self.limit)
            except ValueError as error:
                raise ValueError(f"{file.name}: {error}" if path.is_dir() else str(error)) from error
            if not isinstance(dumps[file.name], dict):
                raise ValueError(f"{file.name}: a dump is a dict, found {type(dumps[file.name]).__name__}")
        return dumps


def _known(start: bytes) -> bool:
    return b"logical_count" in start or (
        b"records" in start and (MAP.encode() in start or b"forward_pass_id" in start)
    )


def _once(dumps: Dumps) -> NDArray[np.int64]:
    """int64 [layers, E]: the sums that all files hold."""
    first, *others = dumps
    counts = {name: _counts(name, content["logical_count"]) for name, content in dumps.items()}
    for other in others:
        if not np.array_equal(counts[first], counts[other]):
            raise ValueError(
                f"{first} and {other} differ: each stat file holds the sum over all ranks, so they are of several "
                "dumps, and to add ranks would count them twice: read one file at a time"
            )
    return np.asarray(counts[first].sum(axis=0), np.int64)


def _counts(name: str, found: Any) -> NDArray[np.int64]:
    """int64 [steps, layers, E]"""
    counts = whole({"logical_count": found}, "logical_count", axes=2 if np.ndim(found) == 2 else 3)
    counts = counts[None] if counts.ndim == 2 else counts
    if 0 in counts.shape:
        raise ValueError(f"{name}: logical_count must hold counts, found shape {counts.shape}")
    return _counted(counts, "logical_count")


def _counted(counts: NDArray[np.int64], name: str) -> NDArray[np.int64]:
    if counts.min() < 0 or counts.max() >= 1 << 46:
        raise ValueError(f"{name} must lie from 0 to 2^46, found {counts.min()} to {counts.max()}")
    return counts


def _loads(counts: NDArray[np.int64], supplement: Supplement) -> Workload:
    """The workload of counts [hidden layers, E]; layers of zeros are dense."""
    layers = np.flatnonzero(counts.any(axis=1))
    if not len(layers):
        raise ValueError(f"every count of {counts.shape[0]} layers is zero: nothing was recorded")
    return supplement.settled(
        load_workload(counts[layers], layer_ids=layers.tolist(), top_k=supplement.top_k)
    )


def _map(dumps: Dumps) -> NDArray[np.int64]:
    """int64 [layers, slots]: the expert in each slot, the same in all files."""
    maps = {name: whole(content, MAP, axes=2) for name, content in dumps.items()}
    first, *others = maps
    experts = maps[first]
    for other in others:
        if not np.array_equal(experts, maps[other]):
            raise ValueError(f"{first} and {other} differ in {MAP}: they are of several dumps")
    if 0 in experts.shape or experts.min() < 0 or (count := int(experts.max()) + 1) > experts.shape[1]:
        raise ValueError(f"{MAP} must name experts below the number of slots, found {experts.shape}")
    held = np.zeros((len(experts), count), bool)
    held[np.arange(len(experts))[:, None], experts] = True
    for layer, expert in np.argwhere(~held)[:1]:
        raise ValueError(f"{MAP} must give every expert a slot, layer {layer} gives expert {expert} none")
    return experts


def _records(dumps: Dumps) -> list[dict[str, Any]]:
    """Records of all files, each pass of a rank once."""
    records = [record for content in dumps.values() for record in content["records"]]
    seen: set[tuple[int, int]] = set()
    for record in records:
        if not isinstance(record, dict):
            raise ValueError(f"a record must be a dict, found {type(record).__name__}")
        for name in ("forward_pass_id", "rank"):
            if type(record.get(name)) is not int or record[name] < 0:
                raise ValueError(f"{name} of a record must be a whole number from 0 on, found another")
        if record.get("gatherer_key", "primary") != "primary":
            raise ValueError("gatherer_key must be 'primary': two-batch overlap is not supported by SGLang")
        key = (record["forward_pass_id"], record["rank"])
        if key in seen:
            raise ValueError(f"pass {key[0]} of rank {key[1]} is recorded twice")
        seen.add(key)
    if not records:
        raise ValueError("no pass was recorded")
    return records


def _summed(records: Sequence[dict[str, Any]], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """int64 [layers, slots]: tokens of every slot."""
    total = np.zeros(shape, np.int64)
    for record in records:
        counts = _counted(whole(record, "global_physical_count", axes=2), "global_physical_count")
        if counts.shape != shape:
            raise ValueError(f"global_physical_count must have shape {shape}, found {counts.shape}")
        total += counts
    ranks = {record["rank"] for record in records}
    slots = np.flatnonzero(total.any(axis=0))
    for size in range(1, shape[1] if len(ranks) == 1 and len(slots) else 0):
        if shape[1] % size == 0 and {*ranks} == {slots[0] // size} == {slots[-1] // size}:
            raise ValueError(
                f"slots {slots[0]} to {slots[-1]} alone were counted, those of rank {slots[0] // size}: "
                "read the folder with the files of all ranks"
            )
    return total


def _logical(counts: NDArray[np.int64], experts: NDArray[np.int64], n_experts: int) -> NDArray[np.int64]:
    """int64 [layers, E] of counts [layers, slots]."""
    loads = np.zeros((len(counts), n_experts), np.int64)
    np.add.at(loads, (np.arange(len(counts))[:, None], experts), counts)
    return loads
