"""TensorRT-LLM: the load balancer's configuration file."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from moeopt.engine import (
    Notes,
    PhysicalMap,
    equal_slots,
    numbers,
    physical_map,
    placement_of,
    settled_layers,
)
from moeopt.engine_files import MOST_EXPERTS, document_of, object_with, only_keys, table_of, whole
from moeopt.placement import Placement

SLOTS, ASSIGNMENTS, UPDATES = "num_slots", "initial_global_assignments", "layer_updates_per_iter"
KEYS = (SLOTS, ASSIGNMENTS, UPDATES)
TOP = re.compile(r"""^(["']?)([A-Za-z_]\w*)\1[ ]*:(?=[ \n]|$)""", re.MULTILINE | re.ASCII)
COMMENT = re.compile(r"^---[ ]*$|(?:^|[ ])#.*$", re.MULTILINE)
# An indented `3: [0, 1, 2]`, the list over any number of lines, or below `3:` one `- 0` a line.
LAYER = re.compile(
    r"""(?:[ ]*\n)+(?P<indent>[ ]+)(?P<quote>["']?)(?P<id>\d+)(?P=quote)[ ]*:"""
    r"""(?:[ ]+\[(?P<flow>[\d, \n]*)\]|(?P<block>(?:(?:[ ]*\n)++[ ]*+-[ ]++\d++)++))[ ]*(?=\n|$)""",
    re.ASCII,
)
NUMBER = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)  # no leading zero: YAML takes 010 for 8


@dataclass(frozen=True)
class TensorRTLLM:
    """`num_slots`, `initial_global_assignments` from absolute layer ids to lists of slots, `layer_updates_per_iter`.

    Only MoE layers appear; rank r owns the r-th block of slots; unknown keys are refused by the engine. Written as
    YAML, since keys of JSON are text and releases before the strict configuration class do not turn them into numbers.
    The few lines are written and read without a YAML library: any other YAML than block mappings with lists of numbers
    is refused, in time linear in the text, without aliases, tags or depth. JSON is read too. Source: tensorrt_llm,
    llmapi/llm_args.py MoeLoadBalancerConfig; examples/wide_ep/ep_load_balancer.
    """

    name: ClassVar[str] = "tensorrt-llm"
    summary: ClassVar[str] = "TensorRT-LLM moe_config.load_balancer, YAML"
    suffix: ClassVar[str] = ".yaml"

    def check(self, placement: Placement, *, pad: bool = False) -> str:
        """Layer ids are absolute, every GPU and layer fills the same number of slots; settings as for `dump`."""
        return settled_layers(placement) or equal_slots(placement, pad=pad)

    def dump(self, placement: Placement, *, pad: bool = False, loads: ArrayLike | None = None) -> bytes:
        """YAML of the placement, layers ascending, never updated while serving.

        `pad` fills free slots as `moeopt.engine.padded` does; else they raise ValueError.
        """
        if broken := self.check(placement, pad=pad):
            raise ValueError(broken)
        rows = physical_map(placement, pad=pad, loads=loads)
        lines = [f"{SLOTS}: {rows.shape[1]}", f"{UPDATES}: 0", f"{ASSIGNMENTS}:"]
        for index in np.argsort(placement.layer_ids):
            lines.append(f"  {placement.layer_ids[index]}: {rows[index].tolist()}")
        return ("\n".join(lines) + "\n").encode()

    def accepts(self, content: bytes) -> bool:
        """JSON or YAML with the assignments at the top level."""
        if content[:64].lstrip()[:1] == b"{":
            return object_with(content, ASSIGNMENTS) is not None
        return re.search(rb"""(?m)^["']?initial_global_assignments["']?[ \t]*:""", content) is not None

    def read(self, content: bytes) -> PhysicalMap:
        """The map of the layers it names, ascending."""
        document = document_of(content) if content[:64].lstrip()[:1] == b"{" else _yaml(content)
        only_keys(document, KEYS[:2], optional=KEYS[2:])
        slots = whole(document[SLOTS], SLOTS, least=1)
        whole(document.get(UPDATES, 0), UPDATES)
        layers = document[ASSIGNMENTS]
        if not isinstance(layers, dict) or not layers:
            raise ValueError(f"{ASSIGNMENTS} must map layers to lists, found {layers!r:.60}")
        by_id: dict[int, Any] = {}
        for name, row in layers.items():
            if not NUMBER.fullmatch(name):
                raise ValueError(f"a layer must be a whole number, found {name!r:.40}")
            if int(name) in by_id:
                raise ValueError(f"layer {int(name)} is given twice")
            if not isinstance(row, list) or len(row) != slots:
                found = len(row) if isinstance(row, list) else type(row).__name__
                raise ValueError(f"layer {name}: {SLOTS} is {slots}, the list has {found}")
            by_id[int(name)] = row
        ids = tuple(sorted(by_id))
        return PhysicalMap(table_of([by_id[layer] for layer in ids], ASSIGNMENTS), ids)

    def load(self, content: bytes, *, gpus: int, nodes: int = 1, model: str = "") -> Placement:
        """The placement on `gpus` GPUs, of the layers that the file names."""
        found = self.read(content)
        experts = int(found.rows.max()) + 1
        ids = found.layer_ids or ()
        return placement_of(found.rows, experts=experts, gpus=gpus, nodes=nodes, layer_ids=ids, model=model)

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """Flags of `trtllm-serve` and the options file that names the placement's."""
        gpus, slots, _, remarks = numbers(self, placement)
        return Notes(
            "tensorrt_llm, llmapi/llm_args.py",
            (
                *("trtllm-serve", "<model>", "--tp_size", gpus, "--ep_size", gpus),
                *("--extra_llm_api_options", "options.yaml"),
            ),
            config=(
                "# options.yaml\nenable_attention_dp: true\nmoe_config:\n  backend: WIDEEP\n"
                f"  load_balancer: {path}\n"
            ),
            remarks=(
                *remarks,
                f"num_slots is {slots}; layer_updates_per_iter is 0: the placement stays as it is.",
                "Slots above the number of experts need a back end with a load balancer, as WIDEEP.",
            ),
        )


def _yaml(content: bytes) -> dict[str, Any]:
    """The subset of YAML that the class names, as JSON would give it: keys are text."""
    try:
        text = COMMENT.sub("", content.decode().replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error}") from error
    heads = list(TOP.finditer(text))
    before = text[: heads[0].start()] if heads else text
    if before.strip():
        raise ValueError(f"expected keys {', '.join(KEYS)} of a block mapping, found {before.strip()!r:.40}")
    document: dict[str, Any] = {}
    for head, end in zip(heads, [*(one.start() for one in heads[1:]), len(text)], strict=bool(heads)):
        name, body = head[2], text[head.end() : end]
        if name in document:
            raise ValueError(f"key {name!r:.60} is given twice")
        if name == ASSIGNMENTS:
            document[name] = _layers(body)
        else:
            value = body.strip()
            document[name] = int(value) if NUMBER.fullmatch(value) else value
    return document


def _layers(body: str) -> dict[str, list[int]]:
    """Layers and their lists; ValueError with the text that is neither."""
    layers: dict[str, list[int]] = {}
    body, at, indent = body.rstrip(), 0, ""
    while at < len(body):
        found = LAYER.match(body, at)
        if found is None or (layers and found["indent"] != indent):
            raise ValueError(
                f"{ASSIGNMENTS}: expected indented lines `layer: [experts]`, found {body[at : at + 99].strip()!r:.60}"
            )
        layer, at, indent = found["id"], found.end(), found["indent"]
        if layer in layers:
            raise ValueError(f"layer {layer:.20} is given twice")
        layers[layer] = _experts(layer, found["flow"], block=found["block"], least=len(indent))
    return layers


def _experts(layer: str, flow: str | None, *, block: str | None, least: int) -> list[int]:
    """The whole numbers of a list."""
    if flow is not None:
        words = [item.strip() for item in flow.split(",")]
        if not words[-1]:
            words.pop()  # behind a last comma, or of an empty list
    else:
        lines = [line.rstrip() for line in (block or "").splitlines() if line.strip()]
        indents = {line.index("-") for line in lines}
        if len(indents) > 1 or min(indents) < least:
            raise ValueError(
                f"layer {layer:.20}: its list must be indented evenly, found columns {sorted(indents)}"
            )
        words = [line.lstrip(" -") for line in lines]
    for slot, word in enumerate(words):
        if not NUMBER.fullmatch(word) or int(word) >= MOST_EXPERTS:
            raise ValueError(
                f"layer {layer:.20}, slot {slot}: an expert is a whole number, found {word!r:.40}"
            )
    return [int(word) for word in words]
