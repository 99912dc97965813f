"""Names that lead astray, and things in the file system that are no files."""

from __future__ import annotations

import os
from pathlib import Path

from tests.hostile.cases import Folder
from tests.hostile.contents import MANY, npz
from tests.hostile.readers import READERS
from tests.hostile.tiny import ARRAYS


def add_places(folder: Folder) -> None:
    """Both, around a file that nobody should read."""
    secret = folder.path / "secret.npz"
    secret.write_bytes(npz(**ARRAYS))
    _add_names(folder, secret)
    _add_things(folder, secret)


def _add_names(folder: Folder, secret: Path) -> None:
    """Manifests whose names lead out of their folder, to what is no file, or nowhere."""
    names = (
        "../secret.npz",
        str(secret),
        "a/../../secret.npz",
        "..",
        ".",
        "/dev/zero",
        "a.npz",
        "link",
        "m.csv",
        "fifo",
        "",
        "a\0b",
        "\\\\x\\y",
        "x" * 5000,
        "loop",
    )
    for name in names:
        table = folder.add(
            f"manifest: file {name[:20]!r}", "traffic", {"m.csv": b"file\n" + name.encode() + b"\n"}
        )
        if name == "a.npz":
            (table.parent / "a.npz").mkdir()
        (table.parent / "link").symlink_to(secret)
        (table.parent / "loop").symlink_to(table.parent / "loop")
        os.mkfifo(table.parent / "fifo")


def _add_things(folder: Folder, secret: Path) -> None:
    """FIFOs, devices, links, folders and names that are no text, where every reader expects a file."""
    pipe, loop = folder.path / "pipe", folder.path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    crowd, linked = folder.path / "crowd", folder.path / "linked"
    crowd.mkdir()
    linked.mkdir()
    for number in range(MANY):
        (crowd / f"rank{number}.pt").touch()
    (linked / "a.pt").symlink_to(secret)
    ranks = folder.path / "ranks"
    ranks.mkdir()
    (ranks / "meta_info.json").symlink_to(secret)
    (ranks / "rank0.safetensors").symlink_to("/dev/zero")
    strange = Path(os.fsdecode(os.fsencode(str(folder.path)) + b"/\xff\xfe"))
    strange.write_bytes(b"{")
    places = {
        "a FIFO": pipe,
        "a device": Path("/dev/zero"),
        "a device of random bytes": Path("/dev/urandom"),
        "a device of nothing": Path("/dev/null"),
        "a link to itself": loop,
        "a folder of 10^4 files": crowd,
        "a folder of links": linked,
        "a folder of links to devices": ranks,
        "a file that is not there": folder.path / "none",
        "a file below a file": secret / "a",
        "a name of 5000 letters": folder.path / ("x" * 5000),
        "a name that is no text": strange,
    }
    for name, path in places.items():
        for by in READERS:
            folder.at(f"{by}: {name}", by, path, {"gpus": 2} if by == "running" else {})
