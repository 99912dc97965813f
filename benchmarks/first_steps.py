"""The first steps of the README, timed as a stranger takes them: clone, own trace, own heuristic."""

import csv
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.drawing import drawn, seconds
from benchmarks.suite import experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.samples import sample
from moeopt.trace import PREFILL

ROOT = Path(__file__).parents[1]
STEPS = ("clone to first result", "first own trace", "first own heuristic in the table")
SECTION = "## An afternoon\n"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = "this step is done"
SECONDS = 1_800.0


@experiment("first-steps")
def first_steps() -> Iterable[Task]:
    """The README's commands from a fresh clone in a fresh environment to one's own heuristic in the table."""
    key = Key("README", None, STEPS[-1], 0, "")
    yield Task(key, take, (key,), SECONDS)


def commands(readme: str) -> list[str]:
    """The shell commands of each step; ValueError where the page has fewer or more blocks than steps."""
    first = BLOCK.search(readme)
    section = readme.partition(SECTION)[2].partition("\n## ")[0]
    found = [first[1] if first else "", *(block[1] for block in BLOCK.finditer(section))]
    if not section or len(found) != len(STEPS):
        raise ValueError(f"README: {len(STEPS)} steps are timed, found {len(found)} blocks of commands")
    return found


def take(key: Key) -> list[Row]:
    """A row a step; a step that fails ends them with what it said last."""
    blocks = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "moeopt"
        found = taken([f"git clone --quiet '{ROOT}' '{home}'\ncd '{home}'\n{blocks[0]}", *blocks[1:]], home)
    rows = []
    for step, block, spent in zip(STEPS, blocks, found, strict=True):
        count = len(re.findall(r"^moeopt |&& moeopt ", block, re.MULTILINE))
        rows.append(replace(key, method=step).row("done", step=step, seconds=spent, verbs=count))
    return rows


def taken(blocks: Sequence[str], home: Path) -> list[float]:
    """Seconds of each block, all in one shell; before the second one a recording of an engine is put into `home`.

    Raises RuntimeError naming the step that failed, with the last lines it said.
    """
    script = "".join(f"{block}\necho '{MARK}'\nread -r\n" for block in blocks)
    said: list[str] = []
    spent: list[float] = []
    begun = time.perf_counter()
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=home.parent,
        text=True,
    ) as shell:
        if shell.stdin is None or shell.stdout is None:
            raise RuntimeError("a shell is started with pipes")
        for line in shell.stdout:
            if not line.startswith(MARK):
                said = [*said[-20:], line]
                continue
            spent.append(time.perf_counter() - begun)
            if len(spent) == 1:
                record(home)
            begun = time.perf_counter()
            shell.stdin.write("\n")
            shell.stdin.flush()
    if shell.returncode or len(spent) < len(blocks):
        raise RuntimeError(f"step {len(spent) + 1} failed: {''.join(said[-5:]).strip()}")
    return spent


def record(folder: Path) -> None:
    """The packaged sample as vLLM hands it out, an array a request, with a manifest: in place of one's own."""
    recorded = sample()
    with (folder / "requests.csv").open("w", newline="") as file:
        manifest = csv.writer(file)
        manifest.writerow(["file", "family", "prompt_tokens"])
        for number, request in enumerate(np.unique(recorded.request).tolist()):
            own = np.flatnonzero(recorded.request == request)
            np.save(folder / f"request-{number}.npy", recorded.experts[own].astype(np.uint8))
            family = recorded.families[recorded.family[own[0]]]
            prompt = int((recorded.phase[own] == PREFILL).sum())
            manifest.writerow([f"request-{number}.npy", family, prompt])


def table(rows: Sequence[Row]) -> str:
    """A line a step."""
    by_step = {row["found"]["step"]: row["found"] for row in rows}
    lines = [
        [step, str(by_step[step]["verbs"]), seconds(by_step[step]["seconds"])]
        for step in STEPS
        if step in by_step
    ]
    return drawn(["step", "calls of moeopt", "takes"], lines)


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {"first-steps": ("first-steps", table)}
"""Name of a table to its experiment and how it is drawn."""
