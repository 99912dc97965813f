"""Router logits: the k largest are the choice, of equal ones the lower id, and padding is no token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.readers.router_outputs import RouterOutputs
from moeopt.supplement import Supplement
from moeopt.trace import Trace

# Two layers, a batch of two sequences of three places, four experts.
LOGITS = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
MASK = np.array([[1, 1, 0], [0, 1, 1]])  # padded on the right and on the left
SAID = Supplement(top_k=2)


def read(folder: Path, supplement: Supplement = SAID, **arrays: Any) -> Trace:
    path = folder / "outputs.npz"
    np.savez(path, **arrays)
    reader = RouterOutputs()
    assert reader.accepts(path, path.read_bytes()[:64])
    return reader.read(path, supplement)


def test_padding_on_either_side_is_no_token(tmp_path: Path) -> None:
    trace = read(tmp_path, router_logits=LOGITS, attention_mask=MASK)
    assert trace.request.tolist() == [0, 0, 1, 1]
    assert trace.position.tolist() == [0, 1, 0, 1]
    real = LOGITS[:, [0, 1, 4, 5]].transpose(1, 0, 2)
    assert np.array_equal(trace.experts, np.argsort(-real, axis=2)[:, :, :2])
    assert (trace.n_experts, trace.layer_ids.tolist()) == (4, [0, 1])


def test_without_a_mask_there_is_one_request_without_padding(tmp_path: Path) -> None:
    trace = read(tmp_path, router_logits=LOGITS)
    assert trace.n_tokens == 6
    assert not trace.request.any()
    assert trace.position.tolist() == list(range(6))
    assert not trace.phase.any()


def test_an_array_a_layer_is_named_by_the_layer(tmp_path: Path) -> None:
    layers = {f"router_logits_{layer}": LOGITS[index] for index, layer in enumerate((3, 11))}
    trace = read(tmp_path, **dict(reversed(layers.items())))
    assert trace.layer_ids.tolist() == [3, 11]
    assert np.array_equal(trace.experts, read(tmp_path, router_logits=LOGITS).experts)
    assert read(tmp_path, Supplement(top_k=2, layer_ids=(4, 5)), **layers).layer_ids.tolist() == [4, 5]
    with pytest.raises(ValueError, match="3 layer_ids for the 2 layers recorded"):
        read(tmp_path, Supplement(top_k=2, layer_ids=(4, 5, 6)), **layers)


def test_requests_families_and_prompts_are_of_the_sequences(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        router_logits=LOGITS,
        attention_mask=MASK,
        request=np.array([9, 4]),
        family=np.array(["math", "code"]),
        prompt_tokens=np.array([2, 1]),
    )
    assert trace.request.tolist() == [9, 9, 4, 4]
    assert (trace.families, trace.family.tolist()) == (("math", "code"), [0, 0, 1, 1])
    assert trace.phase.tolist() == [0, 0, 0, 1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), experts=st.integers(1, 9), levels=st.integers(1, 4), data=st.data())
def test_of_equal_logits_the_lower_id_is_chosen(
    seed: int, experts: int, levels: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    k = data.draw(st.integers(1, experts))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    logits = np.random.default_rng(seed).integers(-levels, levels, (1, 5, experts)).astype(dtype)
    trace = read(tmp_path_factory.getbasetemp(), Supplement(top_k=k), router_logits=logits)
    for token in range(5):
        ranked = sorted(range(experts), key=lambda expert: (-logits[0, token, expert], expert))
        assert trace.experts[token, 0].tolist() == ranked[:k]


def test_softmax_changes_nothing(tmp_path: Path) -> None:
    weights = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=2, keepdims=True)
    first, second = (read(tmp_path, router_logits=one) for one in (LOGITS, weights))
    assert np.array_equal(first.experts, second.experts)


def bad(value: float) -> Any:
    logits = LOGITS.copy()
    logits[1, 3, 2] = value
    return logits


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"router_logits": bad(np.nan)}, "layer 1, token 3, expert 2: a logit must be finite, found nan"),
        ({"router_logits": bad(np.inf)}, "layer 1, token 3, expert 2: a logit must be finite, found inf"),
        ({"router_logits": bad(-np.inf)}, "a logit must be finite, found -inf"),
        ({"router_logits": LOGITS[0]}, r"must have axes \[layers, tokens, E\], found shape \(6, 4\)"),
        ({"router_logits": LOGITS[:0]}, "empty trace: router_logits has no layers"),
        (
            {"router_logits": LOGITS[:, :0]},
            r"layer 0 in order must hold floats .* found float32 of shape \(0, 4\)",
        ),
        ({"router_logits": LOGITS.astype(int)}, "layer 0 in order must hold floats .* found int64"),
        ({"router_logits": LOGITS.astype(object)}, "not pickled"),
        ({"router_logits": LOGITS, "router_logits_3": LOGITS[0]}, "array 'router_logits_3' is none of"),
        ({"router_logits": LOGITS, "atention_mask": MASK}, "array 'atention_mask' is none of router_logits"),
        (
            {"router_logits_0": LOGITS[0], "router_logits_1": LOGITS[0, :, :3]},
            r"all layers must be of shape \(6, 4\) as the first, layer 1 in order is \(6, 3\)",
        ),
        (
            {"router_logits": LOGITS, "attention_mask": MASK[:, :2]},
            r"is of \(2, 2\) = 4 tokens, logits are of 6",
        ),
        (
            {"router_logits": LOGITS, "attention_mask": MASK.reshape(-1)},
            r"must be integers \[batch, sequence\]",
        ),
        (
            {"router_logits": LOGITS, "attention_mask": MASK * 2},
            r"attention_mask must hold 0 and 1, found 0\.\.2",
        ),
        ({"router_logits": LOGITS, "attention_mask": MASK * 0}, "marks every token as padding"),
        (
            {"router_logits": LOGITS, "request": np.array([0, 1])},
            r"request must be of 1 sequences, found shape",
        ),
        (
            {"router_logits": LOGITS, "attention_mask": MASK, "request": np.array([1, 1])},
            r"request must hold distinct numbers, found \[1, 1\]",
        ),
        ({"router_logits": LOGITS, "family": np.array([3])}, "family must be text, found int64"),
        (
            {"router_logits": LOGITS, "prompt_tokens": np.array([0.5])},
            "array 'prompt_tokens' must be integers",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **arrays)


def test_a_logit_of_padding_may_be_anything(tmp_path: Path) -> None:
    logits = LOGITS.copy()
    logits[:, 2] = np.nan
    assert read(tmp_path, router_logits=logits, attention_mask=MASK).n_tokens == 4


@pytest.mark.parametrize(
    ("supplement", "message"),
    [
        (Supplement(), r"give top_k \(--top-k\)"),
        (Supplement(top_k=5), "top_k 5 exceeds the 4 experts of the logits"),
        (Supplement(n_experts=8, top_k=2), "n_experts is given as 8, logits are of 4"),
    ],
)
def test_what_the_user_says_must_fit(tmp_path: Path, supplement: Supplement, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, supplement, router_logits=LOGITS)


def test_sizes_past_the_limit_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "outputs.npz"
    np.savez(path, router_logits=LOGITS)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"must unpack to at most 100 bytes, found \d+"):
        RouterOutputs(limit=100).read(path, SAID)
    path.write_bytes(content[:-30])
    assert not RouterOutputs().accepts(path, content[:64])
    assert not RouterOutputs().accepts(path, b"{}")
    for place in range(0, len(content), 13):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        if not RouterOutputs().accepts(path, content[:64]):
            continue
        try:
            found = RouterOutputs().read(path, SAID)
        except ValueError:
            continue
        assert np.array_equal(found.experts, read(tmp_path, router_logits=LOGITS).experts)
