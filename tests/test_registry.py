"""Names: built-ins come through the door that plug-ins use, and a wrong name learns the right ones."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from moeopt import registry
from moeopt.exact import Exact

HEURISTICS = ("auto", "linear", "lpt", "random", "replicate", "round-robin", "swap", "swap-cut")
FORMULATIONS = ("assignment", "blocks", "pairs")
ENGINES = ("eplb", "omniplacement", "plain", "sglang", "tensorrt-llm", "vllm", "vllm-ascend")


@pytest.mark.parametrize("name", HEURISTICS + FORMULATIONS)
def test_every_method_bears_the_name_it_is_found_by(name: str) -> None:
    method = registry.named_method(name)
    assert method.name == name
    assert method.summary
    assert isinstance(method, Exact) == (name in FORMULATIONS)
    assert method in registry.all_methods()


def test_methods_are_listed_by_name() -> None:
    names = [method.name for method in registry.all_methods()]
    assert names == sorted(names)
    assert set(names) >= {*HEURISTICS, *FORMULATIONS}


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_bears_the_name_it_is_found_by(name: str) -> None:
    assert registry.named_engine(name).name == name


@pytest.mark.parametrize("name", ["Swap", "", "blocks "])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"no method is named {name!r}; known are ")) as error:
        registry.named_method(name)
    assert all(known in str(error.value) for known in HEURISTICS + FORMULATIONS)
    with pytest.raises(ValueError, match=re.escape(f"no engine is named {name!r}; known are {ENGINES[0]}")):
        registry.named_engine(name)


def test_two_packages_may_not_claim_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def claimed(*, group: str) -> Any:
        return EntryPoints([EntryPoint("twice", "moeopt.auto:Auto", group)])

    monkeypatch.setattr(registry, "entry_points", claimed)
    with pytest.raises(RuntimeError, match="a method and a formulation share the name 'twice'"):
        registry._points.__wrapped__()
