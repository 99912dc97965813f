"""Problems by name: a trace, a cluster, and the rules."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from moeopt.bench_rows import Absent
from moeopt.cluster import Cluster
from moeopt.control import null
from moeopt.generator import PRESETS
from moeopt.problem import Problem
from moeopt.recording import read_trace, read_workload
from moeopt.samples import sample
from moeopt.trace import Trace
from moeopt.workload import Workload

FILES = MappingProxyType(
    {"gpt-oss-20b": "gpt_oss_20b_decode.npz", "deepseek-v2-lite": "deepseek_v2_lite_prefill.npz"}
)
PAIRS = MappingProxyType(
    {"qwen3-30b-a3b pairs": "qwen3_30b_a3b_coactivation.json"}
)  # no tokens: the cut only
NULL = "null of "  # before a source: its loads without its co-activation
NULL_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem.

    | field | holds |
    |---|---|
    | name | of the case |
    | source | "sample", a recorded trace or table of pairs, a preset of the generator, or "null of " one of these |
    | layers | absolute layer ids; none given: all |
    | gpus, nodes, slots, node_cost | the cluster |
    | load_tolerance, objective, replicas | as `Problem` takes them |
    | tail | share of the families whose mean counts, "0" the worst family; None: the mean of all |
    | family_weights | (family, weight) pairs; none given: every token counts the same |
    """

    name: str
    source: str
    gpus: int
    slots: int
    layers: tuple[int, ...] = ()
    nodes: int = 1
    node_cost: int = 0
    load_tolerance: str | None = None
    objective: str = "fan-out"
    family_weights: tuple[tuple[str, float], ...] = ()
    replicas: int = 0
    tail: str | None = None

    @property
    def cluster(self) -> Cluster:
        return Cluster.of(gpus=self.gpus, nodes=self.nodes, slots=self.slots, node_cost=self.node_cost)

    def trace(self) -> Trace:
        """The recorded layers; raises Absent without the file."""
        return read_source(self.source, layers=self.layers)

    def traffic(self) -> Trace | Workload:
        """The trace; of a table of pairs the workload, which is all there is."""
        if self.source not in PAIRS:
            return self.trace()
        pairs = _pairs(self.source)
        return pairs.only(self.layers) if self.layers else pairs

    def problem(self, recorded: Trace | Workload | None = None) -> Problem:
        """The problem on its own traffic, or on another one (a part of it, say)."""
        traffic = self.traffic() if recorded is None else recorded
        return Problem(
            traffic if isinstance(traffic, Workload) else Workload.from_trace(traffic),
            self.cluster,
            replicas=self.replicas,
            family_weights=dict(self.family_weights) or None,
            objective=self.objective,
            load_tolerance=self.load_tolerance,
            tail=self.tail,
        )

    def first_layer(self) -> "Case":
        """The same case with its first layer only."""
        return replace(self, layers=tuple(_source(self.source.removeprefix(NULL)).layer_ids[:1].tolist()))


def read_source(source: str, *, layers: tuple[int, ...] = ()) -> Trace:
    """The trace of this source; ValueError for an unknown one, Absent for a missing file.

    A null is shuffled after its layers are chosen.
    """
    recorded = _source(source.removeprefix(NULL))
    recorded = recorded.layers(layers) if layers else recorded
    return null(recorded, seed=NULL_SEED) if source.startswith(NULL) else recorded


def folder() -> Path:
    """Where the recorded traces lie: MOEOPT_TRACES, or `shared/data` beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("MOEOPT_TRACES") or beside)


@cache
def _source(name: str) -> Trace:
    if name == "sample":
        return sample("tiny-moe")
    if name in PRESETS:
        return PRESETS[name].generate()
    if name not in FILES:
        raise ValueError(f"no trace is named {name!r}; known are {', '.join(['sample', *FILES, *PRESETS])}")
    return read_trace(_present(FILES[name]))


@cache
def _pairs(name: str) -> Workload:
    return read_workload(_present(PAIRS[name]))


def _present(name: str) -> Path:
    path = folder() / name
    if not path.exists():
        raise Absent(f"{name} is not there; set MOEOPT_TRACES to the folder that holds it")
    return path


_GPT = Case(name="gpt-oss-20b", source="gpt-oss-20b", gpus=8, slots=4)
_LITE = Case(name="deepseek-v2-lite", source="deepseek-v2-lite", gpus=16, slots=4)
_GPT_FAMILIES = tuple((family, 1.0) for family in ("code", "math", "chat", "general", "safety"))
_LITE_FAMILIES = tuple((family, 1.0) for family in ("intent", "law", "summary", "translation"))
_SAMPLE = Case(name="sample", source="sample", gpus=8, slots=4)


def _null(case: Case) -> Case:
    return replace(case, name=NULL + case.name, source=NULL + case.source)


def _registry() -> Mapping[str, Case]:
    presets = [
        Case(name="synthetic-64", source="synthetic-64", gpus=16, slots=4),
        Case(name="synthetic-128", source="synthetic-128", gpus=32, slots=4),
        Case(name="synthetic-256", source="synthetic-256", layers=(0,), gpus=64, slots=4),
        Case(name="synthetic-512", source="synthetic-512", layers=(0,), gpus=64, slots=8),
    ]
    recorded = [_SAMPLE, _GPT, _LITE]
    variants = [
        replace(_SAMPLE, name="sample, cut", objective="cut"),
        replace(_SAMPLE, name="sample, 2 nodes", nodes=2, node_cost=3),
        replace(_SAMPLE, name="sample, 8 replicas", slots=5, replicas=8, load_tolerance="0.25"),
        replace(_GPT, name="gpt-oss-20b, load 10 %", load_tolerance="0.10"),
        replace(_GPT, name="gpt-oss-20b, equal families", family_weights=_GPT_FAMILIES),
        replace(_LITE, name="deepseek-v2-lite, load 10 %", load_tolerance="0.10"),
        replace(_LITE, name="deepseek-v2-lite, equal families", family_weights=_LITE_FAMILIES),
    ]
    every = [*recorded, *presets, *variants, *(_null(case) for case in recorded)]
    named = {case.name: case for case in every}
    if len(named) < len(every):
        raise ValueError(f"two cases share a name: {[case.name for case in every]}")
    return MappingProxyType(named)


CASES: Mapping[str, Case] = _registry()


def case(name: str) -> Case:
    """The case of this name; ValueError lists the known names."""
    if name not in CASES:
        raise ValueError(f"no case is named {name!r}; known are {', '.join(CASES)}")
    return CASES[name]
