"""The checker accepts what is true and proved, and nothing else, however well it is sealed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt import set_partition
from moeopt.certificate import Certificate, seal
from moeopt.checker import Verdict, verify
from moeopt.cluster import Cluster
from moeopt.exact import Exact
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.stop import Stop, interrupt_when
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks

FREELY = Stop(seconds=None)
Document = dict[str, Any]
Path = tuple[Any, ...]


def trace_of(seed: int, *, experts: int = 6, k: int = 3, layers: tuple[int, ...] = (3,)) -> Trace:
    rng = np.random.default_rng(seed)
    popularity = rng.dirichlet(np.full(experts, 3.0)) + 0.05
    popularity /= popularity.sum()
    ids = [[rng.choice(experts, k, replace=False, p=popularity) for _ in layers] for _ in range(30)]
    return Trace(
        np.array(ids),
        experts,
        layer_ids=np.array(layers),
        families=("code", "math"),
        family=rng.integers(0, 2, 30, dtype=np.uint8),
    )


@dataclass(frozen=True)
class Case:
    """A genuine certificate and the trace it speaks of."""

    trace: Trace
    document: Document


def proved(trace: Trace, problem: Problem) -> Case:
    parts = [
        Exact(Blocks()).solve(problem.layer(index), stop=FREELY, seed=0) for index in range(trace.n_layers)
    ]
    certificate = Result.join(parts).certificate
    assert certificate is not None
    return Case(trace, json.loads(json.dumps(certificate.to_dict())))


def with_rows() -> Case:
    """Proved with triples and discounts: the search is given no patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(set_partition, "PATIENCE", 0)
        patch.setattr(set_partition, "SLICE", 1)
        patch.setattr(set_partition, "FIRST_CANDIDATES", 5)
        for seed in range(50):
            trace = trace_of(seed, experts=8)
            case = proved(trace, Problem.from_trace(trace, Cluster(1, 3, 3)))
            if case.document["layers"][0]["numbers"]["triples"]:
                return case
    raise AssertionError("no relaxation needed rows")


def with_search() -> Case:
    """Proved by a search that goes beyond the relaxation."""
    for seed in range(50):
        trace = trace_of(seed, experts=8)
        case = proved(trace, Problem.from_trace(trace, Cluster(1, 3, 3)))
        if case.document["layers"][0]["numbers"]["searched"] >= 0:
            return case
    raise AssertionError("every relaxation was exact")


def with_gap() -> Case:
    """A bound below the cost: the clock ended before the search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(set_partition, "SLICE", 1)
        for seed in range(50):
            trace = trace_of(seed, experts=8)
            problem = Problem.from_trace(trace, Cluster(1, 3, 3))
            try:
                interrupt_when(lambda: True)
                start = problem.partition(np.arange(8) // 3)
                certificate = Exact(Blocks()).solve(problem, stop=FREELY, seed=0, start=start).certificate
            finally:
                interrupt_when(bool)
            if certificate is not None and not certificate.proofs[0].optimal:
                return Case(trace, json.loads(json.dumps(certificate.to_dict())))
    raise AssertionError("every bound was the cost")


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    plain, two = trace_of(0), trace_of(1, layers=(3, 7))
    return {
        "full": proved(plain, Problem.from_trace(plain, Cluster(1, 2, 3))),
        "free slots": proved(plain, Problem.from_trace(plain, Cluster(1, 3, 3))),
        "cut": proved(plain, Problem.from_trace(plain, Cluster(1, 3, 2), objective="cut")),
        "weights": proved(
            plain, Problem.from_trace(plain, Cluster(1, 2, 3), family_weights={"code": 2, "math": 1})
        ),
        "cap": proved(plain, Problem.from_trace(plain, Cluster(1, 3, 3), load_tolerance="0.4")),
        "nodes": proved(plain, Problem.from_trace(plain, Cluster(3, 1, 2, gpu_cost=2, node_cost=3))),
        "layers": proved(two, Problem.from_trace(two, Cluster(1, 3, 2))),
        "rows": with_rows(),
        "search": with_search(),
        "gap": with_gap(),
    }


def judge(document: Document, trace: Trace) -> Verdict:
    """The verdict; a document that is no certificate is a mistake, and as good as refused."""
    try:
        return verify(document, trace)
    except ValueError as error:
        return Verdict(False, str(error))


def sealed(document: Document) -> Document:
    return document | {"seal": seal(document)}


def changed(document: Document, path: Path, value: Any) -> Document:
    """A re-sealed copy with one value changed."""
    altered = copy.deepcopy(document)
    inner: Any = altered
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return sealed(altered)


def numbers(document: Any, path: Path = ()) -> Iterator[tuple[Path, int]]:
    """Every whole number in a document, with its path."""
    if isinstance(document, int) and not isinstance(document, bool):
        yield path, document
    elif isinstance(document, dict | list):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from numbers(value, (*path, key))


def is_true(document: Document, trace: Trace) -> bool:
    """Whether all that a certificate claims holds, by brute force."""
    certificate = Certificate.from_dict(document)
    problem = Problem.from_fields(dict(certificate.fields), problem_workload(certificate, trace))
    for index, proof in enumerate(certificate.proofs):
        least, _ = brute_force(problem.layer(index))
        if least is not None and proof.bound > least:
            return False
        if proof.cost is not None:
            if certificate.placement is None or proof.optimal != (proof.bound == proof.cost):
                return False
            if problem.layer(index).violation(certificate.placement.layer(index)):
                return False
            if problem.layer(index).cost(certificate.placement.layer(index)) != proof.cost:
                return False
    return True


def problem_workload(certificate: Certificate, trace: Trace) -> Any:
    from moeopt.workload import Workload

    return Workload.from_trace(trace.layers(certificate.layer_ids))


NAMES = ["full", "free slots", "cut", "weights", "cap", "nodes", "layers", "rows", "search", "gap"]


@pytest.mark.parametrize("name", NAMES)
def test_genuine_certificates_are_accepted(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    verdict = verify(case.document, case.trace)
    assert verdict.accepted, verdict.reason
    assert verify(Certificate.from_dict(case.document), case.trace).accepted
    assert is_true(case.document, case.trace)
    claim = "bound" if name == "gap" else "optimal"
    assert verdict.layers == tuple((layer["layer"], claim, "") for layer in case.document["layers"])


@pytest.mark.parametrize("name", NAMES)
def test_no_number_can_be_changed_under_a_stale_seal(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    for path, value in numbers({key: part for key, part in case.document.items() if key != "seal"}):
        altered = changed(case.document, path, value + 1) | {"seal": case.document["seal"]}
        assert "the seal does not fit" in judge(altered, case.trace).reason, path
    assert not judge({key: part for key, part in case.document.items() if key != "seal"}, case.trace).accepted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [1, -1, 7, -1000, 2**40, 2**70])
def test_no_number_can_be_changed_under_a_fresh_seal(cases: dict[str, Case], name: str, step: int) -> None:
    case = cases[name]
    seen = 0
    for path, value in numbers({key: part for key, part in case.document.items() if key != "seal"}):
        altered = changed(case.document, path, value + step)
        verdict = judge(altered, case.trace)
        seen += 1
        if path[0] == "problem" or "triples" in path:
            assert not verdict.accepted or is_true(altered, case.trace), path
        else:
            assert not verdict.accepted, (path, value, step)
    assert seen > 15


@pytest.mark.parametrize("name", NAMES)
def test_another_triple_is_refused_or_proves_the_same(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    refused = total = 0
    for path, value in numbers(case.document):
        if "triples" in path:
            for step in (-2, -1, 1, 2):
                altered = changed(case.document, path, value + step)
                verdict = judge(altered, case.trace)
                assert not verdict.accepted or is_true(altered, case.trace)
                refused += not verdict.accepted
                total += 1
    assert 2 * refused >= total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [float, str, bool, lambda value: None, lambda value: [value]])
def test_only_whole_numbers_are_numbers(cases: dict[str, Case], name: str, kind: Any) -> None:
    case = cases[name]
    for path, value in numbers({key: part for key, part in case.document.items() if key != "seal"}):
        if path[0] == "problem" and "family_weights" in path and kind is float:
            continue  # weights may be any number
        assert not judge(changed(case.document, path, kind(value)), case.trace).accepted, path


@pytest.mark.parametrize("name", NAMES)
def test_nothing_may_be_missing(cases: dict[str, Case], name: str) -> None:
    case = cases[name]

    def paths(inner: Any, path: Path = ()) -> Iterator[Path]:
        if isinstance(inner, dict):
            for key, value in inner.items():
                yield (*path, key)
                yield from paths(value, (*path, key))
        elif isinstance(inner, list):
            for index, value in enumerate(inner):
                yield from paths(value, (*path, index))

    for path in paths({key: part for key, part in case.document.items() if key != "seal"}):
        altered = copy.deepcopy(case.document)
        inner: Any = altered
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]
        verdict = judge(sealed(altered), case.trace)
        if "family_weights" in path[:-1]:
            assert not verdict.accepted or is_true(altered, case.trace)
        else:
            assert not verdict.accepted, path


def test_numbers_that_nobody_asked_for_are_refused(cases: dict[str, Case]) -> None:
    case = cases["full"]
    altered = changed(case.document, ("layers", 0, "numbers", "note"), 1)
    assert "not well formed" in judge(altered, case.trace).reason


@pytest.mark.parametrize("name", NAMES)
def test_a_certificate_says_nothing_of_another_trace(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    trace = case.trace
    one_less = trace.take(np.arange(trace.n_tokens - 1))
    other_family = trace.take(np.arange(trace.n_tokens))
    family = trace.family.copy()
    family[0] = 1 - family[0]
    object.__setattr__(other_family, "family", family)
    rotated = Trace(
        (trace.experts + 1) % trace.n_experts,
        trace.n_experts,
        layer_ids=trace.layer_ids,
        families=trace.families,
        family=trace.family,
    )
    for other in (one_less, other_family, rotated):
        verdict = judge(case.document, other)
        assert not verdict.accepted
        assert "digests differ" in verdict.reason or "cannot be rebuilt" in verdict.reason
    elsewhere = Trace(
        trace.experts,
        trace.n_experts,
        layer_ids=trace.layer_ids + 1,
        families=trace.families,
        family=trace.family,
    )
    assert "cannot be rebuilt" in judge(case.document, elsewhere).reason


def consistent(document: Document, **changes: Any) -> Document:
    """A document whose first proof has these numbers, with dual and bound recomputed to fit them."""
    altered = copy.deepcopy(document)
    layer = altered["layers"][0]
    found = layer["numbers"] | {key: value for key, value in changes.items() if key in layer["numbers"]}
    cluster = altered["problem"]["cluster"]
    gpus = cluster["nodes"] * cluster["gpus_per_node"]
    found["dual"] = sum(found["prices"]) + gpus * found["group_price"] - sum(found["discounts"])
    layer["numbers"] = found
    offset = changes["offset"]
    layer["bound"] = offset - (-(found["dual"] + found["searched"] + 1) // found["scale"])
    if changes.get("placement", True) is None:
        altered["placement"], layer["cost"], layer["optimal"] = None, None, False
    else:
        layer["optimal"] = layer["bound"] == layer["cost"]
    return sealed(altered)


def offset_of(case: Case) -> int:
    """Of a fan-out certificate on one node: minus the weight of all tokens."""
    certificate = Certificate.from_dict(case.document)
    return -Problem.from_fields(
        dict(certificate.fields), problem_workload(certificate, case.trace)
    ).total_weight


@pytest.mark.parametrize("name", ["full", "free slots", "weights", "cap", "rows", "search", "gap"])
class TestFalseClaimsWithConsistentNumbers:
    """Every sum fits and the seal is fresh; the claim alone is false."""

    def test_a_higher_price_makes_a_reduced_cost_negative(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        found = case.document["layers"][0]["numbers"]
        for expert in range(len(found["prices"])):
            prices = list(found["prices"])
            prices[expert] += 1000 * found["scale"]
            altered = consistent(case.document, prices=prices, offset=offset_of(case), placement=None)
            assert "has reduced cost -" in judge(altered, case.trace).reason

    def test_a_lower_price_proves_less_and_must_say_so(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        found = case.document["layers"][0]["numbers"]
        lowered = [found["prices"][0] - found["scale"], *found["prices"][1:]]
        altered = changed(case.document, ("layers", 0, "numbers", "prices"), lowered)
        assert "the prices sum to" in judge(altered, case.trace).reason
        weaker = consistent(case.document, prices=lowered, searched=-1, offset=offset_of(case))
        assert not weaker["layers"][0]["optimal"]
        assert judge(weaker, case.trace).accepted

    def test_searching_less_while_claiming_as_much(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        searched = case.document["layers"][0]["numbers"]["searched"]
        for less in {searched - 1, searched // 2, -1} - {searched, -2}:
            altered = changed(case.document, ("layers", 0, "numbers", "searched"), less)
            assert "the numbers prove" in judge(altered, case.trace).reason

    def test_claiming_to_have_searched_more(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        layer = case.document["layers"][0]
        certificate = Certificate.from_dict(case.document)
        problem = Problem.from_fields(dict(certificate.fields), problem_workload(certificate, case.trace))
        least, _ = brute_force(problem)
        assert least is not None
        offset, found = offset_of(case), layer["numbers"]
        for above in (1, 2, 50):
            searched = found["scale"] * (least + above - offset - 1) - found["dual"]
            altered = consistent(case.document, searched=searched, offset=offset, placement=None)
            assert altered["layers"][0]["bound"] == least + above
            assert "a placement cheaper than the bound" in judge(altered, case.trace).reason

    def test_a_negative_discount(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        found = case.document["layers"][0]["numbers"]
        altered = consistent(
            case.document,
            triples=[*found["triples"], [0, 1, 2]],
            discounts=[*found["discounts"], -found["scale"]],
            offset=offset_of(case),
            placement=None,
        )
        assert "discounts must not be negative" in judge(altered, case.trace).reason

    @pytest.mark.parametrize(
        "triple", [[2, 1, 0], [1, 1, 2], [0, 1], [0, 1, 2, 3], [-1, 0, 1], [0, 1, 99], [0, 1, 2.0], "012", 7]
    )
    def test_a_triple_that_is_none(self, cases: dict[str, Case], name: str, triple: Any) -> None:
        case = cases[name]
        found = case.document["layers"][0]["numbers"]
        altered = consistent(
            case.document,
            triples=[*found["triples"], triple],
            discounts=[*found["discounts"], 1],
            offset=offset_of(case),
            placement=None,
        )
        assert "not well formed" in judge(altered, case.trace).reason

    def test_a_dearer_gpu(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        found = case.document["layers"][0]["numbers"]
        altered = consistent(
            case.document, group_price=abs(found["group_price"]) + 5, offset=offset_of(case), placement=None
        )
        assert not judge(altered, case.trace).accepted

    @pytest.mark.parametrize("scale", [0, -1, -4, 3, 2**61, 2**62, 2**70])
    def test_another_scale(self, cases: dict[str, Case], name: str, scale: int) -> None:
        case = cases[name]
        assert not judge(
            changed(case.document, ("layers", 0, "numbers", "scale"), scale), case.trace
        ).accepted


@pytest.mark.parametrize("value", [2**62, 2**63, 2**64, 10**30, -(2**63), -(10**30)])
def test_prices_beyond_64_bits_do_not_wrap_around(cases: dict[str, Case], value: int) -> None:
    case = cases["full"]
    found = case.document["layers"][0]["numbers"]
    prices = [value, -value, *found["prices"][2:]]
    prices[2] += found["prices"][0] + found["prices"][1]  # the sum stays
    altered = consistent(case.document, prices=prices, offset=offset_of(case))
    assert altered["layers"][0]["optimal"]
    assert not judge(altered, case.trace).accepted


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("problem", "cluster", "slots"), 10**30),
        (("problem", "cluster", "slots"), [3, 10**30]),
        (("problem", "cluster", "nodes"), 10**12),
        (("problem", "cluster", "gpu_cost"), 10**30),
        (("problem", "family_weights"), {"code": 10**400}),
        (("problem", "family_weights"), {"code": "1"}),
        (("problem", "load_tolerance"), "1e999999999"),
        (("problem", "load_tolerance"), "1e400"),
        (("problem", "load_tolerance"), "-1"),
        (("problem", "load_tolerance"), "0"),
        (("problem", "replicas"), 10**30),
        (("problem", "objective"), "cut"),
        (("layers", 0, "digest"), ""),
        (("layers", 0, "kind"), "counting"),
        (("layers", 0, "kind"), "pairs"),
        (("layers", 0, "kind"), "assignment"),
        (("layers", 0, "kind"), "magic"),
        (("layers", 0, "bound"), 10**30),
        (("layers", 0, "optimal"), False),
        (("layers", 0, "cost"), None),
        (("placement",), None),
        (("layers",), []),
    ],
)
def test_absurd_values_are_refused_and_break_nothing(cases: dict[str, Case], path: Path, value: Any) -> None:
    case = cases["full"]
    assert not judge(changed(case.document, path, value), case.trace).accepted


def test_a_placement_that_is_not_admissible_is_refused_at_its_true_cost(cases: dict[str, Case]) -> None:
    case = cases["full"]
    hosts = [[list(range(6)), []]]
    altered = copy.deepcopy(case.document)
    altered["placement"] |= {"hosts": hosts, "primary": [[0] * 6]}
    altered["layers"][0] |= {"cost": 0, "optimal": False}
    assert "GPU 0 holds 6 experts, slots are 3" in judge(sealed(altered), case.trace).reason


def test_every_layer_is_proved_once_and_in_order(cases: dict[str, Case]) -> None:
    case = cases["layers"]
    first, second = case.document["layers"]
    for layers in ([second, first], [first, first], [first, second, second]):
        assert not judge(changed(case.document, ("layers",), layers), case.trace).accepted
    alone = case.document | {"layers": [first]}
    assert "the placement is of layers [3, 7]" in judge(sealed(alone), case.trace).reason


def test_the_layer_that_fails_is_named(cases: dict[str, Case]) -> None:
    case = cases["layers"]
    verdict = judge(changed(case.document, ("layers", 1, "cost"), 1), case.trace)
    assert verdict.reason.startswith("layer 7: the placement costs")
    assert [bool(reason) for _, _, reason in verdict.layers] == [False, True]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_whatever_is_accepted_is_true(cases: dict[str, Case], data: st.DataObject, name: str) -> None:
    case = cases[name]
    altered = copy.deepcopy(case.document)
    for _ in range(data.draw(st.integers(1, 3))):
        paths = [path for path, _ in numbers(altered) if path[0] != "version"]
        path = data.draw(st.sampled_from(paths))
        inner: Any = altered
        for step in path[:-1]:
            inner = inner[step]
        value = inner[path[-1]]
        inner[path[-1]] = data.draw(
            st.sampled_from([value + 1, value - 1, 0, -value, 2 * value, value + 10**6])
        )
    altered = sealed(altered)
    if altered != case.document and judge(altered, case.trace).accepted:
        assert is_true(altered, case.trace)


def test_a_tolerance_is_read_as_the_fraction_it_was(cases: dict[str, Case]) -> None:
    assert cases["cap"].document["problem"]["load_tolerance"] == str(Fraction(2, 5))
    loosened = changed(cases["cap"].document, ("problem", "load_tolerance"), "3")
    verdict = judge(loosened, cases["cap"].trace)
    assert not verdict.accepted or is_true(loosened, cases["cap"].trace)
