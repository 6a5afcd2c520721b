"""What the native kernels are given and give, in files that `harness.cc` reads."""

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseq._kernels.cpu import build

# as in src/plan.h
TYPES = {"int32": 0, "float32": 1, "float64": 2, "bool": 3, "bfloat16": 4, "float16": 5}
QUICKLY: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
SAID = "lefts", "turned", "before", "reverse", "vectors"  # as in src/read_gradients.h


class Call(NamedTuple):
    arguments: list[np.ndarray]  # of a run the first three are the program
    results: list[np.ndarray]
    over: list[tuple[int, int]]  # arguments whose memory a result may take
    said: list[int]  # of gradients of matrices; else empty
    members: int  # -1 without
    own: list[int]  # of each argument whether members are in front of it


def calls_of(f: Callable[..., Any], *args: Any) -> list[Call]:
    """All calls of the kernels when `f` is run."""
    real, found = jax.ffi.ffi_call, []

    def spy(name: str, like: Any, **options: Any) -> Any:
        def call(*arguments: Any, **how: Any) -> Any:
            over = list((options.get("input_output_aliases") or {}).items())
            about = name, like, over, how
            keep = lambda *a: found.append(([np.array(b) for b in a], *about))
            if name in (build.TARGET, build.GRADIENTS, build.MEMBERS):
                jax.debug.callback(keep, *arguments)
            return real(name, like, **options)(*arguments, **how)

        return call

    jax.ffi.ffi_call = spy
    try:
        compiled = jax.jit(f).lower(*args).compile(QUICKLY)
        jax.block_until_ready(compiled(*args))
        jax.effects_barrier()
    finally:
        jax.ffi.ffi_call = real
    calls = []
    for a, name, like, over, how in found:
        out = jax.jit(partial(real(name, like), **how))(*a)
        said = [how[word] for word in SAID] if name == build.GRADIENTS else []
        of_members = how.get("members", -1), list(map(int, how.get("own", "")))
        calls.append(Call(a, [np.array(b) for b in out], over, said, *of_members))
    return calls


def write(call: Call, path: Path) -> None:
    integers = lambda *n: struct.pack(f"{len(n)}q", *n)
    with path.open("wb") as f:
        for arrays in (call.arguments, call.results):
            f.write(integers(len(arrays)))
            for a in arrays:
                f.write(integers(TYPES[a.dtype.name], a.ndim, *a.shape))
                f.write(np.ascontiguousarray(a).tobytes())
        f.write(integers(len(call.over), *(n for pair in call.over for n in pair)))
        f.write(integers(len(call.said), *call.said))
        f.write(integers(call.members, len(call.own), *call.own))
