from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cases
from benchmarks.cases import CASES, FILES, NULL, case, folder, read_source
from moeopt.bench_rows import Absent
from moeopt.generator import PRESETS


def test_a_case_is_found_by_its_own_name() -> None:
    assert all(case(name).name == name for name in CASES)


def test_every_cluster_holds_the_experts_of_its_preset() -> None:
    for one in CASES.values():
        if one.source in PRESETS:
            assert int(one.cluster.slots_of.sum()) >= PRESETS[one.source].experts + one.replicas


def test_the_sample_case_is_a_problem_with_the_case_s_rules() -> None:
    problem = case("sample, 8 replicas").first_layer().problem()
    assert (problem.replicas, problem.cluster.gpus, len(problem.workload.layers)) == (8, 8, 1)
    assert float(problem.load_tolerance or 0) == 0.25


def test_a_null_has_the_loads_of_its_source() -> None:
    real, null = read_source("sample", layers=(0,)), read_source(NULL + "sample", layers=(0,))
    problem = case("sample")
    first, second = problem.problem(real).workload, problem.problem(null).workload
    assert (first.layers[0].load == second.layers[0].load).all()
    assert first.digest != second.digest


def test_equal_family_weights_name_the_families_of_the_trace() -> None:
    weights = tuple((family, 1.0) for family in read_source("sample").families)
    one = replace(case("sample"), family_weights=weights, layers=(0,))
    masses = one.problem().multipliers * one.problem().workload.tokens
    assert masses.max() / masses.min() == pytest.approx(1, rel=1e-3)


def test_a_trace_that_is_not_there_is_absent_and_the_message_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOEOPT_TRACES", str(tmp_path))
    assert folder() == tmp_path
    cases._source.cache_clear()
    for name in FILES:
        with pytest.raises(Absent, match="MOEOPT_TRACES"):
            read_source(name)


@pytest.mark.parametrize("name", ["no-such", "gpt"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="known are sample"):
        case(name)
    with pytest.raises(ValueError, match="known are sample"):
        read_source(name)
