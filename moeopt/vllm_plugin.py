"""A plug-in of vLLM: its balancing policy returns a plan of ours, read from the file that a variable names.

vLLM calls `register` in each of its processes, through the entry-point group `vllm.general_plugins`. Nothing happens
unless MOEOPT_VLLM_PLAN is set. Interface: vllm 0.33.0, vllm/distributed/eplb/policy (`AbstractEplbPolicy`,
`EPLB_POLICIES`), plugins/__init__.py. Neither vLLM nor torch is imported before it is needed.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.engine import physical_map
from moeopt.engines.vllm import VARIABLE, VLLM
from moeopt.placement import Placement

POLICIES, REPLACED = "vllm.distributed.eplb.policy", "default"


def register() -> None:
    """Put the plan's policy in the place of vLLM's default one; ValueError where the plan cannot be read."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    module = import_module(POLICIES)
    if REPLACED not in getattr(module, "EPLB_POLICIES", {}):
        raise ValueError(
            f"{VARIABLE}: this vLLM has no policy {REPLACED!r} in {POLICIES}.EPLB_POLICIES to replace"
        )
    # The registry itself is changed, since others hold it already.
    module.EPLB_POLICIES[REPLACED] = policy_of(_plan(path), module.AbstractEplbPolicy, source=path)


def policy_of(placement: Placement, base: type[Any], *, source: str) -> type[Any]:
    """A subclass of vLLM's abstract policy `base` that always answers with `placement`, read from `source`.

    `rebalance_experts` raises ValueError when vLLM asks for other layers, experts, slots or GPUs than the plan has.
    Experts that stay on their GPU keep the slots of `old_global_expert_indices`, so that they are not copied.
    """
    rows = physical_map(placement)
    wanted = (*placement.primary.shape, rows.shape[1], placement.gpus)

    def rebalance_experts(
        cls: type[Any],
        weight: Any,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Any = None,
    ) -> Any:
        """int64 [MoE layers, slots]: the plan, whatever the load."""
        if broken := _misfit(wanted, (*weight.shape, num_replicas, num_ranks)):
            raise ValueError(f"{source}: {broken}")
        old = None if old_global_expert_indices is None else old_global_expert_indices.cpu().numpy()
        kept = rows.copy() if old is None else kept_slots(rows, old, gpus=num_ranks)
        return import_module("torch").from_numpy(kept)

    return type(
        "PlannedPolicy", (base,), {"rebalance_experts": classmethod(rebalance_experts), "plan": placement}
    )


def kept_slots(rows: NDArray[np.int64], old: NDArray[Any], *, gpus: int) -> NDArray[np.int64]:
    """`rows` [layers, slots] with every expert that `old` has on the same GPU in its old slot.

    The others fill the slots left, in order. An `old` of another shape keeps nothing. No expert is twice on a GPU of
    `rows`.
    """
    if old.shape != rows.shape:
        return rows.copy()
    new, before = (table.reshape(len(rows), gpus, -1) for table in (rows, old))
    same = new[..., :, None] == before[..., None, :]
    stays, slot = same.any(axis=3), same.argmax(axis=3)
    kept = np.full_like(new, -1)
    layer, gpu, _ = np.indices(new.shape)
    kept[layer[stays], gpu[stays], slot[stays]] = new[stays]
    kept[kept < 0] = new[~stays]  # both in order of layer and GPU, as many of each
    return kept.reshape(rows.shape)


def _plan(path: str) -> Placement:
    try:
        return VLLM().load(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _misfit(wanted: tuple[int, ...], asked: tuple[int, ...]) -> str:
    """Which number of the plan vLLM does not share; empty when all agree."""
    names = ("MoE layers", "experts", "slots (num_redundant_experts + experts)", "GPUs")
    for name, ours, theirs in zip(names, wanted, asked, strict=True):
        if ours != theirs:
            return f"the plan has {ours} {name}, vLLM asks for {theirs}"
    return ""
