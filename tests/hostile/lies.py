"""Arrays and tensors whose headers lie."""

from __future__ import annotations

from tests.hostile.cases import Folder
from tests.hostile.contents import DEEP, MANY, encoded, framed, header, tensors
from tests.hostile.tiny import COUNTS, GIVEN, META


def add_arrays(folder: Folder) -> None:
    """Of `.npy`: shapes that no file holds, types that no reader takes, headers that do not end."""
    shapes = {
        "2^60 elements": f"({1 << 60},)",
        "2^60 x 2^60 elements": f"({1 << 60}, {1 << 60})",
        "nothing times 2^60": f"(0, {1 << 60}, 2)",
        "10^5000 elements": f"({'9' * 5000},)",
        "a negative axis": "(-1, 2, 2)",
        "10^4 axes": "(" + "1, " * MANY + ")",
        "many brackets": "(" * 30_000 + ")" * 30_000,
        "a long sum": "(" + "1+" * 30_000 + "1,)",
        "a long power": "(9**9**9**9,)",
    }
    for name, shape in shapes.items():
        version = 2 if len(shape) > 60_000 else 1
        content = header(shape, "'|u1'", version=version)
        folder.add(f"npy: {name}", "traffic", content, GIVEN)
        folder.add(f"npy in use: {name}", "running", content, {"gpus": 2})
    for descr in ("'<U1000000000'", "'|V2000000000'", "'<U0'", "'" + "i4," * 9999 + "i4'", "[('a', '|O')]"):
        folder.add(f"npy: of type {descr:.15}", "traffic", header("(1, 2, 2)", descr), GIVEN)
    magic = b"\x93NUMPY\x02\0"
    folder.add("npy: a header of 4 GiB", "traffic", magic + b"\xff\xff\xff\xff{", GIVEN)
    folder.add("npy in use: a header of 4 GiB", "running", magic + b"\xff\xff\xff\xff{", {"gpus": 2})
    folder.add("npy: version 255", "traffic", b"\x93NUMPY\xff\xff" + bytes(64), GIVEN)


def add_tensors(folder: Folder) -> None:
    """Statistics of TensorRT-LLM whose tensors lie."""
    one = {"dtype": "I64", "shape": [4], "data_offsets": [0, 32]}
    many = b'{"1_0": 1' + b', "1_1": 1' * DEEP + b"}"
    lies: dict[str, bytes] = {
        "a header of 2^63 bytes": framed(b"{}", length=1 << 63),
        "a header of 2^40 bytes": framed(b"{}", length=1 << 40),
        "a header of 10^6 brackets": framed(b'{"a":' + b"[" * DEEP),
        "10^6 equal names": framed(many),
        "10^5 tensors at one place": framed({f"1_{i}": one for i in range(100_000)}, bytes(32)),
        "tensors that overlap": framed({"1_0": one, "1_1": one | {"data_offsets": [16, 48]}}, bytes(48)),
        "tensors with a gap": framed({"1_0": one, "1_1": one | {"data_offsets": [40, 72]}}, bytes(72)),
        "an end of 2^63": framed({"1_0": one | {"data_offsets": [0, 1 << 63]}}, bytes(32)),
        "a negative begin": framed({"1_0": one | {"data_offsets": [-32, 0]}}, bytes(32)),
        "an end before its begin": framed({"1_0": one | {"data_offsets": [32, 0]}}, bytes(32)),
        "a shape of 2^60": framed({"1_0": one | {"shape": [1 << 60]}}, bytes(32)),
        "a shape of nothing times 2^45": framed(
            {"1_0": one | {"shape": [0, 1 << 45], "data_offsets": [0, 0]}}
        ),
        "a shape of 33 axes": framed({"1_0": one | {"shape": [1] * 32 + [4]}}, bytes(32)),
        "objects": framed({"1_0": one | {"dtype": "O"}}, bytes(32)),
        "a name of 10^6 letters": framed({"1" * DEEP: one}, bytes(32)),
        "a layer of ten digits": framed({"1_" + "9" * 5000: one}, bytes(32)),
    }
    for name, content in lies.items():
        folder.add(
            f"safetensors: {name}", "traffic", {"meta_info.json": encoded(META), "rank0.safetensors": content}
        )
    meta = {"num_experts": 65_536, "num_experts_per_token": 2, "ep_size": 65_536}
    folder.add(
        "TensorRT-LLM: 65536 ranks told",
        "traffic",
        {"meta_info.json": encoded(meta), "rank0.safetensors": tensors(**COUNTS)},
    )
    deep = {"meta_info.json": b"[" * DEEP, "rank0.safetensors": tensors(**COUNTS)}
    folder.add("TensorRT-LLM: 10^6 brackets", "traffic", deep)
