"""Loads and pair counts give the same cut as the tokens they were counted from, and nothing else."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt.brute import every_partition
from moeopt.checker import check_layer
from moeopt.cli import main
from moeopt.cluster import Cluster
from moeopt.comparison import compare, evaluate
from moeopt.dispatch import Dispatch, Plan
from moeopt.method import Incumbent
from moeopt.pair_counts import PairCounts, recorded_share
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.rules import served_loads
from moeopt.statements import named_formulation
from moeopt.stop import Stop
from moeopt.summary import summarise
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt.traffic import Traffic
from moeopt.workload import Workload
from tests.problem_strategies import problems
from tests.strategies import traces

CUT = ("cut",)
ENOUGH = Stop(seconds=None, candidates=200)
TRACE = Trace(
    np.array([[[0, 1]], [[0, 1]], [[1, 2]], [[2, 3]], [[0, 3]], [[0, 2]]]),
    4,
    layer_ids=np.array([9]),
    families=("code", "math"),
    family=np.array([0, 1, 1, 0, 0, 1]),
)
PAIRS = Cluster(1, 2, 2)
REFUSED = "expert sets of the tokens are not recorded, only loads and pair counts"


def counted(workload: Workload) -> Workload:
    """The same traffic by its loads and all its pairs."""
    return replace(workload, layers=tuple(PairCounts.of_sets(sets) for sets in workload.layers))


def thinned(workload: Workload, every: int = 2) -> Workload:
    """Only every second pair, as of a recorder that drops some."""
    layers = []
    for sets in counted(workload).layers:
        assert isinstance(sets, PairCounts)
        layers.append(replace_pairs(sets, slice(None, None, every)))
    return replace(workload, layers=tuple(layers))


def replace_pairs(sets: PairCounts, rows: Any) -> PairCounts:
    return PairCounts(
        sets.counts[rows], sets.n_experts, pairs=sets.pairs[rows], load=sets.load, top_k=sets.top_k
    )


def of_pairs(workload: Workload | None = None, **fields: Any) -> Problem:
    known = counted(Workload.from_trace(TRACE)) if workload is None else workload
    return Problem(known, PAIRS, **({"objective": "cut"} | fields))


@settings(max_examples=60, deadline=None)
@given(
    problem=problems(objectives=CUT, most_experts=6, most_gpus=3), tail=st.sampled_from([None, "0", "0.5"])
)
def test_all_pairs_judge_every_placement_as_the_tokens_do(problem: Problem, tail: str | None) -> None:
    problem = replace(problem, tail=tail)
    known = replace(problem, workload=counted(problem.workload))
    assert known.pair_weight == problem.pair_weight
    if tail is None:
        assert problem.pair_weight == problem.total_weight * comb(problem.workload.top_k, 2)
    assert reference_cost(known) == reference_cost(problem)
    assert recorded_share(known.workload) == 1.0
    for name in ("load_total", "total_weight"):
        assert getattr(known, name) == getattr(problem, name)
    for placement in every_partition(replace(problem, load_tolerance=None)):
        assert known.cost(placement) == problem.cost(placement)
        assert known.violation(placement) == problem.violation(placement)
        assert known.violation(placement) == problem.violation(problem.plan(placement))
        assert (served_loads(known, placement) == served_loads(problem, problem.plan(placement))).all()


@settings(max_examples=30, deadline=None)
@given(problem=problems(objectives=CUT, most_experts=6, most_gpus=3))
def test_a_cut_is_the_tokens_of_the_recorded_pairs_that_are_apart(problem: Problem) -> None:
    known = replace(problem, workload=thinned(problem.workload))
    (sets,) = known.workload.layers
    assert isinstance(sets, PairCounts)
    assert known.pair_weight <= problem.pair_weight
    cluster, weights = problem.cluster, (sets.counts @ problem.multipliers).tolist()
    for placement in every_partition(replace(problem, load_tolerance=None)):
        gpu = placement.primary[0].tolist()
        cost = 0
        for (i, j), weight in zip(sets.pairs.tolist(), weights, strict=True):
            cost += weight * cluster.gpu_cost * (gpu[i] != gpu[j])
            cost += weight * cluster.node_cost * int(cluster.node_of[gpu[i]] != cluster.node_of[gpu[j]])
        assert known.cost(placement) == cost <= problem.cost(placement)


@pytest.mark.parametrize("name", ["assignment", "blocks", "pairs", "families", "migration", "two-level"])
def test_statements_of_the_cut_hold_for_pair_counts(name: str) -> None:
    rng = np.random.default_rng(3)
    experts = np.argsort(rng.random((40, 1, 5)), axis=2)[:, :, :3]
    trace = Trace(experts, 5, families=("code", "math"), family=rng.integers(0, 2, 40, np.uint8))
    cluster = Cluster(1, 2, 3)
    fields: dict[str, Any] = {"load_tolerance": "0.4"}
    if name == "families":
        fields = {"tail": "0"}
    if name == "two-level":
        cluster, fields = Cluster(2, 2, 2, 1, 2), {}
    if name == "migration":
        home = Placement.partition([[0, 0, 1, 1, 1]], cluster, layer_ids=(0,))
        fields = {"incumbent": home, "max_moves": 3}
    workload = thinned(Workload.from_trace(trace))
    problem = Problem(workload, cluster, objective="cut", **fields)
    formulation = named_formulation(name)
    assert not formulation.supports(problem)
    check_formulation(formulation, [problem])


@pytest.mark.parametrize("method", ["swap", "swap-cut", "lpt", "assignment", "blocks", "pairs", "auto"])
def test_methods_end_at_the_judges_own_cost_and_proofs_pass_the_checker(method: str) -> None:
    trace = mo.Generator(
        layers=2, experts=6, top_k=3, tokens=200, requests=8, groups=2, group_size=3
    ).generate()
    workload = thinned(Workload.from_trace(trace))
    problem = Problem(workload, Cluster(1, 2, 3), objective="cut")
    result = mo.solve(problem, method, stop=Stop(seconds=None, candidates=500))
    assert result.placement is not None
    assert result.cost == problem.cost(result.placement)
    least = [
        min(part.cost(placement) for placement in every_partition(part))
        for part in (problem.layer(0), problem.layer(1))
    ]
    assert result.cost >= sum(least)
    if method in ("swap", "swap-cut", "lpt"):
        return
    assert (result.status, result.cost) == ("certified-optimal", sum(least))
    assert result.certificate is not None
    assert mo.verify(result.certificate, workload).accepted
    whole = counted(Workload.from_trace(trace))
    assert "digests differ" in mo.verify(result.certificate, whole).reason
    assert not mo.verify(result.certificate, trace).accepted
    missing = workload.layer(1)
    assert "layer 0 is not recorded" in mo.verify(result.certificate, missing).reason


def test_a_certificate_of_a_trace_is_verified_against_its_workload_too() -> None:
    problem = Problem.from_trace(TRACE, PAIRS)
    certificate = mo.solve(problem, "blocks").certificate
    assert certificate is not None
    assert mo.verify(certificate, Workload.from_trace(TRACE)).accepted
    assert "not recorded" in mo.verify(certificate, counted(Workload.from_trace(TRACE))).reason


def test_a_load_tolerance_that_nothing_meets_says_how_far_loads_can_go_down() -> None:
    by_tokens, by_pairs = (
        Incumbent(Problem(workload, PAIRS, objective="cut", load_tolerance="0"), Stop().start())
        for workload in (Workload.from_trace(TRACE), counted(Workload.from_trace(TRACE)))
    )
    uneven = Placement.partition([[0, 1, 0, 1]], PAIRS, layer_ids=(9,))
    for incumbent in (by_tokens, by_pairs):
        assert not incumbent.offer(uneven)
    assert by_pairs.reason == by_tokens.reason
    ends = [one.result(mo.Method, seed=0, status="feasible") for one in (by_tokens, by_pairs)]  # type: ignore[arg-type]
    assert ends[0].tolerance_reached == ends[1].tolerance_reached is not None


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_two_halves_add_to_the_whole(trace: Trace) -> None:
    half = np.arange(trace.n_tokens) < trace.n_tokens // 2
    if not half.any():
        return
    parts = [counted(Workload.from_trace(trace.take(mask))) for mask in (half, ~half)]
    whole = counted(Workload.from_trace(trace))
    assert (parts[0] + parts[1]).digest == (parts[1] + parts[0]).digest == whole.digest


def test_families_are_united_by_name_and_sets_do_not_add_to_pairs() -> None:
    code = replace(Workload.from_trace(Trace(np.array([[[0, 1]]]), 3)), families=("code",))
    math = replace(Workload.from_trace(Trace(np.array([[[0, 1]]]), 3)), families=("math",))
    both = counted(math) + counted(code)
    assert both.families == ("math", "code")
    assert both.layers[0].counts.tolist() == [[1, 1]]
    for first, second in ((code, counted(math)), (counted(math), code)):
        with pytest.raises(ValueError, match="do not add"):
            first + second


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_pair_counts_survive_their_document(trace: Trace) -> None:
    workload = counted(Workload.from_trace(trace))
    again = Workload.from_dict(json.loads(json.dumps(workload.to_dict())))
    assert again.digest == workload.digest
    problem = Problem(workload, Cluster.of(gpus=2, slots=trace.n_experts), objective="cut")
    assert Problem.from_dict(json.loads(json.dumps(problem.to_dict()))).digest == problem.digest
    assert not again.complete
    assert Workload.from_trace(trace).complete


def test_order_does_not_matter_and_pairs_without_tokens_are_left_out() -> None:
    def made(pairs: list[list[int]], counts: list[list[int]]) -> PairCounts:
        return PairCounts(
            np.array(counts), 3, pairs=np.array(pairs, np.int32), load=np.array([3, 2, 1]), top_k=2
        )

    first, second = made([[0, 1], [0, 2]], [[2], [1]]), made([[2, 0], [2, 1], [1, 0]], [[1], [0], [2]])
    assert first.digest == second.digest
    assert second.pairs.tolist() == [[0, 1], [0, 2]]
    with pytest.raises(ValueError, match="read-only"):
        first.load[0] = 1


def test_a_digest_changes_with_every_part_of_the_content() -> None:
    base: dict[str, Any] = {
        "counts": np.array([[2]]),
        "n_experts": 4,
        "pairs": np.array([[0, 1]]),
        "load": np.array([4, 4, 4, 0]),
        "top_k": 2,
    }
    others: list[dict[str, Any]] = [
        {},
        {"counts": np.array([[1]])},
        {"counts": np.array([[1, 1]])},
        {"pairs": np.array([[0, 2]])},
        {"load": np.array([4, 4, 3, 1])},
        {"top_k": 3},
        {"n_experts": 5, "load": np.array([4, 4, 4, 0, 0])},
    ]
    assert len({PairCounts(**base | other).digest for other in others}) == len(others)
    assert PairCounts(**base).digest != Workload.from_trace(TRACE).layers[0].digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"top_k": 0}, "top-k must lie between 1 and the 4 experts, found 0"),
        ({"top_k": 5}, "top-k must lie between 1 and the 4 experts, found 5"),
        ({"load": [4, 4, 4]}, r"load must have shape \(4\), found \(3,\)"),
        ({"load": [4, 4, 4, -1]}, r"load must lie from 0 to 2\^46, found -1 to 4"),
        ({"load": [4, 4, 4, 1 << 50]}, r"load must lie from 0 to 2\^46"),
        ({"load": [4, 4, 4, 0.5]}, "load must be whole numbers, found dtype float64"),
        ({"pairs": [[0, 1, 2]]}, r"pairs must have shape \(any, 2\), found \(1, 3\)"),
        ({"pairs": [[0, 4]]}, "pairs must be of ids below 4, found 4"),
        ({"pairs": [[-1, 0]]}, "pairs must lie from 0 .* found -1"),
        ({"pairs": [[1, 1]]}, "a pair is of two experts, found 1 and 1"),
        ({"pairs": [[0, 1], [1, 0]], "counts": [[1], [1]]}, "experts 0 and 1 are counted twice"),
        ({"counts": [[1], [1]]}, r"counts must have shape \(1, any\), found \(2, 1\)"),
        ({"counts": [2]}, r"counts must have shape \(1, any\), found \(1,\)"),
        ({"counts": [[-1]]}, "counts must lie from 0 .* found -1"),
        ({"counts": [[3, 2]]}, "experts 0 and 1 are chosen together by 5 tokens, alone by 4 and 4"),
        (
            {"pairs": [[0, 1], [0, 2]], "counts": [[3], [2]]},
            "expert 0 is in 5 pairs, 4 tokens of top-2 have 4",
        ),
    ],
)
def test_counts_that_no_tokens_have_are_refused(changes: dict[str, Any], words: str) -> None:
    fields = {"counts": [[2]], "pairs": [[0, 1]], "load": [4, 4, 4, 0], "top_k": 2} | changes
    arrays: dict[str, Any] = {
        name: fields[name] if name == "top_k" else np.array(fields[name]) for name in fields
    }
    with pytest.raises(ValueError, match=words):
        PairCounts(n_experts=4, **arrays)


@pytest.mark.parametrize(
    ("tokens", "counts", "words"),
    [
        ([5], [[2]], "layer 7: loads sum to 12, 5 tokens of top-2 make 10"),
        ([3, 3], [[2]], "layer 7: pairs are counted for 1 families, tokens for 2"),
        (
            [1, 5],
            [[2, 0]],
            "layer 7: experts 0 and 1 are chosen together by 2 of 1 tokens of a family",
        ),
    ],
)
def test_counts_that_are_not_of_the_tokens_are_refused(
    tokens: list[int], counts: list[list[int]], words: str
) -> None:
    sets = PairCounts(np.array(counts), 4, pairs=np.array([[0, 1]]), load=np.array([4, 4, 4, 0]), top_k=2)
    families = tuple("abc"[: len(tokens)])
    with pytest.raises(ValueError, match=words):
        Workload((sets,), (7,), families, np.array(tokens))


def test_an_expert_that_more_tokens_chose_than_there_are_is_refused() -> None:
    sets = PairCounts(
        np.zeros((0, 1), int), 3, pairs=np.zeros((0, 2), int), load=np.array([5, 3, 0]), top_k=2
    )
    with pytest.raises(ValueError, match="layer 0: expert 0 is chosen by 5 of 4 tokens"):
        Workload((sets,), (0,), ("all",), np.array([4]))
    many = PairCounts(
        np.array([[2, 0], [2, 0], [0, 2]]),
        4,
        pairs=np.array([[0, 1], [2, 3], [1, 2]]),
        load=np.array([2, 4, 4, 2]),
        top_k=2,
    )
    with pytest.raises(ValueError, match="4 pairs are counted in family 0, 2 tokens of top-2 have 2"):
        Workload((many,), (0,), ("a", "b"), np.array([2, 4]))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("top_k",), "2", "field 'top_k' must be int"),
        (("pairs",), [[0, 1], [2]], "pairs must be lists of one length"),
        (("pairs",), [0, 1], r"pairs must have shape \(any, 2\), found \(2,\)"),
        (("counts",), [[0.5]], "counts must hold whole numbers"),
        (("load",), [True, False, True], "load must hold whole numbers"),
        (("load",), [2, 2, 0], "layer 0: loads sum to 4, 1 tokens of top-2 make 2"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused(path: tuple[str, ...], value: Any, words: str) -> None:
    document = copy.deepcopy(counted(Workload.from_trace(Trace(np.array([[[0, 1]]]), 3))).to_dict())
    document["layers"][0][path[0]] = value
    with pytest.raises(ValueError, match=words):
        Workload.from_dict(document)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objective": "fan-out"}, f"objective 'fan-out' cannot be judged: in layer 9 the {REFUSED}"),
        ({"objective": "fan-out", "replicas": 1}, f"replicas 1 cannot be judged: in layer 9 the {REFUSED}"),
        ({"replicas": 1}, "the cut is defined for partitions: replicas must be 0, found 1"),
    ],
)
def test_a_problem_that_needs_the_sets_is_refused_at_the_door(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(of_pairs(), cluster=Cluster(1, 2, 3), **fields)


def test_what_needs_the_sets_says_what_is_missing() -> None:
    problem = of_pairs()
    workload, (sets,) = problem.workload, problem.workload.layers
    placement = problem.partition(np.array([0, 0, 1, 1]))
    for ask in (
        lambda: sets.members,
        lambda: len(sets),
        lambda: sets.weighted_load(sets.counts[:, 0]),
        lambda: problem.plan(placement),
        lambda: Traffic.of(problem, problem.plan(placement)),
        lambda: evaluate(placement, workload),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            ask()
    traceless: Any = workload
    with pytest.raises(ValueError, match="a trace holds the experts of every token, found a workload"):
        Problem.from_trace(traceless, PAIRS)


def test_a_dispatch_of_pairs_is_no_dispatch() -> None:
    problem = of_pairs()
    placement = problem.partition(np.array([0, 0, 1, 1]))
    (sets,) = problem.workload.layers
    assert isinstance(sets, PairCounts)
    of_each = placement.primary[0][sets.pairs].astype(np.int32)
    plan = Plan(placement, (Dispatch(np.arange(len(sets.pairs), dtype=np.int32), of_each, sets.counts),))
    assert "a dispatch serves expert sets, the workload has pair counts only" in problem.violation(plan)
    proof = mo.solve(problem, "assignment").certificate
    assert proof is not None
    forged = replace(proof.proofs[0], dispatch=plan.dispatches[0])
    assert "pair counts only" in check_layer(problem, forged, placement=proof.placement)


def test_layers_are_chosen_by_their_absolute_ids() -> None:
    trace = Trace(np.array([[[0, 1], [1, 2], [0, 2]]]), 3, layer_ids=np.array([3, 5, 8]))
    workload = Workload.from_trace(trace)
    assert workload.only([8, 3, 3]).digest == Workload.from_trace(trace.layers([3, 8])).digest
    assert Workload.from_layers(workload, [5]).digest == Workload.from_layers(trace, [5]).digest
    with pytest.raises(ValueError, match=r"layer 4 is not recorded, the layers are \[3, 5, 8\]"):
        workload.only([3, 4])


def test_a_summary_and_a_comparison_leave_out_what_nobody_knows() -> None:
    problem = of_pairs()
    result = mo.solve(problem, "assignment", stop=ENOUGH)
    answer = summarise(problem, result, seconds=0.0)
    assert (answer["fan_out"], answer["layers"][0]["fan_out"], answer["bound"]) == (None, None, None)
    assert answer["certified_share"] == 1.0
    assert answer["layers"][0]["load_max_over_mean"] >= 1.0
    rows = compare(problem, ["linear", "swap"], stop=ENOUGH)
    assert [(row.fan_out, row.reduction) for row in rows] == [(None, None)] * 2
    assert all(row.max_violation is not None and row.cost is not None for row in rows)


def test_the_command_line_places_and_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = thinned(Workload.from_trace(TRACE))
    (sets,) = workload.layers
    assert isinstance(sets, PairCounts)
    document: dict[str, Any] = {
        "model": "tiny",
        "n_layers": 1,
        "n_expert_per_layer": 4,
        "k": 2,
        "n_decode_tokens": 6,
        "layers": [
            {
                "layer": 9,
                "heat": sets.load.tolist(),
                "pairs": [
                    [*pair, sum(tokens), 1.5]
                    for pair, tokens in zip(sets.pairs.tolist(), sets.counts.tolist(), strict=True)
                ],
            }
        ],
    }
    source, certificate = tmp_path / "counts.json", tmp_path / "certificate.json"
    source.write_text(json.dumps(document))

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["moeopt", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    cut = ("--gpus", 2, "--objective", "cut", "--method", "pairs", "--workers", 1)
    code, out, _ = run("place", source, *cut, "--layers", 9, "--certificate", certificate, "--json")
    answer = json.loads(out)
    assert (code, answer["status"], answer["fan_out"]) == (0, "certified-optimal", None)
    assert f"cut of the recorded pairs, {recorded_share(workload):.1%} of all" in answer["message"]
    assert run("place", source, *cut)[0] == 0
    assert run("verify", certificate, source)[:2][0] == 0
    document["layers"][0]["heat"] = [sum(sets.load.tolist()) // 4] * 4
    source.write_text(json.dumps(document))
    code, out, _ = run("verify", certificate, source)
    assert code == 1
    assert "digests differ" in out
    assert "layer 3 is not recorded" in run("place", source, *cut, "--layers", 3)[2]
    assert "the expert sets of the tokens are not recorded" in run("place", source, "--gpus", 2)[2]
    code, _, err = run("compare", source, "--gpus", 2)
    assert code == 2
    assert "a trace holds the experts of every token, found a workload without tokens" in err
    assert run("profile", source)[0] == 0
