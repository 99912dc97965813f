from importlib.metadata import entry_points

import numpy as np
import pytest

from benchmarks.cases import read_source
from benchmarks.models import REPLICAS, REPLICAS_32, SPECS, TINY, question, spec
from benchmarks.questions import KEPT, Question, layer_of, most_kept, names_of, renamed
from moeopt.bench_rows import Absent
from moeopt.problem import Problem
from moeopt.statements import GROUP, named_formulation

REGISTERED = {
    point.name for point in entry_points(group=GROUP) if point.value.startswith("moeopt_formulations.")
}


def _asked(name: str, seed: int) -> Question:
    try:
        return question(name, seed)
    except Absent as absent:
        pytest.skip(str(absent))


def test_every_registered_formulation_has_a_problem_and_a_tiny_one() -> None:
    for specs in (SPECS, TINY):
        stated = {name for one in specs.values() for name in one.formulations}
        assert stated >= REGISTERED, f"no problem for {', '.join(sorted(REGISTERED - stated))}"


@pytest.mark.parametrize("name", [*SPECS, *TINY, *REPLICAS, *REPLICAS_32])
def test_a_problem_is_stated_by_its_formulations_under_any_names(name: str) -> None:
    for seed in (0, 1) if name not in REPLICAS_32 else (0,):
        asked = _asked(name, seed)
        for formulation in spec(name).formulations:
            if formulation not in REGISTERED:
                continue
            reason = named_formulation(formulation).supports(asked.problem)
            allowed = formulation == "replicated" and (name in REPLICAS or name in REPLICAS_32)
            assert not reason or allowed, f"{formulation}: {reason}"


def test_other_names_make_another_problem_of_the_same_traffic() -> None:
    plain, other = question("tiny, cut", 0), question("tiny, cut", 1)
    assert plain.problem.digest != other.problem.digest
    assert isinstance(plain.problem, Problem)
    assert isinstance(other.problem, Problem)
    loads = [np.sort(asked.workload.layers[0].load) for asked in (plain.problem, other.problem)]
    assert (loads[0] == loads[1]).all()
    assert question("tiny, cut", 1) is other


def test_an_incumbent_is_renamed_with_its_experts() -> None:
    plain, other = question("tiny, moves", 0).problem, question("tiny, moves", 2).problem
    assert isinstance(plain, Problem)
    assert isinstance(other, Problem)
    assert plain.incumbent is not None
    assert other.incumbent is not None
    assert plain.incumbent != other.incumbent
    assert plain.cost(plain.incumbent) == other.cost(other.incumbent)


def test_seed_zero_keeps_the_names_and_others_permute_them() -> None:
    assert names_of(5, seed=0).tolist() == [0, 1, 2, 3, 4]
    assert sorted(names_of(5, seed=3).tolist()) == [0, 1, 2, 3, 4]
    assert names_of(32, seed=1).tolist() == names_of(32, seed=1).tolist() != names_of(32, seed=2).tolist()


@pytest.mark.parametrize("key", KEPT, ids=str)
def test_the_frozen_experts_keep_more_tokens_than_the_most_loaded_ones(key: tuple[str, int, int]) -> None:
    source, layer, experts = key
    try:
        recorded = read_source(source, layers=(layer,))
    except Absent as absent:
        pytest.skip(str(absent))
    load = np.bincount(recorded.experts.ravel(), minlength=recorded.n_experts)
    names = np.full(recorded.n_experts, -1)
    names[np.argsort(-load, kind="stable")[:experts]] = np.arange(experts)
    kept = layer_of(source, layer, experts=experts, seed=0)
    assert kept.n_tokens >= renamed(recorded, names).n_tokens
    assert (kept.n_experts, kept.top_k) == (experts, recorded.top_k)


def test_the_frozen_experts_are_those_that_exchanges_find() -> None:
    assert most_kept(read_source("sample", layers=(0,)), 8) == KEPT["sample", 0, 8]


def test_experts_that_nobody_froze_and_unknown_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="no 9 experts are frozen for layer 0 of sample"):
        layer_of("sample", 0, experts=9, seed=0)
    with pytest.raises(ValueError, match="no problem is named 'no such problem'"):
        question("no such problem", 0)
    names = np.full(32, -1)
    names[0] = 0
    with pytest.raises(ValueError, match="no token stays within 1 experts"):
        renamed(read_source("sample", layers=(0,)), names)
