"""The packaged instances: placement problems with the best placements and bounds known, for others' solvers."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Self

from moeopt import storage
from moeopt.certificate import Certificate, seal
from moeopt.problem import Problem

__all__ = [
    "INDEX",
    "SOLUTIONS",
    "VERSION",
    "Entry",
    "entries",
    "index_of",
    "named_entry",
    "packed",
    "read_documents",
    "read_instance",
    "read_solutions",
    "solution_lines",
]

VERSION = "1"  # of the set: entries keep their name and problem as long as it stays
FORMAT = "moeopt-instances"
INDEX, SOLUTIONS = "index.json", "moeopt.solu"
KINDS = ("problem", "certificate")
LARGEST = 1 << 26  # bytes of an unpacked document
MEMORY = 1 << 28  # bytes that unpacking may take


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the index says of one instance.

    | field | holds |
    |---|---|
    | name | of the instance, and of its files |
    | about | one sentence |
    | experts, top_k, sets | of the layer; `sets` are its distinct expert sets |
    | gpus, nodes, slots | of the cluster |
    | objective, rules | of the problem; the rules in words, empty when there are none |
    | formulation | whose model is written where no other one is asked for |
    | cost, bound | of the best placement known, and what none costs less than: exact, certified |
    | problem_sha256, certificate_sha256 | of the packed files |
    """

    name: str
    about: str
    experts: int
    top_k: int
    sets: int
    gpus: int
    nodes: int
    slots: int
    objective: str
    rules: str
    formulation: str
    cost: int
    bound: int
    problem_sha256: str
    certificate_sha256: str

    @property
    def optimal(self) -> bool:
        """Whether the cost is proved least."""
        return self.cost == self.bound

    @property
    def status(self) -> str:
        """In the words of `moeopt.Result`."""
        return "certified-optimal" if self.optimal else "certified-gap"

    def file(self, kind: str) -> str:
        """Name of the packed file of kind "problem" or "certificate"."""
        return f"{self.name}.{kind}.json.xz"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, the fields alone."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; ValueError names a field that is missing or of another type."""
        kinds = {"int": int, "str": str}
        return cls(
            **{one.name: storage.field(document, one.name, kind=kinds[str(one.type)]) for one in fields(cls)}
        )


def entries(folder: Traversable | None = None) -> tuple[Entry, ...]:
    """What the index of the set holds, small instances first; of another folder for tests and makers.

    ValueError names the index and what is wrong with it.
    """
    home = _home(folder)
    content = _content(home, INDEX)
    try:
        document = storage.expect(json.loads(content), kind=FORMAT)
        if document.get("seal") != seal(document):
            raise ValueError("the seal does not fit the content: the index was altered or damaged")
        if document.get("set") != VERSION:
            raise ValueError(f"version of the set must be {VERSION}, found {document.get('set')!r:.80}")
        return tuple(_entry(one) for one in storage.field(document, "instances", kind=list))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{home / INDEX}: {error}") from error


def named_entry(name: str, *, folder: Traversable | None = None) -> Entry:
    """The entry of this name; ValueError lists those that are near, or all."""
    known = {entry.name: entry for entry in entries(folder)}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}? known are" if near else "known are"
    raise ValueError(f"no instance is named {name!r}; {hint} {', '.join(known)}")


def read_documents(entry: Entry, *, folder: Traversable | None = None) -> dict[str, bytes]:
    """The JSON documents of an instance by kind, "problem" and "certificate", as bytes.

    ValueError names the file whose sha-256 is not that of the index, or that cannot be unpacked within `LARGEST` bytes.
    """
    home = _home(folder)
    sums = {"problem": entry.problem_sha256, "certificate": entry.certificate_sha256}
    return {kind: _unpacked(home, entry.file(kind), sums[kind]) for kind in KINDS}


def read_instance(name: str, *, folder: Traversable | None = None) -> tuple[Problem, Certificate]:
    """An instance by name: its problem, and the certificate with its best placement known.

    Raises ValueError for a name that is not known, and for a file that is damaged or not of this set.
    `moeopt.checker.verify(certificate, problem.workload)` proves it again.
    """
    home, entry = _home(folder), named_entry(name, folder=folder)
    found = read_documents(entry, folder=folder)
    file = ""
    try:
        file = entry.file("problem")
        problem = Problem.from_dict(json.loads(found["problem"]))
        file = entry.file("certificate")
        certificate = Certificate.from_dict(json.loads(found["certificate"]))
        told = (
            sum(proof.cost or 0 for proof in certificate.proofs),
            sum(p.bound for p in certificate.proofs),
        )
        if told != (entry.cost, entry.bound):
            raise ValueError(f"cost and bound must be {entry.cost} and {entry.bound}, found {told}")
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{home / file}: {error}") from error
    return problem, certificate


def read_solutions(folder: Traversable | None = None) -> str:
    """The `.solu` file of the set; ValueError where it does not say what the index says."""
    home = _home(folder)
    text = _content(home, SOLUTIONS).decode("utf-8", "replace")
    if text != solution_lines(entries(folder)):
        raise ValueError(f"{home / SOLUTIONS}: the values must be those of {INDEX}, found others")
    return text


def solution_lines(known: Sequence[Entry]) -> str:
    """Values as MIPLIB and SCIP write them, in units of the written models: `=opt=`, or `=best=` and `=bestdual=`."""
    lines = []
    for one in known:
        if one.optimal:
            lines.append(f"=opt= {one.name} {one.cost}")
        else:
            lines += [f"=best= {one.name} {one.cost}", f"=bestdual= {one.name} {one.bound}"]
    return "".join(f"{line}\n" for line in lines)


def index_of(known: Sequence[Entry]) -> dict[str, Any]:
    """The document of the index, sealed."""
    document = {"format": FORMAT, "version": 1, "set": VERSION, "instances": [one.to_dict() for one in known]}
    return {**document, "seal": seal(document)}


def packed(document: Mapping[str, Any]) -> bytes:
    """A document as it is packaged; the same document gives the same bytes."""
    text = json.dumps(document, default=storage.plain, allow_nan=False) + "\n"
    return lzma.compress(text.encode(), format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)


def _entry(document: object) -> Entry:
    if not isinstance(document, dict):
        raise ValueError(f"an instance must be an object, found {document!r:.80}")
    return Entry.from_dict(document)


def _home(folder: Traversable | None) -> Traversable:
    return files("moeopt") / "data" / "instances" if folder is None else folder


def _content(home: Traversable, name: str) -> bytes:
    try:
        return (home / name).read_bytes()
    except OSError as error:
        raise ValueError(f"{home / name}: cannot be read: {error.strerror or error}") from error


def _unpacked(home: Traversable, name: str, wanted: str) -> bytes:
    content = _content(home, name)
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise ValueError(f"{home / name}: sha-256 must be {wanted}, found {found}: altered or damaged")
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
    try:
        document = unpacker.decompress(content, max_length=LARGEST + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"{home / name}: cannot be unpacked: {error}") from error
    if len(document) > LARGEST:
        raise ValueError(f"{home / name}: a document may have {LARGEST} bytes, found more")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"{home / name}: cannot be unpacked: one whole xz stream is wanted")
    return document
