"""MoE layers of a Hugging Face model, found by what their experts take."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = ["CHOICES", "MoeLayer", "moe_layers"]

CHOICES = (
    "top_k_index",
    "router_indices",
)  # what transformers calls the ids that a module of experts is given


@dataclass(frozen=True)
class MoeLayer:
    """One MoE layer of a model.

    | field | holds |
    |---|---|
    | layer | absolute index among the hidden layers, the last number in `path` |
    | path | dotted name of the module of experts in the model |
    | experts | that module: called with hidden states and the ids [tokens, k] chosen for them |
    | n_experts | routed experts |
    | argument | name of the parameter, the second, that holds the ids |
    """

    layer: int
    path: str
    experts: Any
    n_experts: int
    argument: str


def moe_layers(model: Any) -> tuple[MoeLayer, ...]:
    """The MoE layers of a `torch.nn.Module`, ascending by `layer`.

    Since transformers 5 a router of any kind, biased or limited to groups, hands the ids that it chose to one module
    per layer that holds all routed experts: `forward(hidden_states, top_k_index, top_k_weights)`. That signature is
    what is looked for; no list of models is kept. Raises ValueError naming what was found when there is no such
    module, when two of them have the same layer number (two stacks, such as thinker and talker: record each on its
    own), or when layers differ in the number of experts.
    """
    found = sorted(_found(model), key=lambda one: one.layer)
    if not found:
        likely = sorted({type(module).__name__ for _, module in model.named_modules() if _likely(module)})
        raise ValueError(
            f"{type(model).__name__} has no module forward(hidden_states, {' or '.join(CHOICES)}, weights), "
            f"as MoE layers have since transformers 5; modules named after experts or routers: "
            f"{', '.join(likely) or 'none'}"
        )
    for first, second in pairwise(found):
        if first.layer == second.layer:
            raise ValueError(
                f"layer {first.layer} must have one module of experts, found {first.path} and {second.path}: "
                "record one stack of layers at a time"
            )
        if first.n_experts != second.n_experts:
            raise ValueError(
                f"layers must have the same number of experts, found {first.n_experts} in layer {first.layer} "
                f"and {second.n_experts} in layer {second.layer}"
            )
    return tuple(found)


def _found(model: Any) -> Iterator[MoeLayer]:
    for path, module in model.named_modules():
        if not (argument := _argument(module)):
            continue
        if not (numbers := [int(part) for part in path.split(".") if part.isdecimal()]):
            raise ValueError(f"the path of experts must hold the number of their layer, found {path!r}")
        count = getattr(module, "num_experts", None)
        if not isinstance(count, int):
            raise ValueError(f"{path} ({type(module).__name__}) must have num_experts, found {count!r}")
        yield MoeLayer(numbers[-1], path, module, count, argument)


def _argument(module: Any) -> str:
    """Name of the parameter with the ids chosen; empty for any other module."""
    names = list(inspect.signature(type(module).forward).parameters)[2:3]  # after self and the hidden states
    return names[0] if names and names[0] in CHOICES else ""


def _likely(module: Any) -> bool:
    name = type(module).__name__
    return any(word in name for word in ("Expert", "Router", "MoE", "Moe", "SparseMLP")) or name.endswith(
        "Gate"
    )
