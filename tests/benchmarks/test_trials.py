import time
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import attempts
from benchmarks.attempts import PRICES, Overrun
from benchmarks.builders import building, every_pair
from benchmarks.models import SPECS
from benchmarks.trials import contradiction, solvers, trial
from moeopt.bench_rows import Key, Row, perform
from moeopt.stop import Stop

BRIEF = Stop(seconds=10)


def _found(row: Row) -> dict[str, Any]:
    assert row["outcome"] == "done", row["reason"]
    found: dict[str, Any] = row["found"]
    return found


def test_a_run_of_a_placement_says_what_was_proved_when_and_how_large_the_model_is() -> None:
    (row,) = perform(trial("tiny, fan-out", "blocks", stop=BRIEF))
    found = _found(row)
    assert found["status"] == "certified-optimal"
    assert found["cost"] == found["bound"]
    assert found["certified_share"] == 1
    assert found["gap"] == 0
    assert (found["rows"], found["columns"], found["nonzeros"], found["lazy"]) == (9, 29, 85, False)
    assert 0 < found["solved_seconds"] <= found["seconds"] < found["wall_seconds"]
    assert min(found["pyomo_seconds"], found["build_seconds"]) > 0
    assert found["experts"] is None or found["experts"] == 8
    assert row["method"] == "blocks() by highs"


def test_other_names_and_the_route_of_prices_prove_the_same_optimum() -> None:
    rows = [
        *perform(trial("tiny, fan-out", "blocks", stop=BRIEF)),
        *perform(trial("tiny, fan-out", "blocks", seed=2, stop=BRIEF)),
        *perform(trial("tiny, fan-out", "blocks", solver=PRICES, seed=1, stop=BRIEF)),
    ]
    assert len({_found(row)["cost"] for row in rows}) == 1
    assert all(_found(row)["status"] == "certified-optimal" for row in rows)
    assert all(contradiction(row, rows) == "" for row in rows)
    assert [_found(row).get("pyomo_seconds") is None for row in rows] == [False, True, True]


def test_a_run_of_another_problem_is_judged_and_verified_as_well() -> None:
    (row,) = perform(trial("tiny, balance", "balance", stop=BRIEF))
    found = _found(row)
    assert found["status"] in ("certified-optimal", "solver-claimed")
    assert found["bound"] <= found["cost"]
    assert found["verify_seconds"] > 0
    assert found["build_seconds"] is None, "balance has no builder but Pyomo"


def test_settings_are_part_of_the_method_and_of_the_row() -> None:
    task = trial("tiny, worst family", "families", stop=BRIEF, settings={"inner": "blocks"})
    assert task.key.method == "families(inner='blocks') by highs"
    (row,) = perform(task)
    assert row["outcome"] == "skipped" or row["found"]["inner"] == "blocks"


@pytest.mark.parametrize(
    ("formulation", "solver", "outcome", "reason"),
    [
        ("unheard-of", "highs", "skipped", "no formulation is named 'unheard-of'"),
        ("blocks", "unheard-of", "skipped", "no solver is named 'unheard-of'"),
        ("balance", "highs", "unsupported", "states a LoadProblem"),
    ],
)
def test_what_is_not_there_is_skipped_and_what_is_refused_unsupported(
    formulation: str, solver: str, outcome: str, reason: str
) -> None:
    (row,) = perform(trial("tiny, fan-out", formulation, solver=solver, stop=BRIEF))
    assert row["outcome"] == outcome
    assert reason in row["reason"]


def test_a_licence_that_is_too_small_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise ValueError("the Gurobi licence found here is limited in size")

    monkeypatch.setattr(attempts, "_measure", refuse)
    (row,) = perform(trial("tiny, fan-out", "blocks", stop=BRIEF))
    assert (row["outcome"], row["reason"]) == ("unsupported", "larger than the licence of highs found here")
    assert row["found"]["rows"] == 9


def test_a_run_far_over_its_limit_is_ended_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*arguments: Any, **options: Any) -> Any:
        time.sleep(60)

    monkeypatch.setattr(attempts, "_measure", hang)
    monkeypatch.setattr(attempts, "GRACE", 0.2)
    (row,) = perform(trial("tiny, fan-out", "blocks", stop=Stop(seconds=0.3)))
    found = _found(row)
    assert (found["status"], found["seconds"]) == ("overran", 0.3)
    assert "0.5 s of wall time" in found["message"]


def test_the_wall_is_gone_after_the_run() -> None:
    with attempts._wall(0.05):
        pass
    time.sleep(0.1)
    with pytest.raises(Overrun), attempts._wall(0.05):
        time.sleep(5)


def _row(case: str, seed: int, **found: Any) -> Row:
    return Key(case, None, "blocks() by highs", seed, "Stop()").row("done", **found)


def test_a_bound_above_a_cost_of_the_same_problem_contradicts_it() -> None:
    low = _row("a", 0, status="certified-optimal", cost=5, bound=5)
    high = _row("a", 1, status="certified-optimal", cost=7, bound=7)
    assert contradiction(high, [low]) == (
        "bound 7 of blocks() by highs, seed 1, is above the cost 5 of blocks() by highs, seed 0"
    )
    assert contradiction(low, [high]).startswith("bound 7")
    assert contradiction(replace_case(high, "b"), [low]) == ""
    assert contradiction(_row("a", 2, status="feasible", cost=7, bound=4), [low]) == ""
    claimed = _row("a", 2, status="solver-claimed", cost=7, bound=None, claimed_bound=6)
    assert contradiction(claimed, [low]).startswith("claimed_bound 6")


def replace_case(row: Row, case: str) -> Row:
    return {**row, "case": case}


def test_prices_are_for_listed_columns_and_a_problem_may_name_its_solvers() -> None:
    assert solvers(SPECS["cut, 8 experts"], "blocks") == (PRICES, "highs", "cpsat", "scip", "gurobi")
    assert solvers(SPECS["cut, 8 experts"], "pairs") == ("highs", "cpsat", "scip", "gurobi")
    one = replace(SPECS["cut, 8 experts"], solvers=("prices", "highs"))
    assert (solvers(one, "blocks"), solvers(one, "pairs")) == (("prices", "highs"), ("highs",))


def test_a_builder_is_timed_against_pyomo_and_states_as_many_rows() -> None:
    (row,) = perform(building(16, 4, "assignment"))
    found = _found(row)
    assert (found["rows"], found["columns"], found["lazy_rows"]) == (
        16 + 4 + 120 * 4 * 2,
        16 * 4 + 120 * 4,
        0,
    )
    assert found["ratio"] > 0
    (row,) = perform(building(12, 3, "pairs"))
    found = _found(row)
    assert (found["rows"], found["columns"], found["lazy_rows"]) == (12, 66, 660)


def test_every_pair_of_experts_is_chosen() -> None:
    problem = every_pair(6, 2)
    (sets,) = problem.workload.layers
    assert len(sets) == 15
    assert sets.counts.min() >= 1
