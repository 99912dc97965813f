"""Engines' own loading code on our exports, without a GPU: python -m benchmarks.engine_import WHEEL...

Wheels of sglang, vllm and vllm-ascend, as `pip download --no-deps` leaves them; torch must be installed. The modules
that read a placement are executed out of the wheel, on stand-ins for the server around them. A row says which release
read what, or why it was not tried. Not part of the tests: the wheels have hundreds of megabytes.
"""

import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import numpy as np

from moeopt.engine import physical_map
from moeopt.engines.sglang import SGLang
from moeopt.engines.vllm import VARIABLE, VLLM
from moeopt.engines.vllm_ascend import VLLMAscend
from moeopt.placement import Placement
from moeopt.vllm_plugin import kept_slots, register

LAYERS, EXPERTS, GPUS, SLOTS, DENSE = 58, 256, 32, 9, 3  # DeepSeek-V3 with 32 redundant experts
SKIPPED = {
    "tensorrt-llm": "no wheel on the package index",
    "omniplacement": "no wheel on the package index",
    "eplb": "no package; nothing reads its arrays from a file",
}
Modules = dict[str, ModuleType]


def example() -> Placement:
    """A placement of the size of DeepSeek-V3, at random."""
    rng = np.random.default_rng(0)
    hosts = np.zeros((LAYERS, EXPERTS, GPUS), bool)
    for layer in hosts:
        layer[rng.permutation(EXPERTS), np.arange(EXPERTS) % GPUS] = True
        for gpu in layer.T:
            gpu[rng.choice(np.flatnonzero(~gpu), SLOTS - gpu.sum(), replace=False)] = True
    return Placement(
        hosts, hosts.argmax(axis=2), 4, SLOTS, tuple(range(DENSE, DENSE + LAYERS)), "deepseek-v3"
    )


def module(name: str, **content: Any) -> ModuleType:
    """A stand-in for a module."""
    made = ModuleType(name)
    made.__dict__.update(content)
    made.__path__ = []
    return made


@contextmanager
def installed(modules: Modules) -> Iterator[None]:
    """The modules importable, parents included, for as long as it lasts."""
    tops = {name.partition(".")[0] for name in modules}
    for name in modules:
        parts = name.split(".")
        for end in range(1, len(parts)):
            sys.modules.setdefault(".".join(parts[:end]), module(".".join(parts[:end])))
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
            del sys.modules[name]


def executed(wheel: Path, name: str, *, package: bool = False) -> ModuleType:
    """A module of the wheel, run as it is."""
    file = name.replace(".", "/") + ("/__init__.py" if package else ".py")
    with zipfile.ZipFile(wheel) as archive:
        source = archive.read(file)
    made = module(name, __file__=file, __package__=name if package else name.rpartition(".")[0])
    sys.modules[name] = made
    exec(compile(source, file, "exec"), made.__dict__)
    return made


def read_by_sglang(wheel: Path, placement: Placement, folder: Path) -> str:
    """`compute_initial_expert_location_metadata` on the file of `--init-expert-location`."""
    path, total = folder / "map.json", DENSE + LAYERS
    path.write_bytes(SGLang().dump(placement, hidden_layers=total))
    moe = SimpleNamespace(
        init_expert_location=str(path),
        ep_num_redundant_experts=GPUS * SLOTS - EXPERTS,
        moe_a2a_backend="none",
        ep_dispatch_algorithm="dynamic",
        ep_join_mode=None,
    )
    parallel = SimpleNamespace(ep_size=GPUS, nnodes=4, tp_size=GPUS, elastic_ep_initial_size=None)
    context = module(
        "sglang.srt.runtime_context",
        get_device=lambda: SimpleNamespace(device="cpu"),
        get_exec=lambda: SimpleNamespace(moe=moe),
        get_parallel=lambda: parallel,
        get_resources=lambda: None,
    )
    loader = module("sglang.srt.model_loader")
    with installed({context.__name__: context, loader.__name__: loader, "sglang.srt.eplb": module("eplb")}):
        read = executed(wheel, "sglang.srt.eplb.expert_location")
        shape = read.ModelConfigForExpertLocation(num_layers=total, num_logical_experts=EXPERTS)
        model = type("Model", (), {"get_model_config_for_expert_location": staticmethod(lambda _: shape)})
        loader.get_model_architecture = lambda _: (model, None)  # type: ignore[attr-defined]
        found = read.compute_initial_expert_location_metadata(SimpleNamespace(hf_config=None), 0)
    rows = found.physical_to_logical_map.numpy()
    if not np.array_equal(rows[DENSE:], physical_map(placement)):
        return "read, but not as written"
    copies = found.logical_to_all_physical_map_num_valid.numpy()[DENSE:]
    same = np.array_equal(copies, placement.hosts.sum(axis=2))
    return f"{len(rows)} layers x {rows.shape[1]} slots as written, copies of experts {'agree' if same else 'differ'}"


def read_by_vllm(wheel: Path, placement: Placement, folder: Path) -> str:
    """The plug-in registers in vLLM's own registry, which then answers as vLLM asks, with torch tensors."""
    import torch

    path = folder / "plan.json"
    path.write_bytes(VLLM().dump(placement))
    config = module("vllm.config.parallel", EPLBPolicyOption=Literal["default"])
    name = "vllm.distributed.eplb.policy"
    with installed({config.__name__: config, name: module(name)}):
        for part in ("abstract", "default"):
            executed(wheel, f"{name}.{part}")
        policies = executed(wheel, name, package=True)
        os.environ[VARIABLE] = str(path)
        register()
        chosen = policies.EPLB_POLICIES["default"]
        load = torch.rand(LAYERS, EXPERTS)
        old = (torch.arange(GPUS * SLOTS) % EXPERTS).repeat(LAYERS, 1)
        found = chosen.rebalance_experts(load, GPUS * SLOTS, 8, 4, GPUS, old)
        again = chosen.rebalance_experts(load, GPUS * SLOTS, 8, 4, GPUS, found)
        theirs = policies.DefaultEplbPolicy.preserve_intragpu_slots(
            physical_map(placement), GPUS, old.numpy()
        )
    rows, wanted = found.numpy(), physical_map(placement)
    if not np.array_equal(np.sort(rows.reshape(LAYERS, GPUS, -1)), wanted.reshape(LAYERS, GPUS, -1)):
        return "answered, but not with the plan"
    kept = np.array_equal(kept_slots(wanted, old.numpy(), gpus=GPUS), theirs)
    slots = "the default's" if kept else "others than the default's"
    moved = "nothing moves" if torch.equal(found, again) else "slots move"
    return f"{found.dtype} {tuple(found.shape)}, the plan; slots are {slots}; asked again {moved}"


def read_by_vllm_ascend(wheel: Path, placement: Placement, folder: Path) -> str:
    """`expert_file_to_tensor` on every layer of the map."""
    path = folder / "map.json"
    path.write_bytes(VLLMAscend().dump(placement))
    logger = SimpleNamespace(warning=lambda *_: None, info=lambda *_: None)
    names = {
        "vllm.logger": module("vllm.logger", logger=logger),
        "vllm.distributed": module("vllm.distributed", get_ep_group=lambda: None),
        "vllm.model_executor.layers.fused_moe.expert_map_manager": module(
            "expert_map_manager", determine_expert_map=None
        ),
    }
    with installed(names):
        read = executed(wheel, "vllm_ascend.eplb.core.eplb_utils")
        found = [read.expert_file_to_tensor(str(path), layer) for layer in range(LAYERS)]
    rows = np.stack([table.numpy().reshape(-1) for table, _ in found])
    if not np.array_equal(rows, physical_map(placement)) or {count for _, count in found} != {GPUS * SLOTS}:
        return "read, but not as written"
    return f"{LAYERS} layers x {GPUS} devices x {SLOTS} experts as written"


READERS: dict[str, Callable[[Path, Placement, Path], str]] = {
    "sglang": read_by_sglang,
    "vllm": read_by_vllm,
    "vllm_ascend": read_by_vllm_ascend,
}


def main(wheels: list[str]) -> None:
    """A row for each engine: name, release, what happened."""
    placement, given = example(), {Path(wheel).name.partition("-")[0]: Path(wheel) for wheel in wheels}
    for name, read in READERS.items():
        if name not in given:
            print(f"| {name} | – | skipped: no wheel given |")
        elif find_spec("torch") is None:
            print(f"| {name} | {given[name].name.split('-')[1]} | skipped: its module needs torch |")
        else:
            with tempfile.TemporaryDirectory() as folder:
                verdict = read(given[name], placement, Path(folder))
            print(f"| {name} | {given[name].name.split('-')[1]} | {verdict} |")
    for name, reason in SKIPPED.items():
        print(f"| {name} | – | skipped: {reason} |")


if __name__ == "__main__":
    main(sys.argv[1:])
