"""SGLang: the JSON file of `--init-expert-location`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from moeopt.engine import KEY, PhysicalMap, equal_slots, physical_map, placement_of, table_of
from moeopt.placement import Placement


@dataclass(frozen=True)
class SGLang:
    """`{"physical_to_logical_map": [hidden layers][slots]}` and nothing else: SGLang passes every key to a constructor.

    Rows are all hidden layers by position; dense layers get the trivial row, slot i holds expert i mod E. Serve with
    `--ep-num-redundant-experts` slots - E and `--ep-size` GPUs. Source: sglang 0.5.23, srt/eplb/expert_location.py.
    """

    name: ClassVar[str] = "sglang"
    summary: ClassVar[str] = "SGLang --init-expert-location, JSON"

    def check(self, placement: Placement, *, hidden_layers: int | None = None, pad: bool = False) -> str:
        """Which rule of SGLang the placement breaks; settings as for `dump`."""
        ids = placement.layer_ids
        total = max(ids) + 1 if hidden_layers is None else hidden_layers
        if min(ids) < 0 or len(set(ids)) < len(ids) or max(ids) >= total:
            return f"layer ids must be distinct and below {total} hidden layers, found {list(ids)}"
        return equal_slots(placement, pad=pad)

    def dump(self, placement: Placement, *, hidden_layers: int | None = None, pad: bool = False) -> bytes:
        """JSON of the placement.

        `hidden_layers`: layers of the model, dense ones included (default: last layer id + 1). `pad` fills free slots
        with copies of the lowest experts the GPU lacks; without it they raise ValueError.
        """
        if broken := self.check(placement, hidden_layers=hidden_layers, pad=pad):
            raise ValueError(broken)
        rows = physical_map(placement, pad=pad)
        total = max(placement.layer_ids) + 1 if hidden_layers is None else hidden_layers
        whole = np.tile(np.arange(rows.shape[1]) % placement.n_experts, (total, 1))
        whole[list(placement.layer_ids)] = rows
        return (json.dumps({KEY: whole.tolist()}) + "\n").encode()

    def accepts(self, content: bytes) -> bool:
        """A JSON object with this one key."""
        document = _document(content)
        return isinstance(document, dict) and list(document) == [KEY]

    def read(self, content: bytes) -> PhysicalMap:
        """All rows: every hidden layer by position."""
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error
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
        whole = self.read(content).rows
        ids = tuple(range(len(whole))) if layer_ids is None else tuple(layer_ids)
        for layer in ids:
            if not 0 <= layer < len(whole):
                raise ValueError(f"layer {layer} is not among the {len(whole)} rows")
        experts = int(whole.max()) + 1
        return placement_of(
            whole[list(ids)], experts=experts, gpus=gpus, nodes=nodes, layer_ids=ids, model=model
        )


def _document(content: bytes) -> Any:
    """What the content is as JSON; None where it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
