"""What was counted of some shards, on disk: counted on other machines, added here.

A `.npz` archive, uncompressed, without pickled objects:

| array | holds |
|---|---|
| header | JSON text as uint8: format, version, model, families, layer_ids, n_experts, top_k, limit, least |
| loads | int64 [layers, experts, families] |
| family, level | uint8 [tokens]: of the tokens drawn, the same in every layer |
| sample_<i> | uint64 [tokens, words]: their sets in the i-th layer |
| keys_<i>, counts_<i> | uint64 [sets, words], uint32 [sets, families]: all sets; absent beyond the limit |
"""

import io
import json
import zipfile
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.array_files import DAMAGED, array_content, check_unpacked
from moeopt.set_tallies import SetTally, order_of, packing
from moeopt.storage import PathLike
from moeopt.streamed import Streamed

__all__ = ["read_streamed", "write_streamed"]

FORMAT, VERSION = "moeopt-streamed", 1
LIMIT = 16 << 30  # bytes of an archive that is read


def write_streamed(streamed: Streamed, path: PathLike) -> None:
    """The whole file or nothing; ValueError names the file when it cannot be written."""
    first = streamed.tallies[0]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": streamed.model,
        "families": list(streamed.families),
        "layer_ids": list(streamed.layer_ids),
        "n_experts": first.n_experts,
        "top_k": first.top_k,
        "limit": first.limit,
        "least": first.least,
    }
    arrays: dict[str, NDArray[Any]] = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "loads": streamed.loads,
        "family": first.family,
        "level": first.level,
    }
    for index, tally in enumerate(streamed.tallies):
        arrays[f"sample_{index}"] = tally.sample
        if tally.keys is not None and tally.counts is not None:
            arrays[f"keys_{index}"], arrays[f"counts_{index}"] = tally.keys, tally.counts
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **arrays)
    storage.write_bytes(path, sink.getvalue())


def read_streamed(path: PathLike) -> Streamed:
    """Inverse of `write_streamed`, checked; ValueError names the file and what does not fit."""
    try:
        if not S_ISREG(Path(path).stat().st_mode):  # a pipe would be waited for
            raise ValueError("counts are a regular file, found something else")
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (*DAMAGED, RuntimeError) as error:
        raise ValueError(
            f"{path}: damaged or truncated archive: {str(error) or type(error).__name__}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(archive: zipfile.ZipFile) -> Streamed:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    check_unpacked(members.values(), packed=archive.start_dir, limit=LIMIT)

    def array(name: str, dtype: type, *shape: int | None) -> NDArray[Any]:
        if name not in members:
            raise ValueError(f"array {name!r} is missing, found {sorted(members)[:16]!s:.200}")
        with archive.open(members[name]) as file:
            found = array_content(file, name=name, size=members[name].file_size)
        fits = len(found.shape) == len(shape) and all(
            wanted in (None, length) for length, wanted in zip(found.shape, shape, strict=True)
        )
        if found.dtype != dtype or not fits:
            raise ValueError(
                f"array {name!r} must be {np.dtype(dtype)} of shape {shape}, found {found.dtype} {found.shape}"
            )
        return found

    text = array("header", np.uint8, None).tobytes()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no readable header: {error}") from error
    header = storage.expect(document, kind=FORMAT, version=VERSION)
    families = tuple(storage.field(header, "families", kind=list))
    layer_ids = tuple(storage.field(header, "layer_ids", kind=list))
    experts, k, limit, least = (
        storage.field(header, name, kind=int) for name in ("n_experts", "top_k", "limit", "least")
    )
    if (
        not all(isinstance(name, str) for name in families)
        or not 1 <= len(set(families)) == len(families) <= 256
    ):
        raise ValueError(f"families must be 1 to 256 distinct names, found {list(families)[:300]}")
    if any(type(layer) is not int for layer in layer_ids) or list(layer_ids) != sorted(set(layer_ids)):
        raise ValueError(f"layer_ids must be ascending whole numbers, found {list(layer_ids)}")
    if not 1 <= k <= experts <= 65_536 or limit < 1 or not 0 <= least <= 256:
        raise ValueError(
            f"top-k, experts, limit and least level make no sense: {k}, {experts}, {limit}, {least}"
        )
    loads = array("loads", np.int64, len(layer_ids), experts, len(families))
    family, level = (array(name, np.uint8, None) for name in ("family", "level"))
    if loads.size and loads.min() < 0:
        raise ValueError(f"loads must not be negative, found {loads.min()}")
    if len(family) != len(level) or len(family) > limit or level.min(initial=255) < least:
        raise ValueError(f"a sample has at most {limit} tokens, all of level {least} or more, found others")
    if family.max(initial=0) >= len(families):
        raise ValueError(f"family {family.max()} out of range, there are {len(families)} families")
    words, tallies = packing(experts, k)[2], []
    for index in range(len(layer_ids)):
        sample = array(f"sample_{index}", np.uint64, len(family), words)
        keys = counts = None
        if f"keys_{index}" in members:
            keys = array(f"keys_{index}", np.uint64, None, words)
            counts = array(f"counts_{index}", np.uint32, len(keys), len(families))
            _check_order(keys)
        tally = SetTally(experts, k, limit, loads[index], keys, counts, sample, family, level, least)
        _check_sets(tally)
        tallies.append(tally)
    return Streamed(tuple(tallies), layer_ids, families, storage.field(header, "model", kind=str))


def _check_order(keys: NDArray[np.uint64]) -> None:
    if (order_of(keys) != np.arange(len(keys))).any() or (keys[1:] == keys[:-1]).all(axis=1).any():
        raise ValueError("sets must be distinct and ascend")


def _check_sets(tally: SetTally) -> None:
    """Sets of distinct ids in range, whose loads are those recorded."""
    for exact in (False, True) if tally.exact else (False,):
        sets = tally.expert_sets(exact=exact)
        members = sets.members
        if members.size and (members.max() >= tally.n_experts or (np.diff(members, axis=1) <= 0).any()):
            raise ValueError(f"sets must be of ascending ids below {tally.n_experts}")
        if exact:
            loads = np.stack([sets.weighted_load(column) for column in sets.counts.T], axis=1)
            if (loads != tally.loads).any():
                raise ValueError("loads must be those of the sets")
