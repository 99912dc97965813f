"""Four families of text to train a small model on, from what is installed or made here: no text is stored.

| family | source | licence |
|---|---|---|
| code | Python's standard library, its sources | PSF-2.0 |
| math | made here: arithmetic, linear equations, fractions, sequences, with the steps | - |
| chat | package chitchat-dataset, conversations of two people | MIT |
| general | manual pages of the system, their markup removed | of each page's project |
"""

import gzip
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np

MANUALS = Path("/usr/share/man")
LONGEST = 8_000  # characters taken of a document, from its start
PAGES = 200  # manual pages of one program at most, whose subcommands resemble each other
FAMILIES = ("code", "math", "chat", "general")


def documents(family: str, *, seed: int, characters: int) -> list[str]:
    """About `characters` of text as documents in a random order; no document appears twice."""
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    found: list[str] = []
    size = 0
    for text in _SOURCES[family](rng):
        if len(text) >= 200:
            found.append(text[:LONGEST])
            size += len(found[-1])
        if size >= characters:
            break
    return found


def _code(rng: np.random.Generator) -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [
        path
        for path in sorted(library.rglob("*.py"))
        if not {"site-packages", "lib2to3", "encodings", "__pycache__"} & set(path.parts)
    ]
    for index in rng.permutation(len(files)):
        yield files[index].read_text(encoding="utf-8", errors="ignore")


def _chat(rng: np.random.Generator) -> Iterator[str]:
    spec = find_spec("chitchat_dataset")
    if spec is None or spec.origin is None:
        raise ValueError("the family chat needs its texts: pip install chitchat-dataset")
    talks = json.loads((Path(spec.origin).parent / "dataset.json").read_text(encoding="utf-8"))
    names = sorted(talks)
    for index in rng.permutation(len(names)):
        turns = talks[names[index]]["messages"]
        yield "\n".join(
            f"{'AB'[turn % 2]}: {' '.join(line['text'] for line in lines)}"
            for turn, lines in enumerate(turns)
        )


def _general(rng: np.random.Generator) -> Iterator[str]:
    pages = [page for page in sorted(MANUALS.glob("man[1-8]/*.gz")) if not page.is_symlink()]
    if not pages:
        raise ValueError(f"the family general needs manual pages, found none in {MANUALS}")
    taken: Counter[str] = Counter()
    for index in rng.permutation(len(pages)):
        program = re.split(r"[-_.:]", pages[index].name)[0]
        taken[program] += 1
        if taken[program] > PAGES:
            continue
        with gzip.open(pages[index], "rt", encoding="utf-8", errors="ignore") as file:
            yield unmarked(file.read(4 * LONGEST))


def unmarked(page: str) -> str:
    """Text of a manual page without the requests and escapes of roff."""
    lines = []
    for line in page.splitlines():
        if re.match(r"[.'](\\\"|\s*(TH|ds|nr|so|if|ie|el|de|tr|rm|ad|hy|nh|\.))", line) or not line.strip():
            continue
        line = re.sub(r"^[.'][A-Za-z]{0,3}\s?", "", line)
        line = re.sub(r"\\f(\[\w*\]|\(..|.)|\\[&|^/,%]|\\s[+-]?\d", "", line)
        line = re.sub(r"\\\(aq|\\\(cq", "'", line).replace("\\-", "-").replace("\\e", "\\")
        if line := re.sub(r"\\\[\w+\]|\\\(..|\\[*n](\[\w+\]|\(..|.)", "", line).strip('" '):
            lines.append(line)
    return "\n".join(lines)


def _math(rng: np.random.Generator) -> Iterator[str]:
    problems = (_sum, _product, _equation, _fractions, _sequence, _purchase)
    while True:
        yield "\n\n".join(problems[rng.integers(len(problems))](rng) for _ in range(8))


def _sum(rng: np.random.Generator) -> str:
    terms = rng.integers(2, 999, size=rng.integers(3, 6)).tolist()
    lines = [f"Compute {' + '.join(map(str, terms))}."]
    total = terms[0]
    for term in terms[1:]:
        lines.append(f"{total} + {term} = {total + term}")
        total += term
    return "\n".join([*lines, f"Answer: {total}"])


def _product(rng: np.random.Generator) -> str:
    a, b = rng.integers(12, 99, size=2).tolist()
    tens, ones = b // 10 * 10, b % 10
    return (
        f"Compute {a} * {b}.\n{a} * {tens} = {a * tens}\n{a} * {ones} = {a * ones}\n"
        f"{a * tens} + {a * ones} = {a * b}\nAnswer: {a * b}"
    )


def _equation(rng: np.random.Generator) -> str:
    a, x, b = int(rng.integers(2, 13)), int(rng.integers(-20, 21)), int(rng.integers(1, 50))
    return (
        f"Solve {a}x + {b} = {a * x + b} for x.\n{a}x = {a * x + b} - {b}\n{a}x = {a * x}\n"
        f"x = {a * x} / {a}\nAnswer: x = {x}"
    )


def _fractions(rng: np.random.Generator) -> str:
    a, b, c, d = rng.integers(1, 10, size=4).tolist()
    b, d = b + 1, d + 1
    total = Fraction(a, b) + Fraction(c, d)
    return (
        f"Add {a}/{b} and {c}/{d}.\nThe common denominator is {b * d}.\n{a}/{b} = {a * d}/{b * d}\n"
        f"{c}/{d} = {c * b}/{b * d}\n{a * d}/{b * d} + {c * b}/{b * d} = {a * d + c * b}/{b * d}\nAnswer: {total}"
    )


def _sequence(rng: np.random.Generator) -> str:
    first, step, place = rng.integers(1, 40, size=3).tolist()
    shown = ", ".join(str(first + step * index) for index in range(4))
    return (
        f"Find term {place} of {shown}, ...\nEach term adds {step}.\n"
        f"term {place} = {first} + {place - 1} * {step} = {first} + {(place - 1) * step}\n"
        f"Answer: {first + (place - 1) * step}"
    )


def _purchase(rng: np.random.Generator) -> str:
    count, price, paid = int(rng.integers(2, 12)), int(rng.integers(2, 30)), int(rng.integers(400, 999))
    who = ("Ada", "Carl", "Emmy", "Leo", "Maria", "Paul")[rng.integers(6)]
    what = ("pens", "books", "apples", "lamps", "maps")[rng.integers(5)]
    return (
        f"{who} buys {count} {what} at {price} coins each and pays with {paid} coins. How many coins come back?\n"
        f"The {what} cost {count} * {price} = {count * price} coins.\n"
        f"{paid} - {count * price} = {paid - count * price}\nAnswer: {paid - count * price}"
    )


_SOURCES: dict[str, Callable[[np.random.Generator], Iterator[str]]] = {
    "code": _code,
    "math": _math,
    "chat": _chat,
    "general": _general,
}
