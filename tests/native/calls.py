"""What the native kernels are given and give, in files that `harness.cc` reads."""

import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseq._kernels.cpu import build, call

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
    integers: list[int]  # of each result whether it has integers, as bits of floats


# of each program that `calls_of` has seen traced, which of its results have integers
INTEGERS: dict[Any, list[int]] = {}


def calls_of(f: Callable[..., Any], *args: Any) -> list[Call]:
    """All calls of the kernels when `f` is run."""
    real, real_run, found = jax.ffi.ffi_call, call.run, []
    number = count()  # in the order in which they are traced

    def traced(devices: Any, numbers: Any, masks: Any, args: Any, out: Any, *more: Any):
        are = [int(jnp.issubdtype(r.dtype, jnp.integer)) for r in out]
        INTEGERS[tuple(numbers.plan), tuple(numbers.code)] = are
        return real_run(devices, numbers, masks, args, out, *more)

    def spy(name: str, like: Any, **options: Any) -> Any:
        def run(*arguments: Any, **how: Any) -> Any:
            out = real(name, like, **options)(*arguments, **how)
            over = list((options.get("input_output_aliases") or {}).items())
            copied = lambda arrays: [np.array(a) for a in arrays]
            about = next(number), name, over, how
            keep = lambda a, b: found.append((*about, copied(a), copied(b)))
            if name in (build.TARGET, build.GRADIENTS, build.MEMBERS):
                jax.debug.callback(keep, arguments, out)
            return out

        return run

    jax.ffi.ffi_call, call.run = spy, traced
    try:
        compiled = jax.jit(f).lower(*args).compile(QUICKLY)
        jax.block_until_ready(compiled(*args))
        jax.effects_barrier()
    finally:
        jax.ffi.ffi_call, call.run = real, real_run
    calls = []
    for _, name, over, how, a, out in sorted(found, key=lambda call: call[0]):
        said = [how[word] for word in SAID] if name == build.GRADIENTS else []
        of_members = how.get("members", -1), list(map(int, how.get("own", "")))
        program = () if said else (tuple(a[0][2:].tolist()), tuple(a[1].tolist()))
        integers = INTEGERS.get(program, [0] * len(out))
        calls.append(Call(a, out, over, said, *of_members, integers))
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
        f.write(integers(len(call.integers), *call.integers))
