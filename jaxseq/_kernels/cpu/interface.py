"""Whether a library was compiled for the interface of XLA that this jaxlib has."""

import re
from pathlib import Path
from typing import Any

import jax


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
