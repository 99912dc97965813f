"""Whatever a method answers keeps every rule of placements, counted here a second time; and every rule is alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from benchmarks.instances import instances, stated_types
from moeopt import registry
from moeopt.dispatch import Dispatch, Plan
from moeopt.exact import Exact
from moeopt.heuristics.linear import Linear
from moeopt.method import Incumbent, Method, refusal
from moeopt.model_method import ModelMethod
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.rows import solve_rows
from moeopt.solvers.door import Session
from moeopt.statements import named_formulation
from moeopt.stop import Stop
from tests.problem_strategies import any_problems, copies_of, placement_of

METHODS = [
    method.name
    for method in registry.all_methods()
    if not isinstance(method, ModelMethod)
    and (not isinstance(method, Exact) or "placements" in stated_types(method.formulation))
]
STOP = Stop(seconds=None, candidates=40)
PROOF = Stop(seconds=None)
COMMON = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def test_no_method_of_placements_is_left_out() -> None:
    assert {"assignment", "auto", "blocks", "linear", "lpt", "pairs", "replicate", "swap"} <= set(METHODS)


def counted(problem: Problem, placement: Placement, dispatch: Dispatch | None) -> dict[str, str]:
    """Broken rules and how, in plain Python, from the lists that a placement is stored as."""
    broken: dict[str, str] = {}
    document = placement.to_dict()
    (held,) = document["hosts"]
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    if document["gpus"] != gpus or document["n_experts"] != experts:
        broken["shape"] = f"{document['n_experts']} experts on {document['gpus']} GPUs"
    for gpu, content in enumerate(held):
        if len(set(content)) != len(content):
            broken["duplicates"] = f"GPU {gpu} holds {content}"
        if len(content) > problem.cluster.slots_of.tolist()[gpu]:
            broken["capacity"] = f"GPU {gpu} holds {content}"
    if lost := set(range(experts)) - {expert for content in held for expert in content}:
        broken["coverage"] = f"experts {lost} are nowhere"
    copies = {(expert, gpu) for gpu, content in enumerate(held) for expert in content}
    if len(copies) - experts > problem.replicas:
        broken["replicas"] = f"{len(copies) - experts} copies"
    if problem.max_moves is not None and problem.incumbent is not None:
        (before,) = problem.incumbent.to_dict()["hosts"]
        fresh = copies - {(expert, gpu) for gpu, content in enumerate(before) for expert in content}
        if len(fresh) > problem.max_moves:
            broken["moves"] = f"{sorted(fresh)} are new"
    (sets,) = problem.workload.layers
    served = [[0] * len(row) for row in sets.counts.tolist()]
    loads = [0] * gpus
    rows = _rows(problem, document["primary"][0]) if dispatch is None else _listed(dispatch)
    for index, at, tokens in rows:
        for expert, gpu in zip(sets.members.tolist()[index], at, strict=True):
            if (expert, gpu) not in copies:
                broken["dispatch"] = f"GPU {gpu} serves expert {expert} without a copy"
            loads[gpu] += sum(tokens)
        served[index] = [a + b for a, b in zip(served[index], tokens, strict=True)]
    if served != sets.counts.tolist():
        broken["dispatch"] = "tokens served differ from tokens recorded"
    if problem.load_tolerance is not None:
        speeds = problem.cluster.speeds_of.tolist()
        for gpu, load in enumerate(loads):
            share = Fraction(sum(loads) * speeds[gpu], sum(speeds))
            if load > (1 + Fraction(problem.load_tolerance)) * share:
                broken["load"] = f"GPU {gpu} serves {load}, its share is {share}"
    return broken


def _rows(problem: Problem, primary: list[int]) -> list[tuple[int, list[int], list[int]]]:
    """The dispatch of one copy each: (set, GPUs, tokens by family)."""
    (sets,) = problem.workload.layers
    pairs = zip(sets.members.tolist(), sets.counts.tolist(), strict=True)
    return [(index, [primary[e] for e in members], counts) for index, (members, counts) in enumerate(pairs)]


def _listed(dispatch: Dispatch) -> list[tuple[int, list[int], list[int]]]:
    return list(zip(dispatch.sets.tolist(), dispatch.gpus.tolist(), dispatch.tokens.tolist(), strict=True))


def dispatch_of(problem: Problem, placement: Placement, result: Result | None = None) -> Dispatch | None:
    """The dispatch that the answer came with, else the problem's own; None where every expert has one copy."""
    if placement.is_partition:
        return None
    if result is not None and result.certificate is not None:
        given = result.certificate.proofs[0].dispatch
        if given is not None:
            return given
    return problem.plan(placement).dispatches[0]


def answered(method: Method, problem: Problem, session: Session) -> Result:
    """By the library's own route; statements with rows share one solver session."""
    if isinstance(method, Exact) and not hasattr(method.formulation, "columns"):
        clock = PROOF.start()
        return solve_rows(
            method,
            method.formulation,
            incumbent=Incumbent(problem, clock),
            clock=clock,
            seed=0,
            session=session,
        )
    return method.solve(problem, stop=STOP, seed=0)


@cache
def tiny(name: str) -> list[Problem]:
    """Instances of one layer that a formulation states."""
    found: list[Any] = list(instances(named_formulation(name), count=15))
    return [problem for problem in found if len(problem.workload.layers) == 1]


def even(problem: Problem) -> Problem:
    """The same traffic, slots and copies, for the fullest GPU."""
    cluster = replace(problem.cluster, speeds=1)
    return Problem(problem.workload, cluster, problem.replicas, problem.family_weights, "load")


def stated_by(method: Method) -> st.SearchStrategy[Problem]:
    """Any problem; where the method treats one in a thousand, those that the tiny instances find for it."""
    usual = any_problems().filter(lambda problem: not refusal(method, problem))
    if isinstance(method, Exact):
        return st.one_of(st.sampled_from(tiny(method.name)), usual)
    if "load" not in method.objectives:
        return usual
    level = any_problems().map(even).filter(lambda problem: not refusal(method, problem))
    return st.one_of(usual, level) if "fan-out" in method.objectives else level


@pytest.mark.parametrize("name", METHODS)
@settings(COMMON, max_examples=25)
@given(data=st.data())
def test_what_a_method_answers_keeps_every_rule(name: str, session: Session, data: st.DataObject) -> None:
    method = registry.named_method(name)
    problem = data.draw(stated_by(method))
    result = answered(method, problem, session)
    assert result.status not in ("disagreement", "interrupted"), result.message
    if result.placement is None:
        assert result.cost is None
        return
    dispatch = dispatch_of(problem, result.placement, result)
    assert counted(problem, result.placement, dispatch) == {}
    assert result.placement.slots == problem.cluster.slots
    answer: Any = result.placement if dispatch is None else Plan(result.placement, (dispatch,))
    assert problem.violation(answer) == ""
    assert problem.cost(answer) == result.cost


@settings(COMMON, max_examples=100)
@given(problem=any_problems(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_the_problem_accepts_exactly_what_the_count_accepts(
    problem: Problem, seed: int, data: st.DataObject
) -> None:
    """Random placements, most of which break something: rules refuse them, and nothing else."""
    rng = np.random.default_rng(seed)
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    copies = data.draw(st.integers(0, 2))
    hosts = copies_of(rng, np.full(gpus, experts), experts=experts, replicas=copies)
    placement = placement_of(problem, hosts)
    dispatch = dispatch_of(replace(problem, load_tolerance=None), placement)
    answer: Any = placement if dispatch is None else Plan(placement, (dispatch,))
    assert (problem.violation(answer) == "") == (counted(problem, placement, dispatch) == {})


def loose(problem: Problem) -> Problem:
    """The problem with a slot for every expert on every GPU, and neither budgets nor tolerance."""
    cluster = replace(problem.cluster, slots=problem.workload.n_experts)
    return replace(problem, cluster=cluster, replicas=0, load_tolerance=None, incumbent=None, max_moves=None)


def linear(problem: Problem) -> Placement:
    (placement,) = Linear().search(problem, clock=STOP.start(), rng=np.random.default_rng(0), start=None)
    return placement


@settings(COMMON, max_examples=50)
@given(problem=any_problems(), data=st.data())
def test_one_expert_too_many_on_a_gpu_is_refused(problem: Problem, data: st.DataObject) -> None:
    wide = loose(problem)
    experts, gpus = wide.workload.n_experts, wide.cluster.gpus
    gpu = data.draw(st.integers(0, gpus - 1))
    crowded = wide.partition(np.full(experts, gpu))
    assert wide.violation(crowded) == ""
    slots = [experts] * gpus
    slots[gpu] = experts - 1
    tight = replace(wide, cluster=replace(wide.cluster, slots=tuple(slots)))
    assert tight.violation(crowded) == f"layer 5: GPU {gpu} holds {experts} experts, slots are {experts - 1}"


@settings(COMMON, max_examples=50)
@given(problem=any_problems(extras=("speeds", "tail")), data=st.data())
def test_one_copy_too_many_is_refused(problem: Problem, data: st.DataObject) -> None:
    wide = replace(loose(problem), objective="fan-out")
    experts, gpus = wide.workload.n_experts, wide.cluster.gpus
    copies = data.draw(st.integers(1, experts * (gpus - 1)))
    hosts = copies_of(np.random.default_rng(0), wide.cluster.slots_of, experts=experts, replicas=copies)
    placement = placement_of(wide, hosts)
    assert replace(wide, replicas=copies).violation(placement) == ""
    budget = replace(wide, replicas=copies - 1)
    assert budget.violation(placement) == f"layer 5: {copies} replicas, the budget is {copies - 1}"


@settings(COMMON, max_examples=50)
@given(problem=any_problems(extras=()), data=st.data())
def test_an_expert_without_a_copy_cannot_be_written_down(problem: Problem, data: st.DataObject) -> None:
    expert = data.draw(st.integers(0, problem.workload.n_experts - 1))
    document = linear(problem).to_dict()
    document["hosts"] = [[[e for e in content if e != expert] for content in document["hosts"][0]]]
    with pytest.raises(ValueError, match=f"layer 5: expert {expert} is on no GPU"):
        Placement.from_dict(document)


@settings(COMMON, max_examples=50)
@given(problem=any_problems(extras=()), data=st.data())
def test_a_copy_beside_its_like_cannot_be_written_down(problem: Problem, data: st.DataObject) -> None:
    expert = data.draw(st.integers(0, problem.workload.n_experts - 1))
    document = linear(problem).to_dict()
    gpu = document["primary"][0][expert]
    document["hosts"][0][gpu].append(expert)
    with pytest.raises(ValueError, match=f"layer 5, GPU {gpu}: an expert is listed twice"):
        Placement.from_dict(document)


@settings(COMMON, max_examples=50)
@given(problem=any_problems(extras=("speeds", "tail")))
def test_one_activation_too_many_is_refused(problem: Problem) -> None:
    """The tolerance is the least that the linear placement meets, and one activation below it."""
    wide = loose(problem)
    placement = linear(wide)
    (sets,) = wide.workload.layers
    total, speeds = wide.load_total, wide.cluster.speeds_of.tolist()
    loads = [int(sets.load[placement.primary[0] == gpu].sum()) for gpu in range(len(speeds))]
    excess = [
        Fraction(load * sum(speeds), total * speed) - 1 for load, speed in zip(loads, speeds, strict=True)
    ]
    worst = max(excess)
    assert replace(wide, load_tolerance=worst).violation(placement) == ""
    below = worst - Fraction(1, 2 * total * max(speeds))
    try:
        strict = replace(wide, load_tolerance=below)
    except ValueError:
        assume(False)
        raise
    gpu = excess.index(worst)
    refused = strict.violation(placement)
    if excess.count(worst) == 1:
        assert refused.startswith(f"layer 5: GPU {gpu} serves {loads[gpu]} activations, load tolerance ")
    assert refused.endswith(
        f"allows {min(loads[g] - 1 for g in range(len(loads)) if excess[g] == worst)}"
    ) or (excess.count(worst) > 1 and "load tolerance" in refused)


@settings(COMMON, max_examples=50)
@given(problem=any_problems(extras=("speeds", "tail")), seed=st.integers(0, 2**32 - 1))
def test_one_move_too_many_is_refused(problem: Problem, seed: int) -> None:
    wide = loose(problem)
    rng = np.random.default_rng(seed)
    before, after = (
        wide.partition(rng.integers(0, wide.cluster.gpus, wide.workload.n_experts)) for _ in range(2)
    )
    moved = int((before.primary != after.primary).sum())
    assume(moved > 0)
    assert replace(wide, incumbent=before, max_moves=moved).violation(after) == ""
    refused = replace(wide, incumbent=before, max_moves=moved - 1).violation(after)
    assert refused == f"layer 5: {moved} copies moved from the incumbent, {moved - 1} may"


@settings(COMMON, max_examples=50)
@given(problem=any_problems(extras=("tail",)), data=st.data())
def test_a_token_served_where_there_is_no_copy_is_refused(problem: Problem, data: st.DataObject) -> None:
    wide = loose(problem)
    placement = linear(wide)
    (dispatch,) = wide.plan(placement).dispatches
    row = data.draw(st.integers(0, len(dispatch.gpus) - 1))
    column = data.draw(st.integers(0, dispatch.gpus.shape[1] - 1))
    gpus = dispatch.gpus.copy()
    gpus[row, column] = (gpus[row, column] + 1) % wide.cluster.gpus
    expert = wide.workload.layers[0].members[dispatch.sets[row], column]
    plan = Plan(placement, (replace(dispatch, gpus=gpus),))
    assert wide.violation(plan) == f"layer 5: GPU {gpus[row, column]} does not hold expert {expert}"
    fewer = dispatch.tokens.copy()
    family = int(fewer[row].argmax())
    fewer[row, family] -= 1
    refused = wide.violation(Plan(placement, (replace(dispatch, tokens=fewer),)))
    assert refused.endswith(
        f"expert set {row} has {fewer[row, family] + 1} tokens of family {family}, {fewer[row, family]} served"
    )
