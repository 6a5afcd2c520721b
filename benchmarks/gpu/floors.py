"""What a GPU can do, measured, and the least time that a step can then take."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.kinds import BFLOAT16, FLOAT16, FLOAT32, TF32, Kind, precision
from benchmarks.gpu.task import Task
from benchmarks.shapes import GATES, Shape, flops
from benchmarks.timing import sample

KINDS = (BFLOAT16, FLOAT32, TF32, FLOAT16)


class Rates(NamedTuple):
    """Operations of matrix products by kind, and bytes read and written, a second."""

    flops: dict[str, float]
    bytes: float


def best_ms(run: Callable[[], Any], repeats: int = 8) -> float:
    run()
    return min(sample(run) for _ in range(repeats))


def measure_rates(task: Task, device: Any, kinds: tuple[Kind, ...] = KINDS) -> Rates:
    N = 256 if task.dry else 8192
    random = np.random.default_rng(0)
    # random data: products of zeros draw less power and run faster
    pair = random.standard_normal((2, N, N), np.float32)
    found = {}
    for kind in kinds:
        with precision(kind):
            a, b = jax.device_put(tuple(pair.astype(kind.dtype)), device)
            dot = jax.jit(jnp.dot).lower(a, b).compile()
        ms = best_ms(lambda dot=dot, a=a, b=b: jax.block_until_ready(dot(a, b)))
        found[kind.name] = 2 * N**3 / ms * 1e3
    size = 1 << (20 if task.dry else 29)
    a = jax.device_put(jnp.zeros(size, jnp.float32), device)
    add = jax.jit(lambda a: a + 1).lower(a).compile()
    ms = best_ms(lambda: jax.block_until_ready(add(a)))
    return Rates(found, 2 * a.nbytes / ms * 1e3)


def numbers_moved(op: str, mode: str, shape: Shape) -> int:
    """Numbers that have to pass through the memory of the device, weights apart.

    Forward: x read, z_x written and read, y written. The gradient besides: gates and
    the cell saved and read again; x, y and dy read; dx written; dz written once and
    read by the three products for dx, dw_x and dw_h.
    """
    B, T, D, H = shape
    Z, cell = GATES[op] * H, H * (op == "lstm")
    forward = D + 2 * Z + H
    backward = 2 * (Z + cell) + D + 2 * H + D + 4 * Z
    return B * T * (forward + (backward if mode == "gradient" else 0))


def floors_us(
    op: str, mode: str, shape: Shape, kind: Kind, rates: Rates
) -> dict[str, float]:
    """Microseconds a step: all matrix products, and all bytes moved, at full rate."""
    size = np.dtype(kind.dtype).itemsize
    products = flops(op, mode, shape) / rates.flops[kind.name]
    moved = numbers_moved(op, mode, shape) * size / rates.bytes
    return {
        "product_floor_us": 1e6 * products / shape.T,
        "bytes_floor_us": 1e6 * moved / shape.T,
    }
