"""Words of the command line become numbers, or a line that says which word was wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moeopt.options import (
    even_slots,
    family_shares,
    layer_list,
    name_list,
    named_families,
    recorded,
    worker_count,
)
from moeopt.parallel import available_cores
from moeopt.recording import write_trace
from moeopt.trace import Trace


@pytest.mark.parametrize(
    ("text", "layers"),
    [(None, None), ("3", [3]), ("0-3,7", [0, 1, 2, 3, 7]), ("7, 1-2,2", [1, 2, 7]), ("4-4", [4])],
)
def test_layers_are_listed_in_order(text: str | None, layers: list[int] | None) -> None:
    assert layer_list(text) == layers


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1.5", "0-100001", "200000"])
def test_other_layers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--layers"):
        layer_list(text)


def test_weights_are_read_family_by_family() -> None:
    assert family_shares(None) is None
    assert family_shares("code=2, math=0.5") == {"code": 2.0, "math": 0.5}
    assert family_shares("a=b=1") == {"a=b": 1.0}


@pytest.mark.parametrize("text", ["", "code", "=1", "code=", "code=two", "code=nan", "code=inf", "a=1,a=2"])
def test_other_weights_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--weights"):
        family_shares(text)


def test_names_and_families() -> None:
    assert name_list(" linear,swap ") == ["linear", "swap"]
    with pytest.raises(ValueError, match="--methods must be names separated by commas, found 'a,'"):
        name_list("a,")
    assert named_families(None, ["code"]) == ""
    assert named_families({"code": 1}, ["code"]) == ""
    assert named_families({"code": 1, "math": 0}, ["code", "math", "chat"]) == (
        "families without weight: math, chat"
    )


def test_slots_and_workers() -> None:
    assert [even_slots(9, gpus) for gpus in (1, 2, 4, 9, 10, 0)] == [9, 5, 3, 1, 1, 9]
    assert worker_count(5, layers=3) == 3
    assert worker_count(2, layers=3) == 2
    assert worker_count(None, layers=10_000) == available_cores()
    with pytest.raises(ValueError, match="--workers must be at least 1, found 0"):
        worker_count(0, layers=3)


def test_layers_that_a_file_lacks_are_named_with_the_file(tmp_path: Path) -> None:
    write_trace(Trace(np.array([[[0], [1]]]), 2, layer_ids=np.array([2, 5], np.int32)), tmp_path / "trace")
    assert recorded(tmp_path / "trace", "5").layer_ids.tolist() == [5]
    with pytest.raises(ValueError, match=r"trace: layer 3 is not in the trace, whose layers are \[2, 5\]"):
        recorded(tmp_path / "trace", "3")
