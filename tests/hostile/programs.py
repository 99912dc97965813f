"""Files that run code, or make objects without end, where somebody believes them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tests.hostile.cases import Folder
from tests.hostile.contents import DEEP, archived, b64, encoded, header, npy, npz
from tests.hostile.tiny import ARRAYS, GIVEN


def add_programs(folder: Folder, canary: str) -> None:
    """Pickles wherever a file may hold one, calls in headers, a tag of YAML."""
    for name, program in pickles(canary).items():
        folder.add(f"torch archive: {name}", "traffic", archived(program))
    plain = pickles(canary)["os.system"]
    folder.add("a plain pickle", "traffic", plain)
    folder.add("a pickle of protocol 0", "traffic", f"cos\nsystem\n(S'touch {canary}'\ntR.".encode())
    folder.add("a pickle as a placement", "placement", plain)
    folder.add("a pickle in use", "running", plain, {"gpus": 2})
    objects = npy(np.array([_Reduced(f"touch {canary}")], object), allow_pickle=True)
    folder.add("npy: an object that runs a command", "traffic", objects, GIVEN)
    folder.add("npy: in use", "running", objects, {"gpus": 2})
    folder.add("npz: an object that runs a command", "traffic", npz(**ARRAYS | {"experts": objects}))
    folder.add("routes: an object that runs a command", "traffic", npz(layer=objects, expert=objects))
    folder.add("logits: an object that runs a command", "traffic", npz(router_logits=objects), GIVEN)
    folder.add("partial: an object that runs a command", "partial", npz(header=objects))
    folder.add(
        "eplb: an object that runs a command", "running", npz(physical_to_logical_map=objects), {"gpus": 2}
    )
    call = f"__import__('os').system('touch {canary}')"
    for name, by in (("routed experts", "traffic"), ("omniplacement", "running")):
        folder.add(f"{name}: a header that is a call", by, header(call), {})
        folder.add(f"{name}: a type that is a call", by, header("(2, 2, 2)", call), {})
    answer = {"choices": [{"routed_experts": b64(objects)}]}
    folder.add("an answer with a pickled array", "traffic", encoded(answer), GIVEN)
    tagged = f'num_slots: 2\ninitial_global_assignments: !!python/object/apply:os.system ["touch {canary}"]\n'
    folder.add("YAML: a tag that runs a command", "running", tagged.encode(), {"gpus": 2})


def pickles(canary: str) -> dict[str, bytes]:
    """Pickles that would create a file, or take room, where they are believed."""
    touch = f"touch {canary}".encode()
    text = b"X" + len(touch).to_bytes(4, "little") + touch
    python = f"open({canary!r}, 'w')".encode()
    code = b"X" + len(python).to_bytes(4, "little") + python
    key = b"X\x0d\0\0\0logical_count"
    start = b"\x80\x02}" + key  # a dict that seems to be of SGLang
    laughs = (
        start
        + b"]q\0"
        + b"".join(
            b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(12)
        )
        + b"s."
    )
    return {
        "os.system": start + b"cos\nsystem\n" + text + b"\x85Rs.",
        "posix.system": start + b"cposix\nsystem\n" + text + b"\x85Rs.",
        "eval": start + b"cbuiltins\neval\n" + code + b"\x85Rs.",
        "exec by the stack": b"\x80\x04}" + key + b"\x8c\x08builtins\x8c\x04exec\x93" + code + b"\x85Rs.",
        "a call within a call": start
        + b"cbuiltins\ngetattr\ncbuiltins\n__import__\nX\x02\0\0\0os\x85RX\x06\0\0\0system\x86R"
        + text
        + b"\x85Rs.",
        "an instance": start + b"(" + text + b"ios\nsystem\ns.",
        "an object": start + b"(cos\nsystem\n" + text + b"os.",
        "a new object with a state": start + b"ccollections\nOrderedDict\n)\x81}b" + b"s.",
        "a tensor whose storage is a call": start
        + b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\n"
        + text
        + b"\x85RK\0))tRs.",
        "ten to the twelfth": laughs,
        "tuples in tuples": start + b")" + b"\x85" * DEEP + b"s.",
        "lists in lists": start + b"]" * DEEP + b"a" * (DEEP - 1) + b"s.",
        "a memo of many": start
        + b"]"
        + b"".join(b"r" + i.to_bytes(4, "little") for i in range(DEEP))
        + b"s.",
        "2^40 bytes": b"\x80\x05}" + key + b"\x96" + (1 << 40).to_bytes(8, "little") + b"s.",
        "text of 4 GiB": start + b"X\xff\xff\xff\xffas.",
        "a number of 2^31 digits": start + b"\x8b\xff\xff\xff\x7fs.",
    }


class _Reduced:
    """An object whose pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)
