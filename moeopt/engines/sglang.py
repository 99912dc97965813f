"""SGLang: the JSON file of `--init-expert-location`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from moeopt.engine import KEY, Notes, PhysicalMap, equal_slots, numbers, physical_map, placement_of
from moeopt.engine_files import document_of, object_with, table_of
from moeopt.placement import Placement


@dataclass(frozen=True)
class SGLang:
    """`{"physical_to_logical_map": [hidden layers][slots]}` and nothing else: SGLang passes every key to a constructor.

    Rows are all hidden layers by position; dense layers get the trivial row, slot i holds expert i mod E. Serve with
    `--ep-num-redundant-experts` slots - E and `--ep-size` GPUs. Source: sglang 0.5.23, srt/eplb/expert_location.py.
    """

    name: ClassVar[str] = "sglang"
    summary: ClassVar[str] = "SGLang --init-expert-location, JSON"
    suffix: ClassVar[str] = ".json"

    def check(self, placement: Placement, *, hidden_layers: int | None = None, pad: bool = False) -> str:
        """Which rule of SGLang the placement breaks; settings as for `dump`."""
        ids = placement.layer_ids
        total = max(ids) + 1 if hidden_layers is None else hidden_layers
        if min(ids) < 0 or len(set(ids)) < len(ids) or max(ids) >= total:
            return f"layer ids must be distinct and below {total} hidden layers, found {list(ids)}"
        return equal_slots(placement, pad=pad)

    def dump(
        self,
        placement: Placement,
        *,
        hidden_layers: int | None = None,
        pad: bool = False,
        loads: ArrayLike | None = None,
    ) -> bytes:
        """JSON of the placement.

        `hidden_layers`: layers of the model, dense ones included (default: last layer id + 1). `pad` fills free slots
        as `moeopt.engine.padded` does, by `loads` [layers, experts] where given; else they raise ValueError.
        """
        if broken := self.check(placement, hidden_layers=hidden_layers, pad=pad):
            raise ValueError(broken)
        rows = physical_map(placement, pad=pad, loads=loads)
        total = max(placement.layer_ids) + 1 if hidden_layers is None else hidden_layers
        all_rows = np.tile(np.arange(rows.shape[1]) % placement.n_experts, (total, 1))
        all_rows[list(placement.layer_ids)] = rows
        return (json.dumps({KEY: all_rows.tolist()}) + "\n").encode()

    def accepts(self, content: bytes) -> bool:
        """A JSON object with this one key."""
        document = object_with(content, KEY)
        return document is not None and len(document) == 1

    def read(self, content: bytes) -> PhysicalMap:
        """All rows: every hidden layer by position."""
        document = document_of(content)
        if not isinstance(document, dict):
            raise ValueError(f"expected a JSON object, found {type(document).__name__}")
        if list(document) != [KEY]:
            raise ValueError(f"the only key must be {KEY!r}, found {sorted(document)!r:.120}")
        rows = table_of(document[KEY])
        return PhysicalMap(rows, tuple(range(len(rows))), hidden=True)

    def load(
        self,
        content: bytes,
        *,
        gpus: int,
        nodes: int = 1,
        layer_ids: Sequence[int] | None = None,
        model: str = "",
    ) -> Placement:
        """The placement of the layers `layer_ids` (default: all rows; dense rows look like any other)."""
        rows = self.read(content).rows
        ids = tuple(range(len(rows))) if layer_ids is None else tuple(layer_ids)
        for layer in ids:
            if not 0 <= layer < len(rows):
                raise ValueError(f"layer {layer} is not among the {len(rows)} rows")
        experts = int(rows.max()) + 1
        return placement_of(
            rows[list(ids)], experts=experts, gpus=gpus, nodes=nodes, layer_ids=ids, model=model
        )

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """Flags of `sglang.launch_server`; ValueError unless `path` ends in .json."""
        if not path.endswith(".json"):
            raise ValueError(f"SGLang reads a placement from a file that ends in .json, found {path!r}")
        gpus, _, redundant, remarks = numbers(self, placement)
        return Notes(
            "sglang 0.5.23",
            (
                *("python", "-m", "sglang.launch_server", "--model-path", "<model>"),
                *("--tp-size", gpus, "--ep-size", gpus, "--ep-num-redundant-experts", redundant),
                *("--init-expert-location", path),
            ),
            remarks=(
                *remarks,
                "Leave --enable-eplb off: it replaces the placement after --eplb-rebalance-num-iterations.",
                "The file has a row for every hidden layer: export with --hidden-layers where the last ones are dense.",
                "--ep-dispatch-algorithm static (nearest copy first) or dynamic (equal) splits an expert's tokens.",
            ),
        )
