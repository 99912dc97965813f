"""Dumps of SGLang's recorder: counts become loads, tokens a trace, and every trap of the format is met."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.load_counts import LoadCounts
from moeopt.readers.sglang_recorder import SGLangRecorder
from moeopt.sglang_requests import Requests
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.torch_files import save

READER, NONE = SGLangRecorder(), Supplement()
MAP = np.array([[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2], [0, 0, 1, 2, 3, 1]])  # layer 0 is dense
COUNTS = np.zeros((4, 3, 4), np.int32)  # a ring of four steps, three of them used
COUNTS[:3, 1:] = np.arange(24).reshape(3, 2, 4)


def stat(counts: Any = COUNTS, *, rank: int = 0) -> dict[str, Any]:
    return {"rank": rank, "logical_count": counts, "average_utilization_rate_over_window": None}


def loads(workload: Trace | Workload) -> list[list[int]]:
    assert isinstance(workload, Workload)
    assert all(isinstance(layer, LoadCounts) for layer in workload.layers)
    return [layer.load.tolist() for layer in workload.layers]


def read(path: Path, supplement: Supplement = NONE) -> Trace | Workload:
    head = path.read_bytes()[:64] if path.is_file() else b""
    assert READER.accepts(path, head)
    return READER.read(path, supplement)


def test_stat_counts_are_summed_over_steps_and_dense_layers_are_left_out(tmp_path: Path) -> None:
    found = read(save(stat(), tmp_path / "x.pt"))
    assert isinstance(found, Workload)
    assert found.layer_ids == (1, 2)
    assert loads(found) == [[24, 27, 30, 33], [36, 39, 42, 45]]
    assert found.tokens.tolist() == [162]
    assert loads(read(save(stat(COUNTS.sum(axis=0)), tmp_path / "sum.pt"))) == loads(found)


def test_the_order_of_the_ring_and_its_unused_steps_change_nothing(tmp_path: Path) -> None:
    whole = read(save(stat(), tmp_path / "x.pt"))
    for shift in range(1, 4):
        assert loads(read(save(stat(np.roll(COUNTS, shift, axis=0)), tmp_path / "y.pt"))) == loads(whole)
    assert loads(read(save(stat(COUNTS[:3]), tmp_path / "z.pt"))) == loads(whole)


def test_what_the_user_says_of_counts_is_taken_or_refused(tmp_path: Path) -> None:
    path = save(stat(), tmp_path / "x.pt")
    found = read(path, Supplement(n_experts=4, layer_ids=(2,), top_k=2, model="m"))
    assert isinstance(found, Workload)
    assert (found.layer_ids, found.top_k, found.model, found.tokens.tolist()) == ((2,), 2, "m", [81])
    with pytest.raises(ValueError, match=r"layer 0 is not recorded, the layers are \[1, 2\]"):
        read(path, Supplement(layer_ids=(0, 1)))
    with pytest.raises(ValueError, match="n_experts is given as 8, the recording says 4"):
        read(path, Supplement(n_experts=8))


def test_equal_stat_files_of_several_ranks_are_counted_once(tmp_path: Path) -> None:
    alone = read(save(stat(), tmp_path / "recorder_1.5_0.pt"))
    save(stat(rank=1), tmp_path / "recorder_1.6_1.pt")
    assert loads(read(tmp_path)) == loads(alone)


def test_stat_files_that_differ_are_never_added(tmp_path: Path) -> None:
    save(stat(), tmp_path / "a.pt")
    save(stat(COUNTS + np.int32(1)), tmp_path / "b.pt")
    with pytest.raises(
        ValueError, match=r"a\.pt and b\.pt differ: each stat file holds the sum over all ranks"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros_like(COUNTS), "every count of 3 layers is zero: nothing was recorded"),
        (-COUNTS, r"logical_count must lie from 0 to 2\^46, found -23 to 0"),
        (COUNTS[:0], r"logical_count must hold counts, found shape \(0, 3, 4\)"),
        (COUNTS.astype(np.float32), "logical_count must be whole numbers with 3 axes, found float32"),
        (COUNTS[0, 0], r"with 3 axes, found int32 \(4,\)"),
        (None, "with 3 axes, found NoneType"),
    ],
)
def test_counts_that_cannot_be_are_refused(tmp_path: Path, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(save(stat(counts), tmp_path / "x.pt"))


def passes(
    rank: int, counts: list[Any], *, first: int = 0, physical: np.ndarray[Any, Any] = MAP
) -> dict[str, Any]:
    """A dump of mode per_pass of one rank."""
    records = [
        {
            "forward_pass_id": first + index,
            "rank": rank,
            "gatherer_key": "primary",
            "global_physical_count": np.array(count, np.int32),
        }
        for index, count in enumerate(counts)
    ]
    return {"records": records, "last_physical_to_logical_map": physical}


PASS = [[0] * 6, [1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60]]


def test_per_pass_counts_are_summed_over_ranks_and_mapped_to_experts(tmp_path: Path) -> None:
    save(passes(0, [PASS, PASS]), tmp_path / "r_0.pt")
    save(passes(1, [np.array(PASS) * 2]), tmp_path / "r_1.pt")
    found = read(tmp_path)
    assert isinstance(found, Workload)
    assert found.layer_ids == (1, 2)
    # Layer 1 holds expert 3 in slots 0 and 4, layer 2 expert 0 in slots 0 and 1: four times the pass in all.
    assert loads(found) == [[16, 12, 32, 24], [120, 360, 160, 200]]
    assert loads(read(tmp_path / "r_1.pt")) == [[8, 6, 16, 12], [60, 180, 80, 100]]


def test_files_of_several_dumps_do_not_add_up(tmp_path: Path) -> None:
    save(passes(0, [PASS]), tmp_path / "a.pt")
    save(passes(0, [PASS]), tmp_path / "b.pt")
    with pytest.raises(ValueError, match="pass 0 of rank 0 is recorded twice"):
        read(tmp_path)
    save(passes(1, [PASS], physical=MAP[:, ::-1]), tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"a\.pt and b\.pt differ in last_physical_to_logical_map"):
        read(tmp_path)
    save(stat(), tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b\.pt: records must be a list"):
        read(tmp_path)


def test_a_file_that_counts_the_slots_of_its_rank_alone_asks_for_the_others(tmp_path: Path) -> None:
    own = np.array(PASS)
    own[:, [0, 1, 4, 5]] = 0
    path = save(passes(1, [own]), tmp_path / "x.pt")
    with pytest.raises(ValueError, match="slots 2 to 3 alone were counted, those of rank 1: read the folder"):
        read(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("forward_pass_id", None, "forward_pass_id of a record must be a whole number from 0 on"),
        ("rank", -1, "rank of a record must be a whole number from 0 on"),
        ("rank", True, "rank of a record must be a whole number from 0 on"),
        ("gatherer_key", "child_a", "two-batch overlap is not supported"),
        ("global_physical_count", np.zeros((3, 5), int), r"must have shape \(3, 6\), found \(3, 5\)"),
        ("global_physical_count", -np.array(PASS), "must lie from 0"),
        ("global_physical_count", "text", "with 2 axes, found str"),
    ],
)
def test_records_that_break_a_rule_are_refused(tmp_path: Path, name: str, value: Any, message: str) -> None:
    dump = passes(0, [PASS])
    dump["records"][0][name] = value
    with pytest.raises(ValueError, match=message):
        read(save(dump, tmp_path / "x.pt"))


@pytest.mark.parametrize(
    ("physical", "message"),
    [
        (MAP - 1, "must name experts below the number of slots"),
        (MAP + 3, "must name experts below the number of slots"),
        (np.where(MAP == 1, 0, MAP), "layer 0 gives expert 1 none"),
        (MAP[0], "must be whole numbers with 2 axes"),
        (MAP[:, :0], "must name experts below"),
    ],
)
def test_a_map_that_breaks_a_rule_is_refused(tmp_path: Path, physical: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(save(passes(0, [PASS], physical=physical), tmp_path / "x.pt"))


def test_dumps_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pass was recorded"):
        read(save(passes(0, []), tmp_path / "x.pt"))
    with pytest.raises(ValueError, match="a dump is a dict, found list"):
        read(save(["logical_count"], tmp_path / "x.pt"))
    dump = passes(0, [PASS])
    dump["records"].append("x")
    with pytest.raises(ValueError, match="a record must be a dict, found str"):
        read(save(dump, tmp_path / "x.pt"))


PREFILL, DECODE, MIXED, IDLE = 1, 2, 3, 4
SLOTS = np.array(
    [[[-1, -1], [-1, -1], [-1, -1]], [[0, 1], [4, 3], [5, 2]], [[0, 2], [5, 1], [3, 4]]]
)  # 3 tokens


def record(
    index: int,
    mode: int,
    positions: list[int],
    *,
    lengths: list[int] | None = None,
    slots: np.ndarray[Any, Any] | None = None,
    rank: int = 0,
) -> dict[str, Any]:
    """A record of mode per_token; slots of the tokens [layers, tokens, k], filled up to 8."""
    tokens = len(positions)
    wide = np.full((3, tokens, 8), -1, np.int32)
    own = SLOTS[:, np.arange(tokens) % 3] if slots is None else slots
    wide[:, : own.shape[1], : own.shape[2]] = own
    return {
        "forward_pass_id": index,
        "rank": rank,
        "gatherer_key": "primary",
        "input_ids": [100 * rank + n for n in range(tokens)],
        "positions": positions,
        "extend_seq_lens": lengths,
        "forward_mode": mode,
        "topk_ids_of_layer": wide,
        "misc_objects": [],
        "global_physical_count": np.zeros((3, 6), np.int32),
    }


def dump(*records: dict[str, Any]) -> dict[str, Any]:
    return {"records": list(records), "last_physical_to_logical_map": MAP}


def trace(path: Path, *records: dict[str, Any], supplement: Supplement = NONE) -> Trace:
    found = read(save(dump(*records), path / "x.pt"), supplement)
    assert isinstance(found, Trace)
    return found


def test_slots_become_experts_and_dense_layers_are_left_out(tmp_path: Path) -> None:
    found = trace(tmp_path, record(0, PREFILL, [0, 1, 2], lengths=[3]))
    assert found.layer_ids.tolist() == [1, 2]
    assert found.n_experts == 4
    assert found.experts.tolist() == [[[3, 2], [0, 1]], [[3, 0], [1, 0]], [[2, 1], [2, 3]]]
    assert found.top_k == 2  # of width 8, the rest is -1
    assert found.position.tolist() == [0, 1, 2]
    only = trace(tmp_path, record(0, PREFILL, [0, 1, 2], lengths=[3]), supplement=Supplement(layer_ids=(2,)))
    assert only.experts.tolist() == found.experts[:, 1:].tolist()


def test_a_dense_layer_of_zeros_is_never_expert_0(tmp_path: Path) -> None:
    slots = SLOTS.copy()
    slots[0] = 0
    zeros = record(0, PREFILL, [0, 1, 2], lengths=[3], slots=slots)
    with pytest.raises(ValueError, match=r"layer 0 chose slot 0 again and again .* give layer_ids"):
        trace(tmp_path, zeros)
    assert trace(tmp_path, zeros, supplement=Supplement(layer_ids=(1, 2))).layer_ids.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"layer 0 has no experts, those that have are \[1, 2\]"):
        trace(
            tmp_path,
            record(0, PREFILL, [0, 1, 2], lengths=[3]),
            supplement=Supplement(layer_ids=(0, 1)),
        )


def test_a_prefill_is_split_and_its_requests_are_decoded_in_order(tmp_path: Path) -> None:
    found = trace(
        tmp_path,
        record(0, PREFILL, [0, 1, 0, 1, 2], lengths=[2, 3]),
        record(1, DECODE, [2, 3]),
        record(2, PREFILL, [0, 1, 2], lengths=[3]),
        record(3, DECODE, [3, 4, 3]),
        record(4, DECODE, [5, 4]),  # the first has finished
    )
    assert found.request.tolist() == [0, 0, 1, 1, 1, 0, 1, 2, 2, 2, 0, 1, 2, 1, 2]
    assert found.phase.tolist() == [0] * 5 + [1] * 2 + [0] * 3 + [1] * 5


def test_where_two_stand_at_one_position_the_order_of_the_batch_tells_them_apart(tmp_path: Path) -> None:
    start = record(0, PREFILL, [0, 1, 0, 1, 2, 0, 1], lengths=[2, 3, 2])
    found = trace(
        tmp_path, start, record(1, DECODE, [3, 2])
    )  # after 3 comes the third request, not the first
    assert found.request[-2:].tolist() == [1, 2]
    found = trace(tmp_path, start, record(1, DECODE, [2, 3]))
    assert found.request[-2:].tolist() == [0, 1]
    found = trace(tmp_path, start, record(1, DECODE, [2, 2, 3]))  # an order that only a retraction makes
    assert found.request[-1] == 1
    assert sorted(found.request[-3:-1]) == [0, 2]


def test_a_batch_in_another_order_is_told_apart_by_positions(tmp_path: Path) -> None:
    start = record(0, PREFILL, [0, 1, 0, 1, 2, 3, 4, 0, 1, 2], lengths=[2, 5, 3])
    found = trace(tmp_path, start, record(1, DECODE, [2, 3, 5]))
    assert found.request[-3:].tolist() == [0, 2, 1]


def test_of_two_at_one_position_the_one_prefilled_last_goes_on(tmp_path: Path) -> None:
    found = trace(
        tmp_path,
        record(0, PREFILL, [0, 1], lengths=[2]),
        record(1, PREFILL, [0, 1], lengths=[2]),
        record(2, DECODE, [2]),
    )
    assert found.request.tolist() == [0, 0, 1, 1, 1]


def test_a_chunked_prompt_is_one_request_and_a_cached_beginning_starts_another(tmp_path: Path) -> None:
    found = trace(
        tmp_path,
        record(0, PREFILL, [0, 0, 1, 2], lengths=[1, 3]),
        record(
            1, PREFILL, [3, 4, 1, 2], lengths=[2, 2]
        ),  # the second prompt goes on, a third was cached to 1
        record(2, DECODE, [1, 5, 3]),
    )
    assert found.request.tolist() == [0, 1, 1, 1, 1, 1, 2, 2, 0, 1, 2]


def test_a_chunked_prompt_goes_on_after_others_were_decoded(tmp_path: Path) -> None:
    found = trace(
        tmp_path,
        record(0, PREFILL, [0, 0, 1], lengths=[1, 2]),
        record(1, DECODE, [1]),
        record(2, PREFILL, [2, 3], lengths=[2]),
        record(3, DECODE, [2, 4]),
    )
    assert found.request.tolist() == [0, 1, 1, 0, 1, 1, 0, 1]


def test_a_mixed_pass_decodes_what_was_running(tmp_path: Path) -> None:
    found = trace(
        tmp_path,
        record(0, PREFILL, [0, 1, 0, 1, 2], lengths=[2, 3]),
        record(1, MIXED, [0, 1, 2, 3], lengths=[2, 1, 1]),
        record(2, DECODE, [2, 3, 4]),
    )
    assert found.request.tolist() == [0, 0, 1, 1, 1, 2, 2, 0, 1, 2, 0, 1]
    assert found.phase.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_a_request_from_before_the_recording_is_a_request_too(tmp_path: Path) -> None:
    found = trace(tmp_path, record(0, DECODE, [7, 9]), record(1, DECODE, [8, 10]))
    assert found.request.tolist() == [0, 1, 0, 1]
    assert found.position.tolist() == [7, 9, 8, 10]


def test_ranks_are_joined_pass_by_pass_with_requests_of_their_own(tmp_path: Path) -> None:
    first = [record(4, PREFILL, [0, 1], lengths=[2]), record(5, DECODE, [2])]
    second = [record(4, PREFILL, [0, 0], lengths=[1, 1], rank=1), record(5, IDLE, [], rank=1)]
    save(dump(*first), tmp_path / "b_0.pt")
    save(dump(*second), tmp_path / "a_1.pt")
    found = read(tmp_path)
    assert isinstance(found, Trace)
    assert found.request.tolist() == [0, 0, 1, 2, 0]
    assert found.position.tolist() == [0, 1, 0, 0, 2]


def test_ranks_that_run_the_same_tokens_are_taken_once(tmp_path: Path) -> None:
    for rank in range(3):
        own = record(0, PREFILL, [0, 1], lengths=[2]) | {"rank": rank}
        save(dump(own), tmp_path / f"r_{rank}.pt")
    found = read(tmp_path)
    assert isinstance(found, Trace)
    assert found.n_tokens == 2


def test_padding_behind_the_tokens_is_left_out_and_holes_are_refused(tmp_path: Path) -> None:
    found = trace(tmp_path, record(0, PREFILL, [0, 1, 0], lengths=[2], slots=SLOTS[:, :2]))
    assert found.position.tolist() == [0, 1]
    slots = SLOTS.copy()
    slots[:, 1] = -1
    with pytest.raises(ValueError, match="pass 0, rank 0: 1 tokens before the last have no experts"):
        trace(tmp_path, record(0, PREFILL, [0, 1, 2], lengths=[3], slots=slots))
    with pytest.raises(ValueError, match="from 1 to 2 tokens, found 3 to 3"):
        trace(tmp_path, record(0, PREFILL, [0, 1, 2], lengths=[3], slots=SLOTS[:, :2]))


def edited(where: tuple[int, int, int], value: int) -> np.ndarray[Any, Any]:
    slots = SLOTS.copy()
    slots[where] = value
    return slots


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forward_mode": 5}, "forward_mode must be 1 .* found 5: drafts"),
        ({"forward_mode": None}, "forward_mode must be a whole number, found NoneType"),
        ({"positions": [0, 1]}, r"must be of 3 layers and 2 tokens, found \(3, 3, 8\)"),
        ({"positions": [0, 1, 3]}, "pass 0, rank 0: positions within a segment of a prefill must ascend"),
        ({"positions": [-1, 0, 1]}, r"positions must lie from 0 to 2\^31, found -1 to 1"),
        ({"positions": [0, 1, 2.0]}, "positions must hold whole numbers"),
        ({"positions": "012"}, "positions must be whole numbers with 1 axes, found str"),
        ({"input_ids": None}, "input_ids must be whole numbers with 1 axes, found NoneType"),
        ({"extend_seq_lens": [1, 1]}, "segments of 2 tokens in all, found 3"),
        ({"extend_seq_lens": [0, 3]}, "a segment of a prefill has from 1 to 3 tokens, found 0 to 3"),
        ({"extend_seq_lens": [2**62] * 4 + [3]}, "from 1 to 3 tokens, found 3 to 4611686018427387904"),
        ({"extend_seq_lens": None}, "extend_seq_lens must be whole numbers"),
        ({"slots": edited((1, 0, 0), 6)}, "slots must lie from -1 to 5, found -1 to 6: with shared experts"),
        ({"slots": edited((1, 0, 0), -2)}, "slots must lie from -1 to 5"),
        ({"slots": edited((1, 0, 1), -1)}, r"layer 1, token 0: 2 slots must come before the -1, found \[0"),
        ({"slots": edited((1, 0, 0), -1)}, "layer 1, token 0: 2 slots must come before the -1"),
        ({"slots": edited((1, 0, 1), 4)}, "expert repeated within token 0"),
        ({"slots": edited((1, 0, 0), 4) * 0 - 1}, "empty trace"),
        ({"topk_ids_of_layer": None}, "topk_ids_of_layer must be whole numbers with 3 axes"),
    ],
)
def test_records_of_tokens_that_break_a_rule_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    changes = copy.copy(changes)
    slots = changes.pop("slots", None)
    broken = record(0, PREFILL, [0, 1, 2], lengths=[3], slots=slots) | changes
    if slots is not None and slots[1, 0].tolist() == [0, 4]:
        broken["topk_ids_of_layer"][1, 0, 0] = 0  # slots 0 and 4 hold expert 3
    with pytest.raises(ValueError, match=message):
        trace(tmp_path, broken)


def test_a_recording_of_idle_passes_alone_is_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty trace: no record has tokens with experts"):
        trace(tmp_path, record(0, IDLE, []))


def test_more_requests_in_a_batch_than_any_server_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch may have 65536 requests, found 65537"):
        Requests().decoded(np.zeros(65_537, np.int64))


def test_records_of_two_modes_are_refused(tmp_path: Path) -> None:
    other = record(1, DECODE, [3])
    del other["topk_ids_of_layer"]
    with pytest.raises(ValueError, match="records must be of one mode, found per_pass and per_token"):
        trace(tmp_path, record(0, PREFILL, [0, 1, 2], lengths=[3]), other)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 8))
def test_a_server_that_batches_as_sglang_does_is_followed(
    seed: int, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Requests come, are prefilled in one pass, decoded in the order of the batch, and end."""
    rng = np.random.default_rng(seed)
    prompts = rng.integers(1, 6, size).tolist()
    records: list[dict[str, Any]] = []
    expected: list[tuple[int, int]] = []
    running: list[list[int]] = []  # [request, position of its next token]
    while prompts or running:
        if prompts and rng.random() < 0.5:
            batch = [prompts.pop() for _ in range(rng.integers(1, len(prompts) + 1))]
            positions = [place for length in batch for place in range(length)]
            records.append(record(len(records), PREFILL, positions, lengths=batch))
            for length in batch:
                request = 1 + max((known for known, _ in expected), default=-1)
                expected += [(request, place) for place in range(length)]
                running.append([request, length])
            continue
        # Requests at one position end together: which of them goes on is what nobody can tell.
        ended = {place for _, place in running if rng.random() < 0.25}
        running = [one for one in running if one[1] not in ended]
        if running:
            records.append(record(len(records), DECODE, [place for _, place in running]))
            expected += [(request, place) for request, place in running]
            running = [[request, place + 1] for request, place in running]
    found = trace(tmp_path_factory.mktemp("served"), *records)
    assert list(zip(found.request.tolist(), found.position.tolist(), strict=True)) == expected


def test_other_archives_and_folders_are_not_accepted(tmp_path: Path) -> None:
    assert not READER.accepts(tmp_path, b"")
    path = save({"weights": np.arange(3)}, tmp_path / "x.pt")
    assert not READER.accepts(path, path.read_bytes()[:64])
    assert not READER.accepts(tmp_path, b"")
    (tmp_path / "y").write_bytes(b"PK\x03\x04 damaged")
    assert not READER.accepts(tmp_path / "y", b"PK\x03\x04 damaged")


def test_links_and_dumps_past_the_limit_are_refused(tmp_path: Path) -> None:
    path = save(stat(), tmp_path / "x.pt")
    size = path.stat().st_size
    with pytest.raises(ValueError, match=f"a dump may have {size - 1} bytes, found {size}"):
        SGLangRecorder(limit=size - 1).read(path, NONE)
    (tmp_path / "y.pt").symlink_to(path)
    with pytest.raises(ValueError, match=r"must hold its files, found the symbolic link 'y\.pt'"):
        read(tmp_path)


def test_a_damaged_file_of_a_folder_is_named(tmp_path: Path) -> None:
    save(passes(0, [PASS]), tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"b\.pt: damaged or truncated torch archive"):
        read(tmp_path)
