"""Routed experts of vLLM and SGLang: all hidden layers, dense ones zero-filled, the last token never there."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.readers.joined_files import Joined
from moeopt.readers.routed_answers import RoutedAnswers
from moeopt.readers.routed_experts import RoutedExperts
from moeopt.recording import read_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace

# Two of three hidden layers are MoE layers; 4 tokens of which the last sampled one is missing.
ROWS = np.array(
    [[[0, 0], [1, 2], [3, 0]], [[0, 0], [0, 3], [1, 2]], [[0, 0], [2, 1], [0, 1]]], np.uint8
)  # [tokens, hidden layers, k]
SAID = Supplement(n_experts=4, layer_ids=(1, 2), top_k=2, hidden_layers=3)


def npy(rows: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, rows)
    return content.getvalue()


def coded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def vllm(*rows: NDArray[Any], prompt: int = 2, generated: int | None = None, **more: Any) -> dict[str, Any]:
    """A completion of vLLM, a choice for each of `rows`."""
    made = sum(len(one) - prompt + 1 for one in rows) if generated is None else generated
    return {
        "id": "cmpl-1",
        "choices": [
            {"index": i, "text": "", "routed_experts": coded(npy(one))} for i, one in enumerate(rows)
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made},
        **more,
    }


def sglang(rows: NDArray[Any], *, prompt: int = 2, generated: int = 2) -> dict[str, Any]:
    return {
        "text": "",
        "meta_info": {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "routed_experts": coded(rows.astype("<i4").tobytes()),
        },
    }


def saved(folder: Path, content: bytes | str | dict[str, Any] | list[Any]) -> Path:
    path = folder / "answers"
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, supplement: Supplement = SAID) -> Trace:
    """By whichever of the two readers takes it."""
    head = path.read_bytes()[:64]
    (reader,) = (one for one in (RoutedExperts(), RoutedAnswers()) if one.accepts(path, head))
    return reader.read(path, supplement)


def test_an_array_of_vllm_is_one_request_of_its_moe_layers(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, npy(ROWS)))
    assert np.array_equal(trace.experts, ROWS[:, 1:])
    assert (trace.layer_ids.tolist(), trace.n_experts, trace.families) == ([1, 2], 4, ("all",))
    assert trace.position.tolist() == [0, 1, 2]
    assert not trace.request.any()
    assert not trace.phase.any(), "nobody said where the prompt ends"


def test_arrays_of_any_order_in_memory_are_the_same(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, npy(np.asfortranarray(ROWS))))
    assert np.array_equal(trace.experts, ROWS[:, 1:])


def test_a_manifest_joins_the_arrays_of_many_requests_and_says_where_prompts_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moeopt.recording._readers", lambda: iter([Joined(), RoutedExperts()]))
    np.save(tmp_path / "first.npy", ROWS)
    np.save(tmp_path / "second.npy", ROWS[:2])
    path = tmp_path / "manifest.csv"
    path.write_text("file,family,prompt_tokens\nsecond.npy,math,2\nfirst.npy,code,1\n")
    trace = read_trace(path, n_experts=4, layer_ids=[1, 2])
    assert trace.request.tolist() == [0, 0, 1, 1, 1]
    assert trace.phase.tolist() == [0, 0, 0, 1, 1]
    assert (trace.families, trace.family.tolist()) == (("math", "code"), [0, 0, 1, 1, 1])
    addition = tmp_path / "addition.csv"
    addition.write_text("request,family,prompt_tokens\n0,law,2\n")
    alone = read_trace(tmp_path / "first.npy", n_experts=4, layer_ids=[1, 2], manifest=addition)
    assert (alone.families, alone.phase.tolist()) == (("law",), [0, 0, 1])


def test_a_dense_layer_is_never_expert_0(tmp_path: Path) -> None:
    path = saved(tmp_path, npy(ROWS))
    with pytest.raises(ValueError, match=r"a row for each of the 3 hidden layers, .*--moe-layers"):
        read(path, Supplement(n_experts=4))
    with pytest.raises(ValueError, match="layer 0 holds expert 0 2 times in every token: it is dense"):
        read(path, Supplement(n_experts=4, layer_ids=(0, 1, 2)))
    with pytest.raises(ValueError, match="layer 3 is not among the 3 rows"):
        read(path, Supplement(n_experts=4, layer_ids=(1, 3)))


def test_with_one_expert_a_token_a_layer_of_expert_0_alone_is_taken_at_its_word(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, npy(ROWS[:, :, :1])), Supplement(n_experts=4, layer_ids=(0,)))
    assert not trace.experts.any()


@pytest.mark.parametrize(
    ("supplement", "message"),
    [
        (Supplement(layer_ids=(1, 2)), r"ids reach 3: give n_experts \(moeopt convert --experts\)"),
        (Supplement(n_experts=3, layer_ids=(1, 2)), "n_experts is 3, found expert 3"),
        (Supplement(n_experts=300, layer_ids=(1, 2)), "n_experts is 300, ids of 8 bits"),
        (Supplement(n_experts=4, layer_ids=(1, 2), top_k=3), "top_k is given as 3, the recording says 2"),
        (Supplement(4, (1, 2), hidden_layers=5), "hidden_layers is given as 5, the recording has 3 rows"),
    ],
)
def test_what_the_user_says_must_fit(tmp_path: Path, supplement: Supplement, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(saved(tmp_path, npy(ROWS)), supplement)


@pytest.mark.parametrize(
    "rows", [ROWS[0], ROWS.astype(np.int64), ROWS.astype(np.float32), ROWS.astype(object), ROWS[None]]
)
def test_other_arrays_are_left_to_other_readers(tmp_path: Path, rows: NDArray[Any]) -> None:
    path = saved(tmp_path, npy(rows))
    assert not RoutedExperts().accepts(path, path.read_bytes()[:64])


def test_more_than_256_experts_come_with_16_bits(tmp_path: Path) -> None:
    rows = ROWS.astype(np.uint16)
    rows[0, 1, 0] = 300
    trace = read(saved(tmp_path, npy(rows)), Supplement(n_experts=384, layer_ids=(1,)))
    assert trace.experts[0, 0].tolist() == [300, 2]


def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_allocation(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 3, 2), }\n"
    path = saved(tmp_path, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="needs 6000000000000 bytes, found 0"):
        read(path)


def test_files_past_the_limit_and_cut_files_are_refused(tmp_path: Path) -> None:
    content = npy(ROWS)
    path = saved(tmp_path, content)
    with pytest.raises(ValueError, match=f"may have {len(content) - 1} bytes, found {len(content)}"):
        RoutedExperts(limit=len(content) - 1).read(path, SAID)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        RoutedExperts().accepts(path, content[: min(length, 64)])
        with pytest.raises(ValueError, match="answers"):
            RoutedExperts().read(path, SAID)
    text = json.dumps(vllm(ROWS))
    path.write_text(text)
    with pytest.raises(ValueError, match=f"may have 10 bytes, found {len(text)}"):
        RoutedAnswers(limit=10).read(path, SAID)


def test_the_missing_last_token_is_normal(tmp_path: Path) -> None:
    """A prompt of 2 and 2 generated tokens have 3 rows: 2 of prefill, 1 of decode."""
    for answer in (vllm(ROWS, prompt=2), sglang(ROWS, prompt=2, generated=2)):
        trace = read(saved(tmp_path, answer))
        assert np.array_equal(trace.experts, ROWS[:, 1:])
        assert trace.position.tolist() == [0, 1, 2]
        assert trace.phase.tolist() == [0, 0, 1]


def test_rows_that_start_later_keep_their_positions(tmp_path: Path) -> None:
    for answer in (vllm(ROWS, prompt=10, generated=2), sglang(ROWS, prompt=10, generated=2)):
        trace = read(saved(tmp_path, answer))
        assert trace.position.tolist() == [8, 9, 10]
        assert trace.phase.tolist() == [0, 0, 1]


def test_every_choice_is_a_request_and_the_tokens_of_all_choices_are_counted_together(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, vllm(ROWS, ROWS[:2], prompt=2)))
    assert trace.request.tolist() == [0, 0, 0, 1, 1]
    assert trace.position.tolist() == [0, 1, 2, 0, 1]
    assert trace.phase.tolist() == [0, 0, 1, 0, 0]
    answer = vllm(ROWS, ROWS)
    del answer["choices"][1]["routed_experts"]
    with pytest.raises(ValueError, match="1 of 2 choices hold 'routed_experts': all or none"):
        read(saved(tmp_path, answer))


@pytest.mark.parametrize("name", ["sglext", "sgl_ext"])
@pytest.mark.parametrize("place", ["answer", "choice"])
def test_the_extension_of_sglang_is_read_under_both_names(tmp_path: Path, name: str, place: str) -> None:
    raw = {name: {"routed_experts": coded(ROWS.astype("<i4").tobytes())}}
    answer: dict[str, Any] = {"choices": [{}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    (answer if place == "answer" else answer["choices"][0]).update(raw)
    trace = read(saved(tmp_path, answer))
    assert np.array_equal(trace.experts, ROWS[:, 1:])
    assert not trace.phase.any()


def test_the_bytes_of_sglang_need_the_hidden_layers_and_top_k(tmp_path: Path) -> None:
    path = saved(tmp_path, sglang(ROWS))
    for said in (Supplement(4, (1, 2), 2), Supplement(4, (1, 2), hidden_layers=3)):
        with pytest.raises(ValueError, match=r"no shape: give hidden_layers .* and top_k"):
            read(path, said)
    with pytest.raises(ValueError, match="72 bytes are no rows of 5 hidden layers x top-2 x 4 bytes = 40"):
        read(path, Supplement(4, (1, 2), 2, hidden_layers=5))
    with pytest.raises(ValueError, match=r"request 0: ids must lie from 0 to 65535, found -1\.\.3"):
        read(saved(tmp_path, sglang(ROWS.astype(int) - (ROWS == 0))))


def test_wrong_hidden_layers_give_more_rows_than_tokens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="9 rows for 1 x 2 tokens of the prompt and 2 generated"):
        read(saved(tmp_path, sglang(ROWS)), Supplement(4, (0,), 2, hidden_layers=1))


def test_lines_lists_and_batch_output_hold_many_answers(tmp_path: Path) -> None:
    answers = [vllm(ROWS, family="code"), vllm(ROWS[:2], family="math"), vllm(ROWS, family="code")]
    lines = "\n".join(map(json.dumps, answers)) + "\n\n"
    batch = [{"custom_id": "a", "family": a["family"], "response": {"body": a}} for a in answers]
    for content in (lines, answers, "\n".join(map(json.dumps, batch)), json.dumps(answers, indent=1)):
        trace = read(saved(tmp_path, content))
        assert trace.request.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
        assert trace.families == ("code", "math")
        assert trace.family.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert read(saved(tmp_path, json.dumps(answers[0], indent=1))).families == ("code",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([vllm(ROWS, family="a"), vllm(ROWS)], "request 1 has no family, request 0 has one: all or none"),
        ([vllm(ROWS, family=3)], "answer 0: family must be text, found 3"),
        ([vllm(ROWS), vllm(ROWS[:, :2])], "request 1: 2 hidden layers and top-2, request 0 has 3 and top-2"),
        ([vllm(ROWS), {"choices": []}], "answer 1: no 'routed_experts' in choices, meta_info or sglext"),
        ([vllm(ROWS), "routed_experts"], "an answer must be an object, found str"),
        ([vllm(ROWS, prompt=1, generated=1)], "3 rows for 1 x 1 tokens of the prompt and 1 generated"),
        ([vllm(ROWS, ROWS, prompt=3, generated=3)], "6 rows of 2 choices, 7 less a common start"),
        ([vllm(ROWS, usage={"prompt_tokens": -1})], "prompt_tokens must be a whole number, found -1"),
        ([vllm(ROWS, usage={"prompt_tokens": True})], "prompt_tokens must be a whole number, found True"),
        ({"choices": [{"routed_experts": "?"}]}, "routed_experts is not base64"),
        ({"choices": [{"routed_experts": [1]}]}, "routed_experts must be base64 text, found list"),
        ({"choices": [{"routed_experts": coded(b"none")}]}, "'routed_experts' has no readable header"),
        ({"choices": [{"routed_experts": coded(npy(ROWS)[:-1])}]}, "needs 18 bytes, found 17"),
        ({"choices": [{"routed_experts": coded(npy(ROWS[0]))}]}, r"found uint8 of shape \(3, 2\)"),
        ({"choices": [{"routed_experts": coded(npy(ROWS * 1.0))}]}, "must be integers .* found float64"),
        ({"choices": [{"routed_experts": coded(npy(ROWS[:0]))}]}, "empty trace: no request has a row"),
        ('{"routed_experts": 1', "not JSON"),
        (json.dumps(vllm(ROWS)) + '\n{"routed_experts', "line 2: not JSON"),
        ('{"a": ' + "[" * 100_000 + '"routed_experts"', "not JSON"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RoutedAnswers().read(saved(tmp_path, content), SAID)


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.array([print]), allow_pickle=True)
    answer = {"choices": [{"routed_experts": coded(content.getvalue())}]}
    with pytest.raises(ValueError, match="not pickled, found dtype object"):
        read(saved(tmp_path, answer))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    prompts=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    generated=st.integers(1, 5),
    start=st.integers(0, 3),
)
def test_both_engines_give_the_same_trace_of_the_same_requests(
    seed: int, prompts: list[int], generated: int, start: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rng = np.random.default_rng(seed)
    answers: list[list[Any]] = [[], []]
    for prompt in prompts:
        tokens = prompt + generated - 1 - min(start, prompt - 1)
        rows = np.argsort(rng.random((tokens, 3, 5)), axis=2)[:, :, :2].astype(np.uint8)
        rows[:, 0] = 0
        answers[0].append(vllm(rows, prompt=prompt, generated=generated))
        answers[1].append(sglang(rows, prompt=prompt, generated=generated))
    said = Supplement(5, (1, 2), 2, hidden_layers=3)
    first, second = (read(saved(folder, one), said) for one in answers)
    assert np.array_equal(first.experts, second.experts)
    assert (first.phase == second.phase).all()
    assert int((first.phase == 1).sum()) == len(prompts) * (generated - 1)
    ends = [prompt + generated - 2 for prompt in prompts]
    assert [int(first.position[first.request == i].max()) for i in range(len(prompts))] == ends
