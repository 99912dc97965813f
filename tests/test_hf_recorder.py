"""Routes of Hugging Face models: the ids recorded are those that the published rules of three routers choose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.hf_generation import completions, record
from moeopt.hf_layers import moe_layers
from moeopt.hf_recorder import Recorder
from moeopt.trace import DECODE, PREFILL, Trace

torch = pytest.importorskip("torch", reason="needs the extra hf")
transformers = pytest.importorskip("transformers", reason="needs the extra hf")

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def olmoe() -> Any:
    """Softmax, then top 3 of 8."""
    return built(
        transformers.OlmoeConfig(
            **SIZES, intermediate_size=16, num_hidden_layers=3, num_experts=8, num_experts_per_tok=3
        )
    )


def deepseek() -> Any:
    """Sigmoid, bias, two of four groups, then top 4 of 16; layers 0 and 1 are dense."""
    return built(
        transformers.DeepseekV3Config(
            **SIZES,
            intermediate_size=32,
            moe_intermediate_size=16,
            num_hidden_layers=4,
            first_k_dense_replace=2,
            n_routed_experts=16,
            n_group=4,
            topk_group=2,
            num_experts_per_tok=4,
            num_key_value_heads=4,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
        )
    )


def gpt_oss() -> Any:
    """Top 2 of 8 logits with their own bias, then softmax."""
    return built(
        transformers.GptOssConfig(
            **SIZES,
            intermediate_size=16,
            num_hidden_layers=2,
            layer_types=["sliding_attention", "full_attention"],
            num_local_experts=8,
            num_experts_per_tok=2,
            num_key_value_heads=2,
            head_dim=8,
        )
    )


def built(config: Any) -> Any:
    """The model, random, with routers that tell tokens apart and a bias that matters."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if "e_score_correction_bias" in name or name.endswith("router.bias"):
                value.copy_(0.3 * torch.randn_like(value))
            elif name.endswith(("gate.weight", "router.weight")):
                value.copy_(torch.randn_like(value))
    return model


FAMILIES = {"olmoe": olmoe, "deepseek": deepseek, "gpt-oss": gpt_oss}
Rule = Callable[[NDArray[Any], Any], list[int]]


def softmax_then_top(hidden: NDArray[Any], router: Any) -> list[int]:
    """OLMoE, arXiv 2409.02060, section 2: the k experts of the largest softmax of the logits, largest first."""
    logits = router.weight.detach().double().numpy() @ hidden
    gates = np.exp(logits - logits.max())
    return [int(expert) for expert in np.argsort(-gates / gates.sum())[: router.top_k]]


def top_of_groups(
    hidden: NDArray[Any], router: Any, *, biased: bool = True, limited: bool = True
) -> list[int]:
    """DeepSeek-V3, arXiv 2412.19437, section 2.1.2: sigmoid plus bias; the groups of the largest sums of their two
    best; the k best experts of those groups."""
    score = 1 / (1 + np.exp(-router.weight.detach().double().numpy() @ hidden))
    if biased:
        score = score + router.e_score_correction_bias.double().numpy()
    groups = np.split(np.arange(len(score)), 4)
    worth = [sum(sorted(score[group])[-2:]) for group in groups]
    kept = np.argsort(worth)[-2:] if limited else range(4)
    allowed = [expert for group in kept for expert in groups[group]]
    return sorted(allowed, key=lambda expert: -score[expert])[:4]


def top_of_logits(hidden: NDArray[Any], router: Any) -> list[int]:
    """gpt-oss, model card arXiv 2508.10925, section 2.2: the k largest of the linear map's values, largest first."""
    weight, bias = router.weight.detach().double().numpy(), router.bias.detach().double().numpy()
    return [int(expert) for expert in np.argsort(-(weight @ hidden + bias))[: router.top_k]]


RULES: dict[str, tuple[Rule, bool]] = {
    "olmoe": (softmax_then_top, True),
    "deepseek": (top_of_groups, False),
    "gpt-oss": (top_of_logits, True),
}


def router_of(model: Any, layer: int) -> Any:
    block = model.model.layers[layer].mlp
    return block.gate if hasattr(block, "gate") else block.router


@contextmanager
def hidden_states(model: Any, layers: list[int]) -> Iterator[dict[int, Any]]:
    """What the MoE blocks of these layers are given, [sequences, positions, width], of the last pass."""
    seen: dict[int, Any] = {}
    hooks = [
        model.model.layers[layer].mlp.register_forward_pre_hook(
            lambda module, args, layer=layer: seen.__setitem__(layer, args[0].detach())
        )
        for layer in layers
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def texts(*lengths: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(VOCABULARY, size=length).tolist() for length in lengths]


def recorded(model: Any, sequences: Any, **options: Any) -> Trace:
    with Recorder(model) as recorder:
        recorder.run(sequences, **options)
    return recorder.trace()


def same(one: Trace, other: Trace) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("experts", "layer_ids", "request", "position", "phase", "family")
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ids_recorded_are_those_of_the_published_rule_token_by_token(family: str) -> None:
    model = FAMILIES[family]()
    rule, ordered = RULES[family]
    layers = [layer.layer for layer in moe_layers(model)]
    with hidden_states(model, layers) as seen:
        trace = recorded(model, texts(60, 60))
    assert trace.experts.shape[0] == 120
    for index, layer in enumerate(layers):
        states = seen[layer].reshape(120, -1).double().numpy()
        for token in range(120):
            expected, found = (
                rule(states[token], router_of(model, layer)),
                trace.experts[token, index].tolist(),
            )
            assert found == expected if ordered else sorted(found) == sorted(expected)


def test_bias_and_groups_change_what_is_chosen_so_that_logits_alone_would_be_wrong() -> None:
    model = deepseek()
    with hidden_states(model, [2]) as seen:
        trace = recorded(model, texts(60))
    states, router = seen[2].reshape(60, -1).double().numpy(), router_of(model, 2)
    for options in ({"biased": False}, {"limited": False}):
        wrong = [
            sorted(top_of_groups(state, router, **options)) != sorted(ids)
            for state, ids in zip(states, trace.experts[:, 0].tolist(), strict=True)
        ]
        assert sum(wrong) > 6


def test_dense_layers_are_absent_and_ids_of_layers_absolute() -> None:
    trace = recorded(deepseek(), texts(5))
    assert trace.layer_ids.tolist() == [2, 3]
    assert (trace.n_experts, trace.top_k) == (16, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_either_side_changes_nothing(family: str) -> None:
    model, sequences = FAMILIES[family](), texts(9, 4, 13)
    right, left = np.full((2, 3, 15), 96)
    right_mask, left_mask = np.zeros((2, 3, 15), np.int64)
    for row, sequence in enumerate(sequences):
        right[row, : len(sequence)], right_mask[row, : len(sequence)] = sequence, 1
        left[row, -len(sequence) :], left_mask[row, -len(sequence) :] = sequence, 1
    plain = recorded(model, sequences)
    assert plain.n_tokens == 26
    assert same(plain, recorded(model, torch.from_numpy(right), attention_mask=torch.from_numpy(right_mask)))
    assert same(plain, recorded(model, left, attention_mask=left_mask.astype(bool)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sequence_of_a_batch_is_recorded_as_it_would_be_alone(family: str) -> None:
    model, sequences = FAMILIES[family](), texts(9, 1, 13)
    together = recorded(model, sequences)
    for request, sequence in enumerate(sequences):
        alone = recorded(model, [sequence])
        assert np.array_equal(together.experts[together.request == request], alone.experts)
        assert together.position[together.request == request].tolist() == list(range(len(sequence)))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_recorded_as_step_by_step_decoding_routes_it(family: str) -> None:
    """One pass over prompt and answer gives the ids that decoding with a cache chose, all but the last token's."""
    model, sequences = FAMILIES[family](), texts(7, 7)
    answers = completions(model, sequences, max_new_tokens=6)
    assert [len(answer) for answer in answers] == [6, 6]
    whole = [prompt + answer[:-1] for prompt, answer in zip(sequences, answers, strict=True)]
    trace = recorded(model, whole, prompt_lengths=[7, 7])
    steps: list[list[NDArray[Any]]] = []
    hooks = [
        layer.experts.register_forward_pre_hook(lambda module, args: steps[-1].append(args[1].numpy().copy()))
        for layer in moe_layers(model)
    ]
    cache, given = None, torch.tensor(sequences)
    for step in range(6):
        steps.append([])
        with torch.no_grad():
            found = model(input_ids=given, past_key_values=cache, use_cache=True)
        cache, given = found.past_key_values, found.logits[:, -1:].argmax(-1)
        assert given[:, 0].tolist() == [answer[step] for answer in answers]
    for hook in hooks:
        hook.remove()
    prefill = np.stack(steps[0], axis=1)
    assert np.array_equal(trace.experts[trace.phase == PREFILL], prefill)
    for step in range(1, 6):
        rows = (trace.phase == DECODE) & (trace.position == 6 + step)
        assert np.array_equal(trace.experts[rows], np.stack(steps[step], axis=1))


def test_record_has_a_request_a_prompt_and_prompt_plus_generated_less_one_rows() -> None:
    model = olmoe()
    prompts = {"code": texts(5, 8, 3), "chat": texts(4, seed=1)}
    trace = record(model, None, prompts=prompts, max_new_tokens=4, batch=2, name="tiny")
    assert (trace.model, trace.families) == ("tiny", ("code", "chat"))
    assert np.bincount(trace.request).tolist() == [8, 11, 6, 7]
    assert np.bincount(trace.request, weights=trace.phase).tolist() == [3, 3, 3, 3]
    assert trace.family.tolist() == [0] * 25 + [1] * 7
    assert (np.diff(trace.position)[np.diff(trace.request) == 0] == 1).all()


def test_one_generated_token_is_never_forwarded_and_none_leaves_the_prompt() -> None:
    prompts = {"all": texts(5, 8)}
    once = record(olmoe(), None, prompts=prompts, max_new_tokens=1)
    assert same(once, record(olmoe(), None, prompts=prompts))
    assert (once.n_tokens, once.phase.max()) == (13, PREFILL)


def test_an_answer_ends_with_its_end_token_and_the_filling_after_it_is_dropped() -> None:
    model, sequences = olmoe(), texts(5, 8)
    long, other = completions(model, sequences, max_new_tokens=8)
    end = long[2]
    short, rest = completions(model, sequences, max_new_tokens=8, generation={"eos_token_id": end})
    assert short == long[: long.index(end) + 1]
    assert rest == (other[: other.index(end) + 1] if end in other else other)
    model.generation_config.eos_token_id = [end]
    assert completions(model, sequences, max_new_tokens=8) == [short, rest]


def test_texts_are_tokenized_as_the_tokenizer_does() -> None:
    def tokenizer(text: str) -> dict[str, list[int]]:
        return {"input_ids": [1, *(ord(letter) % VOCABULARY for letter in text)]}

    model = olmoe()
    trace = record(model, tokenizer, prompts={"all": ["moe", "x"]})
    assert same(
        trace, record(model, None, prompts={"all": [tokenizer("moe")["input_ids"], [1, ord("x") % 97]]})
    )
    with pytest.raises(ValueError, match="texts need a tokenizer, found None for the prompt 'moe'"):
        record(model, None, prompts={"all": ["moe"]})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_no_expert_left_out_has_a_larger_logit_than_one_chosen(dtype: str) -> None:
    """Ties are broken by the model itself: nothing is computed anew."""
    model = olmoe().to(getattr(torch, dtype))
    with hidden_states(model, [0, 1, 2]) as seen:
        trace = recorded(model, texts(100))
    for layer in range(3):
        logits = (
            torch.nn.functional.linear(seen[layer][0], router_of(model, layer).weight)
            .detach()
            .float()
            .numpy()
        )
        chosen = np.zeros(logits.shape, bool)
        np.put_along_axis(chosen, trace.experts[:, layer].astype(int), True, axis=1)
        assert (np.where(chosen, logits, np.inf).min(1) >= np.where(chosen, -np.inf, logits).max(1)).all()


def test_no_hook_stays_after_use_nor_after_an_error() -> None:
    model = deepseek()

    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in model.modules())

    with Recorder(model) as recorder:
        assert hooks() == 2
        recorder.run(texts(5))
    assert hooks() == 0
    with pytest.raises(IndexError), Recorder(model) as recorder:
        recorder.run([[VOCABULARY]])
    assert hooks() == 0


def test_a_batch_that_fails_leaves_nothing_behind() -> None:
    model = olmoe()
    with Recorder(model) as recorder:
        recorder.run(texts(5), family="code")
        with pytest.raises(IndexError):
            recorder.run([[1, VOCABULARY]], family="chat")
        model(input_ids=torch.tensor(texts(9)))  # a pass of the user's own is none of the recorder's
        recorder.run(texts(6), family="math")
    trace = recorder.trace()
    assert trace.families == ("code", "math")
    assert np.bincount(trace.request).tolist() == [5, 6]


def test_a_model_without_moe_layers_is_refused_with_what_was_found() -> None:
    dense = transformers.LlamaConfig(**SIZES, intermediate_size=16, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM has no module forward\(hidden_states, .*: none"):
        Recorder(transformers.AutoModelForCausalLM.from_config(dense))
    switch = transformers.SwitchTransformersConfig(
        vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2, num_experts=4
    )
    with pytest.raises(ValueError, match=r"SwitchTransformersExperts.*SwitchTransformersTop1Router"):
        Recorder(transformers.SwitchTransformersModel(switch))


def test_two_stacks_with_the_same_layer_numbers_are_refused() -> None:
    both = torch.nn.ModuleDict({"thinker": olmoe(), "talker": olmoe()})
    with pytest.raises(
        ValueError, match=r"layer 0 must have one module of experts, found thinker\S+ and talker"
    ):
        Recorder(both)


def test_what_does_not_fit_is_refused_by_name() -> None:
    model = olmoe()
    recorder = Recorder(model)
    with pytest.raises(ValueError, match="within `with Recorder"):
        recorder.run(texts(3))
    with recorder:
        with pytest.raises(ValueError, match="records already"):
            recorder.__enter__()
        with pytest.raises(ValueError, match="nothing was recorded"):
            recorder.trace()
        with pytest.raises(ValueError, match=r"between 0 and the lengths \[3\], found \[4\]"):
            recorder.run(texts(3), prompt_lengths=[4])
        with pytest.raises(ValueError, match="must hold at least one sequence"):
            recorder.run([])
        with pytest.raises(ValueError, match="none in sequence 1"):
            recorder.run([[1], []])
        with pytest.raises(ValueError, match=r"rows of \[2\] for \[3\]"):
            recorder.run(texts(3), attention_mask=[[1, 1]])
        with pytest.raises(ValueError, match=r"whole numbers .* found float64"):
            recorder.run([[0.5]])
        with pytest.raises(ValueError, match=r"whole numbers .* row of shape"):
            recorder.run([1, 2])
        model.train()
        with pytest.raises(ValueError, match="training mode"):
            recorder.run(texts(3))
    with pytest.raises(ValueError, match="batch must be positive"):
        record(model, None, prompts={"all": texts(3)}, batch=0)
    with pytest.raises(ValueError, match=r"must be a prompt, found families \['code'\]"):
        record(model, None, prompts={"code": []})
    with pytest.raises(ValueError, match="none in prompt 1"):
        completions(model, [[1], []], max_new_tokens=2)


def test_torch_is_imported_on_first_use_and_its_absence_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import sys, moeopt.hf_generation; print({'torch', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    model = olmoe()
    monkeypatch.setitem(sys.modules, "torch", None)
    with Recorder(model) as recorder, pytest.raises(ImportError, match=r"pip install 'moeopt\[hf\]'"):
        recorder.run(texts(3))


class Experts(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_experts = count

    def forward(self, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
        return hidden_states


class Routed(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A model whose layer l sends token t at place p to the experts (t + p + l) mod E and the next."""

    def __init__(self, count: int, layers: int, *, calls: int = 1, shift: int = 0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.layers = torch.nn.ModuleList(Experts(count) for _ in range(layers))
        self.count, self.calls, self.shift = count, calls, shift

    def forward(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> None:
        assert not use_cache
        place = attention_mask.cumsum(1) - 1
        for layer, experts in enumerate(self.layers):
            first = (input_ids + place + layer) % self.count
            ids = torch.stack([first, (first + 1) % self.count], dim=-1) + self.shift
            for _ in range(self.calls):
                experts(input_ids, top_k_index=ids, top_k_weights=None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_token_of_every_batch_is_recorded_at_its_place(data: st.DataObject) -> None:
    count, layers = data.draw(st.sampled_from([3, 256, 257])), data.draw(st.integers(1, 3))
    rows = st.lists(st.integers(0, 999), min_size=1, max_size=6)
    batches = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["a", "b"]), st.lists(rows, min_size=1, max_size=3)),
            min_size=1,
            max_size=3,
        )
    )
    expected: list[tuple[Any, ...]] = []
    request = 0
    with Recorder(Routed(count, layers).eval(), name="routed") as recorder:
        for family, sequences in batches:
            prompts = [data.draw(st.integers(0, len(sequence))) for sequence in sequences]
            width = 6
            mask = np.array(
                [data.draw(st.permutations([1] * len(s) + [0] * (width - len(s)))) for s in sequences]
            )
            ids = np.full(mask.shape, 7)
            ids[mask == 1] = np.concatenate(sequences)
            recorder.run(ids, attention_mask=mask, family=family, prompt_lengths=prompts)
            for sequence, prompt in zip(sequences, prompts, strict=True):
                for place, token in enumerate(sequence):
                    chosen = [(token + place + layer) % count for layer in range(layers)]
                    experts = [[one, (one + 1) % count] for one in chosen]
                    expected.append((request, place, int(place >= prompt), family, experts))
                request += 1
    trace = recorder.trace()
    found = [
        (
            int(trace.request[t]),
            int(trace.position[t]),
            int(trace.phase[t]),
            trace.families[trace.family[t]],
            ids,
        )
        for t, ids in enumerate(trace.experts.tolist())
    ]
    assert found == expected
    assert trace.families == tuple(dict.fromkeys(family for family, _ in batches))
    assert (trace.n_experts, trace.model) == (count, "routed")


def test_a_layer_called_twice_or_never_and_ids_beyond_the_experts_are_refused() -> None:
    for calls in (0, 2):
        expected = rf"layers.0 must be called once .* found {calls} calls"
        with (
            Recorder(Routed(4, 2, calls=calls).eval()) as recorder,
            pytest.raises(ValueError, match=expected),
        ):
            recorder.run([[1]])
    expected = r"layers.0 must be given ids below 4, found 2\.\.5"
    with Recorder(Routed(4, 2, shift=2).eval()) as recorder, pytest.raises(ValueError, match=expected):
        recorder.run([[0, 1, 1]])


def test_layers_of_different_width_and_paths_without_a_number_are_refused() -> None:
    model = Routed(4, 2)
    model.layers[1].num_experts = 5
    with pytest.raises(ValueError, match="same number of experts, found 4 in layer 0 and 5 in layer 1"):
        moe_layers(model)
    with pytest.raises(ValueError, match="path of experts must hold the number of their layer, found 'only'"):
        moe_layers(torch.nn.ModuleDict({"only": Experts(4)}))
    del model.layers[1].num_experts
    with pytest.raises(ValueError, match=r"layers.1 \(Experts\) must have num_experts, found None"):
        moe_layers(model)
