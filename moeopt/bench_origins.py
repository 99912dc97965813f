"""Where rows of a sweep come from, in words: machines, versions, stops; and which of them stand for the same run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from moeopt.bench_rows import SETTLED, Key, Row

__all__ = [
    "answers_apart",
    "differing_origins",
    "identity_of",
    "mixed_origins",
    "origin_of",
    "origins",
    "stop_words",
    "superseded",
]

Identity = tuple[Key, str]


def origin_of(row: Row) -> str:
    """The versions and the machine of a row, as one text."""
    return json.dumps([row["versions"], row["machine"]], sort_keys=True)


def identity_of(row: Row) -> Identity:
    """What rows have in common that stand for the same: key, versions and machine."""
    return Key.of(row), origin_of(row)


def answers_apart(rows: Iterable[Row]) -> list[Row]:
    """Of rows about the same on one machine by one set of versions the newest, oldest first.

    A failure does not hide an answer: neither an earlier one, nor that of the same run elsewhere.
    """
    found: dict[Identity, Row] = {}
    for row in rows:
        about = identity_of(row)
        if about not in found or row["outcome"] in SETTLED or found[about]["outcome"] not in SETTLED:
            found[about] = row
    answered = {key for (key, _), row in found.items() if row["outcome"] in SETTLED}
    return [row for (key, _), row in found.items() if row["outcome"] in SETTLED or key not in answered]


def superseded(given: Iterable[Row], shown: Iterable[Row]) -> list[str]:
    """A line when failures are not shown because the same run has an answer elsewhere."""
    count = len({identity_of(row) for row in given} - {identity_of(row) for row in shown})
    if not count:
        return []
    what = "1 failed row is" if count == 1 else f"{count} failed rows are"
    return [f"{what} not shown: on another machine or by other versions the same run has an answer."]


def mixed_origins(rows: Sequence[Row]) -> list[str]:
    """What rows of several machines or versions have in common with care only; nothing of one."""
    machines, versions = ({word(row) for row in rows} for word in (_machine, _versions))
    found = []
    if len(machines) > 1:
        found.append(f"These rows come from {len(machines)} machines: seconds do not compare between them.")
    if len(versions) > 1:
        found.append(
            f"These rows were made by {len(versions)} sets of versions: methods may differ between them."
        )
    return found


def origins(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Machines, versions and stops, each with how many rows have it where there are several."""
    words = (
        ("Machine", _machine),
        ("Versions", _versions),
        ("Stop", lambda row: stop_words(row["stop"])),
    )
    return [(name, _counted([word(row) for row in rows])) for name, word in words if rows]


def differing_origins(rows: Sequence[Row]) -> dict[str, str]:
    """By origin, in what it differs from the others of these rows: the machine, the versions."""
    first = {origin_of(row): row for row in rows}
    machines = {_machine(row) for row in first.values()}
    parts = {text: set(row["versions"].items()) for text, row in first.items()}
    common = set.intersection(*parts.values()) if parts else set()
    found = {
        text: ", ".join(
            [
                *([_machine(row)] if len(machines) > 1 else []),
                *(f"{name} {one}" for name, one in row["versions"].items() if (name, one) not in common),
            ]
        )
        for text, row in first.items()
    }
    return found if len(set(found.values())) == len(found) else {text: text for text in found}


def stop_words(text: str) -> str:
    """The repr of a `moeopt.Stop` in words; any other text as it is."""
    inner = re.fullmatch(r"Stop\((.*)\)", text)
    if inner is None:
        return text
    found = dict(part.partition("=")[::2] for part in inner[1].split(", ") if part)
    seconds, candidates, gap = (found.pop(name, "None") for name in ("seconds", "candidates", "gap"))
    try:
        words = [
            *([] if seconds == "None" else [f"{float(seconds):.12g} s a layer"]),
            *([] if candidates == "None" else [f"{int(candidates):,} candidates a layer"]),
            *([] if gap == "None" or not float(gap) else [f"a gap of {100 * float(gap):.12g} %"]),
        ]
    except ValueError:
        return text
    return text if found else " or ".join(words) or "no limit"


def _machine(row: Row) -> str:
    return f"{row['machine'].get('cpu')}, {row['machine'].get('cores')} cores"


def _versions(row: Row) -> str:
    return ", ".join(f"{name} {one}" for name, one in sorted(row["versions"].items()))


def _counted(texts: Sequence[str]) -> list[str]:
    found = {text: texts.count(text) for text in dict.fromkeys(texts)}
    if len(found) == 1:
        return list(found)
    return [f"{text} ({count} of {len(texts)} rows)" for text, count in found.items()]
