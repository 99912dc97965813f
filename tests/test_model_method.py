"""Methods that place all layers together: one proposal is one answer, judged layer by layer and kept whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import moeopt as mo
from moeopt import registry
from moeopt.heuristics.exflow import ExFlow
from moeopt.heuristics.linear import Linear
from moeopt.heuristics.lpt import Lpt
from moeopt.method import Incumbent
from moeopt.model_method import ModelMethod, objection
from moeopt.news import News
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock
from tests.command_line import caller

FREELY = mo.Stop(seconds=None)
TRACE = mo.Generator(layers=3, experts=8, top_k=2, tokens=200, requests=12, groups=3, group_size=3).generate()
CLUSTER = mo.Cluster.of(gpus=4, slots=2)
PROBLEM = mo.Problem.from_trace(TRACE, CLUSTER)
EVEN = np.arange(8) // 2  # admissible in every layer
TURNED = np.arange(8) % 4
FULL = np.array([0, 0, 0, 1, 1, 2, 2, 3])  # three experts where slots are 2
SEEN: list[Clock] = []


@dataclass(frozen=True)
class Given(ModelMethod):
    """Proposes these GPUs [layers, experts], in order; then an interrupt, if asked for."""

    plans: tuple[tuple[tuple[int, ...], ...], ...]
    interrupts: bool = False
    name = "given"
    summary = "what it is given"

    def propose(
        self, problem: mo.Problem, trace: mo.Trace, *, clock: Clock, rng: np.random.Generator
    ) -> Iterator[mo.Placement]:
        SEEN.append(clock)
        for plan in self.plans:
            yield problem.partition(np.array(plan))
        if self.interrupts:
            raise KeyboardInterrupt


def given(*plans: list[Any], interrupts: bool = False) -> Given:
    return Given(tuple(tuple(tuple(layer.tolist()) for layer in plan) for plan in plans), interrupts)


def placed(plan: list[Any]) -> mo.Placement:
    return PROBLEM.partition(np.array(plan))


def solved(method: ModelMethod, problem: mo.Problem = PROBLEM, **options: Any) -> mo.Result:
    return mo.solve(problem, method, stop=options.pop("stop", FREELY), trace=TRACE, **options)


def by_cost() -> list[list[Any]]:
    """Two plans, the cheaper first."""
    plans = [[EVEN] * 3, [TURNED] * 3]
    return sorted(plans, key=lambda plan: PROBLEM.cost(placed(plan)))


@pytest.mark.parametrize("turn", [1, -1])
def test_the_last_admissible_proposal_is_the_answer_whatever_it_costs(turn: int) -> None:
    plans = by_cost()[::turn]
    result = solved(given(*plans, [EVEN, FULL, EVEN]))
    assert result.placement == placed(plans[-1])
    assert result.cost == PROBLEM.cost(placed(plans[-1]))
    assert [part.cost for part in result.layers] == PROBLEM.layer_costs(placed(plans[-1]))
    assert [part.layer_id for part in result.layers] == [0, 1, 2]
    assert (result.status, result.bound, result.seed) == ("feasible", None, 0)
    assert [len(part.history) for part in result.layers] == [2, 2, 2]


def test_layers_of_different_proposals_never_mix() -> None:
    result = solved(given([EVEN, EVEN, FULL], [FULL, EVEN, EVEN]))
    assert (result.status, result.placement, result.cost) == ("none-found", None, None)
    assert "no admissible placement of all layers found: layer 0: GPU 0 holds 3 experts" in result.message


def test_a_layer_is_judged_as_other_methods_are() -> None:
    result = solved(given([EVEN, TURNED, EVEN]))
    for index, part in enumerate(result.layers):
        seat = Incumbent(PROBLEM.layer(index), FREELY.start())
        seat.offer(placed([EVEN, TURNED, EVEN]).layer(index))
        assert (part.placement, part.cost) == (seat.placement, seat.cost)


def test_a_tolerance_that_no_proposal_meets_is_told_with_the_nearest() -> None:
    tight = replace(PROBLEM, load_tolerance="0.05")
    result = solved(given([EVEN] * 3, [TURNED] * 3), tight)
    assert result.status == "none-found"
    assert "load tolerance 0.05 allows" in result.message
    reached = result.tolerance_reached
    assert reached is not None
    loose = solved(given([EVEN] * 3, [TURNED] * 3), replace(PROBLEM, load_tolerance=reached))
    assert loose.placement is not None
    less = solved(given([EVEN] * 3, [TURNED] * 3), replace(PROBLEM, load_tolerance=reached - 0.001))
    assert less.placement is None
    assert solved(given([EVEN, FULL, EVEN]), tight).tolerance_reached is None


def test_a_start_and_an_incumbent_stand_in_where_nothing_is_admissible() -> None:
    start, running = placed([TURNED] * 3), placed([EVEN] * 3)
    assert solved(given([FULL] * 3), start=start).placement == start
    changing = replace(PROBLEM, incumbent=running, max_moves=0)
    assert solved(given([TURNED] * 3), changing).placement == running
    assert solved(given([TURNED] * 3), replace(changing, max_moves=8)).placement == start
    assert solved(given([EVEN] * 3), start=start).placement == running


def test_the_clock_has_the_seconds_of_all_layers_and_counts_whole_proposals() -> None:
    result = solved(given([EVEN] * 3, [TURNED] * 3), stop=mo.Stop(seconds=7, candidates=1))
    assert SEEN[-1].stop == mo.Stop(seconds=21, candidates=1)
    assert result.placement == placed([EVEN] * 3)
    assert len({part.seconds for part in result.layers}) == 1


def test_an_interrupt_keeps_what_was_found() -> None:
    result = solved(given([EVEN] * 3, interrupts=True))
    assert (result.status, result.placement) == ("interrupted", placed([EVEN] * 3))
    assert all(part.status == "interrupted" for part in result.layers)


def test_an_interrupt_before_anything_was_found_gives_every_layer_the_cheaper_of_two_quick_ones() -> None:
    result = solved(given(interrupts=True))
    assert result.status == "interrupted"
    lpt, linear = (mo.solve(PROBLEM, method, stop=FREELY) for method in (Lpt(), Linear()))
    least = [
        min(one.cost or 0, other.cost or 0) for one, other in zip(lpt.layers, linear.layers, strict=True)
    ]
    assert result.placement is not None
    assert PROBLEM.cost(result.placement) == result.cost == sum(least)
    assert result.method == repr(given(interrupts=True))


def test_layers_and_news_are_told() -> None:
    heard: list[mo.Result] = []
    news: list[News] = []
    result = solved(given([EVEN, FULL, EVEN], [EVEN] * 3), on_layer=heard.append, on_news=news.append)
    assert heard == list(result.layers)
    assert [(item.layer_id, item.cost) for item in news] == [
        (part.layer_id, part.cost) for part in result.layers
    ]


def test_one_layer_is_declined_and_never_solved_alone() -> None:
    layer = PROBLEM.layer(0)
    method = given([EVEN])
    reason = "places all layers together, the problem has one"
    assert method.supports(layer) == reason
    assert method.supports(PROBLEM) == ""
    assert objection(method, PROBLEM) == ""
    assert objection(Linear(), PROBLEM) == ""
    with pytest.raises(ValueError, match=f"method given does not treat this problem: {reason}"):
        mo.solve(layer, method, trace=TRACE.layers([0]))
    with pytest.raises(ValueError, match=r"places all layers together: call moeopt\.solve"):
        method.solve(layer, stop=FREELY, seed=0)


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (None, r"needs the trace .* token by token, found none"),
        (PROBLEM.workload, "token by token, found a Workload"),
        (TRACE.layers([0, 1]), r"differ in layers: \(0, 1\) and \(0, 1, 2\)"),
        (replace(TRACE, n_experts=9), "differ in experts: 9 and 8"),
        (replace(TRACE, experts=TRACE.experts[:, :, :1]), "differ in top-k: 1 and 2"),
        (TRACE.take(np.arange(199)), "differ in tokens: 199 and 200"),
        (
            replace(TRACE, experts=(TRACE.experts + 1) % 8),
            r"not made from this trace: in layer 0 expert 0 has \d+ activations in the trace, \d+ in the problem",
        ),
    ],
    ids=["none", "workload", "layers", "experts", "top-k", "tokens", "loads"],
)
def test_a_trace_is_needed_and_must_be_the_problems(trace: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mo.solve(PROBLEM, given([EVEN] * 3), trace=trace)


def test_other_methods_ignore_the_trace() -> None:
    assert mo.solve(PROBLEM, Linear(), stop=FREELY, trace=TRACE.layers([0])).status == "feasible"


def test_no_certificate_is_resumed() -> None:
    certificate = mo.solve(PROBLEM, "blocks", stop=FREELY).certificate
    with pytest.raises(
        ValueError, match="method given places all layers together: it resumes no certificate"
    ):
        solved(given([EVEN] * 3), resume=certificate)


@dataclass(frozen=True)
class Copying(ModelMethod):
    """Linear, with a copy of expert 0 on GPU 3 in so many layers."""

    layers: int
    shares_budget: ClassVar[bool] = True
    name = "copying"
    summary = "copies"

    def propose(
        self, problem: mo.Problem, trace: mo.Trace, *, clock: Clock, rng: np.random.Generator
    ) -> Iterator[mo.Placement]:
        single = problem.partition(np.array([EVEN] * 3))
        hosts = single.hosts.copy()
        hosts[: self.layers, 0, 3] = True
        yield replace(single, hosts=hosts)


def test_a_budget_over_all_layers_is_for_methods_that_know_it_and_is_kept() -> None:
    shared = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=3), replicas=1, total_replicas=2)
    with pytest.raises(ValueError, match="knows no budget over all layers, total_replicas is 2"):
        solved(given([EVEN] * 3), shared)
    with pytest.raises(ValueError, match=r"use moeopt\.allocate"):
        mo.solve(shared, Linear())
    kept = solved(Copying(2), shared)
    assert kept.placement is not None
    assert shared.violation(kept.placement) == ""
    assert kept.cost == shared.cost(kept.placement)
    beyond = solved(Copying(3), shared)
    assert beyond.status == "none-found"
    assert "3 replicas over all layers, the budget is 2" in beyond.message


def test_compare_judges_them_beside_others() -> None:
    method = given([TURNED] * 3)
    wide = replace(
        TRACE, experts=np.concatenate([TRACE.experts] * 2, axis=1), layer_ids=np.arange(6, dtype=np.int32)
    )
    for trace in (TRACE, wide):
        linear, other = mo.compare(PROBLEM, [Linear(), method], stop=FREELY, trace=trace)
        assert other.cost == PROBLEM.cost(placed([TURNED] * 3))
        assert linear.cost == PROBLEM.cost(placed([EVEN] * 3))
    rows = mo.compare(PROBLEM, [method, Linear()], seeds=(0, 1), stop=FREELY, trace=wide, held_out=0.25)
    assert all(row.held_out_fan_out is not None for row in rows)
    _, rest = TRACE.split(0.25, seed=1)
    assert rows[2].held_out_fan_out == mo.evaluate(placed([TURNED] * 3), rest).fan_out


def test_compare_refuses_before_anything_runs() -> None:
    before = len(SEEN)
    for problem, trace, words in (
        (PROBLEM, None, "found none"),
        (PROBLEM.layer(0), TRACE, "the problem has one"),
        (PROBLEM, TRACE.take(np.arange(10)), "differ in tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            mo.compare(problem, [given([EVEN] * 3), ExFlow()], trace=trace)
    assert len(SEEN) == before


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """ExFlow and CRAFT, found by names of their own among the entry points."""
    known = registry._points()
    classes = {"flowing": "moeopt.heuristics.exflow:ExFlow", "sharing": "moeopt.heuristics.craft:Craft"}
    points = {name: EntryPoint(name, path, registry.METHODS) for name, path in classes.items()}
    monkeypatch.setattr(registry, "_points", lambda: {**known, **points})


@pytest.mark.usefixtures("named")
def test_they_are_found_by_name_as_all_others() -> None:
    assert isinstance(registry.named_method("flowing"), ExFlow)
    registry.named_method.cache_clear()
    result = mo.solve(PROBLEM, "flowing", stop=FREELY, trace=TRACE)
    assert result.method == repr(ExFlow())
    registry.named_method.cache_clear()


@pytest.mark.usefixtures("named")
def test_the_command_line_passes_the_trace_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = caller(monkeypatch, capsys)
    file = tmp_path / "trace.parquet"
    mo.write_trace(TRACE, file)
    answer = run("place", file, "--gpus", 4, "--method", "flowing", "--workers", 1, "--json")
    assert answer.code == 0, answer.err
    assert answer.document["status"] == "feasible"
    assert len(answer.document["layers"]) == 3
    rows = run("compare", file, "--gpus", 4, "--methods", "linear,flowing", "--held-out", 0.25, "--json")
    assert [row["method"] for row in rows.document["rows"]] == ["linear", "exflow"]
    alone = run("place", file, "--gpus", 4, "--layers", 1, "--method", "flowing")
    assert (alone.code, "the problem has one" in alone.err) == (2, True)
    shared = ["place", file, "--gpus", 4, "--slots", 3, "--replicas", 1, "--total-replicas", 2]
    refused = run(*shared, "--method", "linear")
    assert (refused.code, "use moeopt.allocate" in refused.err) == (2, True)
    placed_file = tmp_path / "placement.json"
    assert run(*shared, "--method", "sharing", "-o", placed_file).code == 0
    assert mo.read_placement(placed_file).hosts.sum() - 3 * 8 <= 2
    registry.named_method.cache_clear()


def test_no_news_of_placements_that_are_not_kept() -> None:
    trace = mo.sample("tiny-moe").layers([0, 1])
    cluster = mo.Cluster.of(gpus=8, slots=4)
    even = mo.solve(Problem.from_trace(trace, cluster), "lpt").placement
    uneven = mo.solve(Problem.from_trace(trace, cluster), "swap", stop=mo.Stop(seconds=1)).placement
    assert even is not None
    assert uneven is not None
    mixed = Placement.join([even.layer(0), uneven.layer(1)])
    asked = Problem.from_trace(trace, cluster, incumbent=mixed, max_moves=0, load_tolerance="0.2")
    heard: list[object] = []
    result = mo.solve(asked, "exflow", trace=trace, stop=mo.Stop(seconds=1), on_news=heard.append)
    assert result.cost is None
    assert heard == []
