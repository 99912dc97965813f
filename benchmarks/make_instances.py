"""Makes `moeopt/data/instances`: python -m benchmarks.make_instances [NAME ...]

Every instance is cut from the packaged sample or drawn by the generator, with fixed seeds. It is solved within its
limit, going on from the certificate that is there; the new certificate is verified and its placement costed again; and
it is written where it is as good as the old one in cost and in bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.make_sample import excerpt
from moeopt import api, checker, storage
from moeopt.certificate import Certificate
from moeopt.cluster import Cluster
from moeopt.dispatch import Plan
from moeopt.generator import PRESETS, Generator
from moeopt.instance_library import (
    INDEX,
    SOLUTIONS,
    VERSION,
    Entry,
    entries,
    index_of,
    packed,
    read_instance,
    solution_lines,
)
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.samples import sample
from moeopt.statements import named_formulation
from moeopt.stop import Stop
from moeopt.trace import Trace

FOLDER = Path(__file__).parent.parent / "moeopt" / "data" / "instances"
LIMIT = 700_000  # bytes of the folder
SECONDS = 60.0
LAYER = 2  # of the sample


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One instance to make.

    | field | holds |
    |---|---|
    | name, about | of the instance |
    | formulation | whose model is written unless another one is asked for |
    | trace | the traffic |
    | cluster | the GPUs |
    | rules | what else `Problem` takes |
    | method | that solves it |
    | seconds | limit of a run |
    """

    name: str
    about: str
    formulation: str
    trace: Callable[[], Trace]
    cluster: Cluster
    rules: Mapping[str, Any]
    method: str = "auto"
    seconds: float = SECONDS

    def problem(self) -> Problem:
        """The problem, the same every time; ValueError where the formulation does not state it."""
        problem = Problem.from_trace(self.trace(), self.cluster, **self.rules)
        if reason := named_formulation(self.formulation).supports(problem):
            raise ValueError(f"{self.name}: {self.formulation} does not state it: {reason}")
        return problem


@cache
def drawn(experts: int, top_k: int, *, tokens: int, groups: int) -> Trace:
    """One layer of the generator."""
    made = Generator(
        layers=1,
        experts=experts,
        top_k=top_k,
        tokens=tokens,
        requests=tokens // 100,
        groups=groups,
        group_size=-(-experts // groups),
        seed=1,
        model=f"synthetic-{experts}",
    )
    return made.generate()


@cache
def preset(name: str, *, requests: int) -> Trace:
    """The first layer and the first requests of a preset."""
    trace = PRESETS[name].generate().layers([0])
    return trace.take(trace.request < requests)


@cache
def recorded(requests: int) -> Trace:
    """A layer of the sample, as many requests of each family and phase."""
    return excerpt(sample("tiny-moe").layers([LAYER]), requests=requests)


def recipes() -> Iterable[Recipe]:
    """All of them, small ones first."""
    gpus, cut = Cluster.of, {"objective": "cut"}
    nine = partial(drawn, 9, 2, tokens=2_000, groups=3)
    twelve = partial(drawn, 12, 3, tokens=4_000, groups=4)
    sixteen = partial(drawn, 16, 4, tokens=4_000, groups=4)
    many = partial(drawn, 24, 2, tokens=8_000, groups=6)
    real, few = partial(recorded, 6), partial(recorded, 2)
    large = partial(preset, "synthetic-64", requests=60)
    huge = partial(preset, "synthetic-128", requests=10)
    four, eight, sixteen_gpus = gpus(gpus=4, slots=4), gpus(gpus=8, slots=4), gpus(gpus=16, slots=4)
    pairs_of_nodes = {"nodes": 2, "slots": 4, "node_cost": 3}
    linear = Placement.partition(np.arange(32)[None] // 4, eight, layer_ids=(LAYER,), model="tiny-moe")

    text = "The textbook model: assignment of experts, products of pairs."
    yield _recipe("cut-9", "assignment", text, nine, gpus(gpus=3, slots=3), **cut)
    text = "The textbook model again, with more names for every placement."
    yield _recipe("cut-12", "assignment", text, twelve, gpus(gpus=4, slots=3), **cut)
    yield _recipe("fan-out-12", "blocks", "Set partitioning, few columns.", twelve, gpus(gpus=4, slots=3))
    yield _recipe("cut-16", "pairs", "Clique partitioning.", sixteen, four, **cut)
    yield _recipe("fan-out-16", "blocks", "Set partitioning.", sixteen, four)
    text = "Two nodes of two GPUs: a further node costs as much as three further GPUs."
    cluster, method = gpus(gpus=4, **pairs_of_nodes), "two-level-blocks"
    yield _recipe("nodes-16", "two-level-blocks", text, sixteen, cluster, method=method)
    yield _recipe("copies-12", "covers", "Twelve experts and two copies.", twelve, four, replicas=2)
    text = "24 experts and six copies on six GPUs."
    yield _recipe("copies-24", "covers", text, many, gpus(gpus=6, slots=5), replicas=6)
    yield _recipe("cut-32", "pairs", "Clique partitioning of a recorded layer.", real, eight, **cut)
    yield _recipe("fan-out-32", "blocks", "Set partitioning of a recorded layer.", real, eight)
    text = "The same layer within a load tolerance."
    yield _recipe("load-32", "blocks", text, real, eight, load_tolerance="0.05")
    weights = {"code": 5.0, "math": 1.0, "chat": 1.0, "general": 1.0}
    text = "The same layer, one task family counts most: costs of sixteen digits."
    yield _recipe("families-32", "blocks", text, real, eight, family_weights=weights)
    text = "The same layer, the worst task family counts alone."
    yield _recipe("worst-32", "families", text, real, eight, tail="0")
    text = "The same layer, four experts may leave the order of their numbers."
    yield _recipe("moves-32", "migration", text, real, eight, incumbent=linear, max_moves=4)
    text = "Two nodes of four GPUs, contents of a node too many to list."
    yield _recipe("nodes-32", "hyperedge", text, few, gpus(gpus=8, **pairs_of_nodes))
    text = "Clique partitioning, more than a hundred thousand triangles."
    yield _recipe("cut-64", "pairs", text, large, sixteen_gpus, **cut)
    text = "Set partitioning, more than half a million columns: a large file."
    yield _recipe("fan-out-64", "blocks", text, large, sixteen_gpus)
    text = "Contents too many to list: touch variables of every expert set."
    yield _recipe("fan-out-128", "hyperedge", text, huge, gpus(gpus=16, slots=8))


def _recipe(
    name: str,
    formulation: str,
    about: str,
    trace: Callable[[], Trace],
    cluster: Cluster,
    method: str = "auto",
    **rules: Any,
) -> Recipe:
    return Recipe(
        name=name,
        about=about,
        formulation=formulation,
        trace=trace,
        cluster=cluster,
        method=method,
        rules=rules,
    )


def rules_of(problem: Problem) -> str:
    """The rules of a problem in words; empty when there are none."""
    words = []
    if problem.load_tolerance is not None:
        words.append(f"load {100 * float(problem.load_tolerance):g} %")
    if problem.family_weights is not None:
        words.append(
            "families " + ", ".join(f"{name} {share:g}" for name, share in problem.family_weights.items())
        )
    if problem.risk is not None:
        words.append("worst family")
    if problem.max_moves is not None:
        words.append(f"{problem.max_moves} moves")
    if problem.replicas:
        words.append(f"{problem.replicas} copies")
    if problem.cluster.nodes > 1 and problem.cluster.node_cost:
        words.append(f"node {problem.cluster.node_cost}")
    return ", ".join(words)


def certified(recipe: Recipe, problem: Problem, known: Certificate | None) -> Certificate:
    """The certificate of a run within the limit, or the known one where the new one is worse in cost or bound.

    RuntimeError when a run proves nothing, or what it claims does not hold.
    """
    result = api.solve(problem, recipe.method, stop=Stop(seconds=recipe.seconds), seed=0, resume=known)
    found = result.certificate
    if found is None or found.placement is None:
        raise RuntimeError(f"{recipe.name}: nothing was proved ({result.status}), {result.message}")
    verdict = checker.verify(found.to_dict(), problem.workload)
    if not verdict.accepted:
        raise RuntimeError(f"{recipe.name}: {verdict.reason}")
    (proof,) = found.proofs
    answer = found.placement if proof.dispatch is None else Plan(found.placement, (proof.dispatch,))
    if (broken := problem.violation(answer)) or problem.cost(answer) != proof.cost:
        raise RuntimeError(f"{recipe.name}: costs {problem.cost(answer)}, claimed {proof.cost}; {broken}")
    if known is not None:
        before = known.proofs[0]
        if (proof.cost or 0) > (before.cost or 0) or proof.bound < before.bound:
            return known
    return found


def write(recipe: Recipe, problem: Problem, certificate: Certificate) -> Entry:
    """Write the two files of an instance, and give its entry."""
    documents = {"problem": packed(problem.to_dict()), "certificate": packed(certificate.to_dict())}
    (sets,), (proof,) = problem.workload.layers, certificate.proofs
    entry = Entry(
        name=recipe.name,
        about=recipe.about,
        experts=problem.workload.n_experts,
        top_k=problem.workload.top_k,
        sets=len(sets),
        gpus=problem.cluster.gpus,
        nodes=problem.cluster.nodes,
        slots=int(problem.cluster.slots_of[0]),
        objective=problem.objective,
        rules=rules_of(problem),
        formulation=recipe.formulation,
        cost=proof.cost or 0,
        bound=proof.bound,
        **{f"{kind}_sha256": hashlib.sha256(content).hexdigest() for kind, content in documents.items()},
    )
    for kind, content in documents.items():
        storage.write_bytes(FOLDER / entry.file(kind), content)
    return entry


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Instances to make. Default: all.")] = None,
) -> None:
    """Make instances, or make those that are there better."""
    every = {recipe.name: recipe for recipe in recipes()}
    if unknown := set(names or ()) - set(every):
        raise SystemExit(f"no recipe is named {', '.join(sorted(unknown))}; known are {', '.join(every)}")
    FOLDER.mkdir(exist_ok=True)
    made = {entry.name: entry for entry in entries(FOLDER)} if (FOLDER / INDEX).exists() else {}
    for name in names or every:
        recipe, known = every[name], None
        problem = recipe.problem()
        if name in made:
            before, known = read_instance(name, folder=FOLDER)
            if before.digest != problem.digest:
                raise SystemExit(
                    f"{name}: the problem is another one than in version {VERSION} of the set: give it another name"
                )
        made[name] = entry = write(recipe, problem, certified(recipe, problem, known))
        kept = [made[one] for one in every if one in made]
        storage.write_json(FOLDER / INDEX, index_of(kept))
        storage.write_bytes(FOLDER / SOLUTIONS, solution_lines(kept).encode())
        print(f"{name}: {entry.status}, cost {entry.cost:,}, bound {entry.bound:,}", flush=True)
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{FOLDER}: {size:,} bytes")
    if size > LIMIT:
        raise SystemExit(f"the folder may have {LIMIT:,} bytes, found {size:,}")


if __name__ == "__main__":
    typer.run(main)
