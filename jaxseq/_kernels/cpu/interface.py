"""Whether a library is for this machine, and for the interface of XLA that is here."""

import re
import struct
from pathlib import Path
from typing import Any

import jax


def damage(path: Path) -> str | None:
    """Why a file must not be loaded, as far as the headers of ELF say it, or None.

    To load a library whose end is missing may end the process.
    """
    own = Path("/proc/self/exe")
    if not own.exists():  # not Linux
        return None
    with path.open("rb") as file, own.open("rb") as other:
        head, like = file.read(4096), other.read(20)
    # the format, and the kind of processor
    if head[:6] != like[:6] or head[18:20] != like[18:20]:
        return f"{path} is not a library for this kind of machine: remove it"
    if like[4] == 2 and not _is_whole(head, path.stat().st_size):  # of 64 bits
        return f"{path} is not a whole library: remove it, or install jaxseq anew"
    return None


def _is_whole(head: bytes, size: int) -> bool:
    """Whether all that is to be loaded lies in a file of this size."""
    try:
        (first,) = struct.unpack_from("=Q", head, 32)
        each, number = struct.unpack_from("=HH", head, 54)
        at = [first + i * each for i in range(number)]
        ends = [sum(struct.unpack_from("=Q16xQ", head, i + 8)) for i in at]
    except struct.error:
        return False
    return max(ends, default=size + 1) <= size


def refusal(library: Any) -> str | None:
    """Why a library that has been loaded cannot be used here, or None."""
    try:
        made_for = divmod(library.JaxseqInterface(), 1000)
    except AttributeError:
        return "the library of native kernels does not say what it was compiled for"
    here = interface()
    # if it is not known here, JAX decides when it is registered
    if here is None or (made_for[0] == here[0] and made_for[1] <= here[1]):
        return None
    a, b = (".".join(map(str, pair)) for pair in (made_for, here))
    return (
        f"the library of native kernels was compiled for version {a} of the interface "
        f"of XLA, and this jaxlib has {b}: remove it, or install jaxseq anew"
    )


def interface() -> tuple[int, int] | None:
    """The version of the interface, of the header that jaxlib comes with."""
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")
    if not header.exists():
        return None
    text = header.read_text()
    found = [
        re.search(rf"define XLA_FFI_API_{name} (\d+)", text)
        for name in ("MAJOR", "MINOR")
    ]
    major, minor = (None if m is None else int(m[1]) for m in found)
    return None if major is None or minor is None else (major, minor)
