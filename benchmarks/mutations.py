"""Changes of an input: bits, bytes and blocks at random, and checksums of archives mended to fit."""

import io
import random
import zipfile
import zlib

import numpy as np

LONGEST = 1 << 15  # bytes of an input
INTERESTING = (
    0,
    1,
    127,
    128,
    255,
    256,
    32_767,
    65_535,
    1 << 31,
    (1 << 32) - 1,
    1 << 46,
    (1 << 63) - 1,
    (1 << 64) - 1,
)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one to six changes: bits, bytes, numbers, blocks moved, doubled or left out, the end cut off."""
    found = bytearray(content)
    draw = random.Random(int(rng.integers(1 << 63)))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(found) + 1)
        size = min(draw.choice((1, 1, 2, 4, 8, 16, 64)), len(found) - at)
        match draw.randrange(8):
            case 0 if at < len(found):
                found[at] ^= 1 << draw.randrange(8)
            case 1 if at < len(found):
                found[at] = draw.randrange(256)
            case 2:
                wide = draw.choice((1, 2, 4, 8))
                number = draw.choice(INTERESTING) & ((1 << (8 * wide)) - 1)
                found[at : at + wide] = number.to_bytes(wide, draw.choice(("little", "big")))
            case 3:
                del found[at : at + size]
            case 4:
                found[at:at] = found[at : at + size]
            case 5:
                to = draw.randrange(len(found) + 1)
                found[to : to + size] = found[at : at + size]
            case 6:
                found[at:at] = draw.randbytes(draw.choice((1, 2, 8)))
            case 7 if draw.random() < 0.2:
                del found[at:]
    return bytes(found[:LONGEST])


def mended(content: bytes) -> bytes:
    """An archive whose list of members holds the checksums of what they store; other content as it is."""
    found = bytearray(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            at = archive.start_dir
            for info in archive.infolist():
                if content[at : at + 4] != b"PK\1\2":
                    break
                lengths = [int.from_bytes(content[at + i : at + i + 2], "little") for i in (28, 30, 32)]
                begin = (
                    info.header_offset
                    + 30
                    + sum(
                        int.from_bytes(content[info.header_offset + i : info.header_offset + i + 2], "little")
                        for i in (26, 28)
                    )
                )
                if info.compress_type == zipfile.ZIP_STORED:
                    check = zlib.crc32(content[begin : begin + info.compress_size])
                    found[at + 16 : at + 20] = check.to_bytes(4, "little")
                at += 46 + sum(lengths)
    except (zipfile.BadZipFile, RuntimeError, ValueError, LookupError, OverflowError, OSError):
        return content  # what is wrong with it, the reader is to say
    return bytes(found)
