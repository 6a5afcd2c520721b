"""What the header of a sound file says, and whether it can be so."""

import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from experiments.frame.errors import InputError

# of the format; the bytes a second are of no use
FORMAT = ("channels", "samples a second", "", "bytes a sample")


def check_header(path: Path) -> None:
    """Refuses a header that tells of no sound where there is some.

    Sizes are written last: those of a recording that was not ended are 0, and that of
    a sound sent while it was made is the largest there is. What is not read is told.
    """
    content = path.read_bytes()
    order = {b"RIFF": "<", b"RIFX": ">"}.get(content[:4])
    if order is None or len(content) < 12:
        return  # which is not for this to judge
    for name, at, size in chunks(content, order):
        there = len(content) - at
        if name == b"fmt " and there >= 14:
            found = struct.unpack_from(f"{order}HIIH", content, at + 2)
            for value, what in zip(found, FORMAT, strict=True):
                if not value and what:
                    raise InputError(f"{path}: 0 {what} in its header")
        if name == b"data":
            if there and 0 in (size, struct.unpack_from(f"{order}I", content, 4)[0]):
                raise InputError(
                    f"{path}: no sound by its header, after which there are {there:,} "
                    "bytes: a recording that was not ended?"
                )
            after = content[at + size + size % 2 :]
            if there < size < 0x7FFFFFFF:
                note(path, f"cut off, {there:,} of {size:,} bytes of sound are there")
            elif after.strip(b"\0") and not re.match(rb"[ -~]{4}", after):
                note(path, f"{len(after):,} bytes after the sound are left out")
            return


def chunks(content: bytes, order: str) -> Iterator[tuple[bytes, int, int]]:
    """The name of each part of a file, where it starts, and its size."""
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from(f"{order}4sI", content, at)
        yield name, at + 8, size
        at += 8 + size + size % 2


def note(path: Path, text: str) -> None:
    print(f"{path}: {text}", file=sys.stderr)
