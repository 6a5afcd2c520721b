"""Calls of the native kernels as files: programs, arrays, and the right results."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxseq
from examples.cells.layer_norm_lstm import LAYER_NORM_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU
from jaxseq._kernels.cpu import build

TYPES = {"int32": 0, "float32": 1, "float64": 2, "bool": 3}


class Call(NamedTuple):
    arguments: list[np.ndarray]  # the first three are the program
    results: list[np.ndarray]


def calls_of(f: Callable[..., Any], *args: Any) -> list[Call]:
    """What the kernel is given, and gives, when `f` is run."""
    real, found = jax.ffi.ffi_call, []

    def spy(name: str, like: Any, **options: Any) -> Any:
        def call(*arguments: Any) -> Any:
            keep = lambda *a: found.append(([np.array(b) for b in a], like))
            jax.debug.callback(keep, *arguments)
            return real(name, like, **options)(*arguments)

        return call

    jax.ffi.ffi_call = spy
    try:
        jax.block_until_ready(jax.jit(f)(*args))
        jax.effects_barrier()
    finally:
        jax.ffi.ffi_call = real
    again = lambda a, like: jax.jit(real(build.TARGET, like))(*a)
    return [Call(a, [np.array(b) for b in again(a, like)]) for a, like in found]


def write(call: Call, path: Path) -> None:
    with path.open("wb") as f:
        for arrays in call:
            f.write(struct.pack("q", len(arrays)))
            for a in arrays:
                head = TYPES[a.dtype.name], a.ndim, *a.shape
                f.write(struct.pack(f"{len(head)}q", *head))
                f.write(np.ascontiguousarray(a).tobytes())


SHAPES = [(3, 4, 5, 37), (70, 3, 4, 24), (2, 3, 1, 1), (5, 1, 3, 8), (0, 3, 2, 3)]
SHAPES += [(3, 0, 2, 3), (1, 9, 16, 33)]


def cases() -> dict[str, tuple[Callable[..., Any], Any]]:
    """Functions and their arguments, of all that the kernel does."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    found: dict[str, tuple[Callable[..., Any], Any]] = {}
    for n, (B, T, D, H) in enumerate(SHAPES):
        for op in ("lstm", "gru", "rnn"):
            dtype = (jnp.float32, jnp.float64)[n % 2]
            params = getattr(jaxseq, f"{op}_init")(jax.random.key(0), D, H, dtype=dtype)
            f = lambda params, x, op=op: getattr(jaxseq, op)(
                params, x, implementation="native"
            )
            found[f"{op}-{n}"] = f, (params, draw(B, T, D).astype(dtype))
    masks = {
        "lengths": jnp.asarray([0, 1, 3, 7, 6]),
        "mask": jnp.asarray(rng.random((5, 7)) < 0.6),
        "resets": jnp.asarray(rng.random((5, 7)) < 0.3),
    }
    cells = RESET_BEFORE_GRU, PROJECTED_LSTM, LAYER_NORM_LSTM
    for n, cell in enumerate(cells):
        params = cell.init(jax.random.key(0), 3, 9, dtype=jnp.float64)
        for reverse in (False, True):

            def masked(params: Any, x: Any, cell=cell, reverse=reverse) -> Any:
                run = lambda params, x: jaxseq.cell(
                    cell.update,
                    params,
                    x,
                    cell.zeros(params, (5,)),
                    **masks,
                    reverse=reverse,
                    implementation="native",
                )
                # what is saved for a gradient too
                return run(params, x), jax.vjp(run, params, x)[0]

            found[f"cell-{n}-{int(reverse)}"] = masked, (params, draw(5, 7, 3))
    return found


def write_all(folder: Path, every: int = 1) -> list[Path]:
    paths = []
    for i, (name, (f, args)) in enumerate(cases().items()):
        for k, call in enumerate(calls_of(f, *args) if i % every == 0 else ()):
            paths.append(folder / f"{name}-{k}.case")
            write(call, paths[-1])
    return paths
