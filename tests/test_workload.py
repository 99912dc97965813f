"""A workload is what a count over the tokens says, in one canonical form, and it adds."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.expert_sets import ExpertSets
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.strategies import traces


def counted(trace: Trace, layer: int) -> Counter[tuple[tuple[int, ...], int]]:
    """Tokens by (sorted set, family)."""
    rows = np.sort(trace.experts[:, layer], axis=1).tolist()
    return Counter((tuple(row), family) for row, family in zip(rows, trace.family.tolist(), strict=True))


@settings(max_examples=50, deadline=None)
@given(trace=traces())
def test_counts_loads_and_affinities_are_those_of_the_tokens(trace: Trace) -> None:
    workload = Workload.from_trace(trace)
    assert workload.layer_ids == tuple(trace.layer_ids.tolist())
    assert workload.tokens.tolist() == [int((trace.family == f).sum()) for f in range(len(trace.families))]
    for layer, sets in enumerate(workload.layers):
        wanted = counted(trace, layer)
        found = {
            (tuple(members), family): count
            for members, row in zip(sets.members.tolist(), sets.counts.tolist(), strict=True)
            for family, count in enumerate(row)
            if count
        }
        assert found == wanted
        assert sets.members.tolist() == sorted(sets.members.tolist())
        load = [0] * trace.n_experts
        affinity = np.zeros((trace.n_experts, trace.n_experts), int)
        for (members, family), count in wanted.items():
            for expert in members:
                load[expert] += count
            for pair in permutations(members, 2):
                affinity[pair] += count * (family + 1)
        assert sets.load.tolist() == load
        weights = sets.counts @ np.arange(1, len(trace.families) + 1)
        assert (sets.affinity(weights) == affinity).all()


@pytest.mark.parametrize("n_experts", [2, 16, 257, 65_536])
def test_the_canonical_form_is_lexicographic_for_any_number_of_bits(n_experts: int) -> None:
    rng = np.random.default_rng(0)
    k = min(6, n_experts)
    rows = np.array([rng.choice(n_experts, k, replace=False) for _ in range(200)])
    sets = ExpertSets.of(rows, np.ones((200, 1), np.int64), n_experts=n_experts)
    assert sets.members.tolist() == [
        list(row) for row in sorted({tuple(sorted(row)) for row in rows.tolist()})
    ]
    assert sets.counts.sum() == 200


@settings(max_examples=30, deadline=None)
@given(trace=traces(max_families=2))
def test_order_of_tokens_and_of_experts_in_a_token_do_not_matter(trace: Trace) -> None:
    shuffled = trace.take(np.random.default_rng(0).permutation(trace.n_tokens))
    turned = Trace(
        shuffled.experts[:, :, ::-1],
        trace.n_experts,
        layer_ids=trace.layer_ids,
        families=trace.families,
        family=shuffled.family,
    )
    assert Workload.from_trace(turned).digest == Workload.from_trace(trace).digest


@settings(max_examples=30, deadline=None)
@given(trace=traces())
def test_two_halves_add_to_the_whole(trace: Trace) -> None:
    if trace.n_tokens < 2:
        return
    half = np.arange(trace.n_tokens) < trace.n_tokens // 2
    parts = [Workload.from_trace(trace.take(mask)) for mask in (half, ~half)]
    assert (parts[0] + parts[1]).digest == Workload.from_trace(trace).digest
    assert (parts[1] + parts[0]).digest == Workload.from_trace(trace).digest


def test_families_are_united_by_name() -> None:
    ids = np.array([[[0, 1]]])
    code, both = Trace(ids, 3, families=("code",)), Trace(ids, 3, families=("math", "code"))
    merged = Workload.from_trace(code) + Workload.from_trace(both)
    assert merged.families == ("code", "math")
    assert merged.tokens.tolist() == [1, 1]
    assert merged.layers[0].counts.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Trace(np.array([[[0, 1]]]), 4), "differ in n_experts: 3 and 4"),
        (Trace(np.array([[[0]]]), 3), "differ in top_k: 2 and 1"),
        (Trace(np.array([[[0, 1]]]), 3, layer_ids=np.array([9])), r"differ in layer_ids: \(0,\) and \(9,\)"),
    ],
)
def test_workloads_of_different_models_do_not_add(other: Trace, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Workload.from_trace(Trace(np.array([[[0, 1]]]), 3)) + Workload.from_trace(other)


@settings(max_examples=30, deadline=None)
@given(trace=traces())
def test_a_workload_survives_its_document(trace: Trace) -> None:
    workload = Workload.from_trace(trace)
    again = Workload.from_dict(workload.to_dict())
    assert again.digest == workload.digest
    assert (again.model, again.layer_ids, again.families) == (
        workload.model,
        workload.layer_ids,
        workload.families,
    )


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("n_experts",), "3", "field 'n_experts' must be int"),
        (("layers", 0, "members"), [[0, 0]], "members must be distinct ids below 3"),
        (("layers", 0, "members"), [[0, 3]], "members must be distinct ids below 3"),
        (("layers", 0, "members"), [[0, 0.5]], "members must hold whole numbers"),
        (("layers", 0, "members"), [[0, 2**70]], "members must hold whole numbers"),
        (("layers", 0, "members"), [[0, 1], [2]], "members must be"),
        (("layers", 0, "counts"), [[2], [3]], r"members and counts do not fit: \(1, 2\), \(2, 1\)"),
        (("layers", 0, "counts"), [[-1]], "counts must be non-negative"),
        (("layers", 0, "counts"), [[2]], r"sum to the tokens \[1\]"),
        (("layers", 0), 7, "a layer must be an object"),
        (("layer_ids",), [], "0 layer ids for 1 layers"),
        (("layer_ids",), ["a"], "layer_ids must be"),
        (("families",), [1], "families must be"),
        (("tokens",), [1.5], "tokens must hold whole numbers"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused(path: tuple[Any, ...], value: Any, words: str) -> None:
    document = Workload.from_trace(Trace(np.array([[[0, 1]]]), 3)).to_dict()
    inner: Any = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=words):
        Workload.from_dict(document)


def test_documents_of_layers_that_do_not_match_are_refused() -> None:
    ids = np.array([[[0, 1], [1, 2]]])
    document = Workload.from_trace(Trace(ids, 3, layer_ids=np.array([1, 2]))).to_dict()
    with pytest.raises(ValueError, match=r"layer_ids must be ascending whole numbers, found \[2, 2\]"):
        Workload.from_dict(document | {"layer_ids": [2, 2]})
    narrow = {"members": [[0]], "counts": [[1]]}
    with pytest.raises(ValueError, match=r"layers must have one top-k, found \[1, 2\]"):
        Workload.from_dict(document | {"layers": [document["layers"][0], narrow]})


def test_a_digest_changes_with_every_part_of_the_content() -> None:
    base = Trace(np.array([[[0, 1]], [[1, 2]]]), 3)
    digests = {
        Workload.from_trace(trace).digest
        for trace in (
            base,
            Trace(base.experts, 4),
            Trace(base.experts[:1], 3),
            Trace(base.experts, 3, layer_ids=np.array([1])),
            Trace(base.experts, 3, families=("other",)),
            Trace(np.array([[[0, 1]], [[0, 2]]]), 3),
        )
    }
    assert len(digests) == 6
