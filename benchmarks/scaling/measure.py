"""Times training steps on N processes of this machine; each runs this module.

    python -m experiments.launch 2 benchmarks.scaling.measure --results FILE

Process 0 appends a row for each size: the times of a step, and of sums over the
processes of as many numbers as its gradients have, and of one number.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.device import commit, device_name
from benchmarks.options import positive, shape
from benchmarks.rows import append
from benchmarks.slices.options import Sizes
from benchmarks.slices.sent import CALL
from benchmarks.slices.step import placed, training_step

# batch, window, layers, hidden
SHAPES = [(32, 32, 1, 128), (32, 32, 1, 256), (64, 32, 1, 256), (32, 32, 2, 256)]
EMBEDDING = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distributed", metavar="HOST:PORT,N,I")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--steps", type=positive, default=60)
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES)
    options = parser.parse_args()
    i = 0
    if options.distributed:
        address, *numbers = options.distributed.split(",")
        n, i = map(int, numbers)
        here = {"coordinator_bind_address": address} if i == 0 else {}
        jax.distributed.initialize(address, n, i, **here)
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    timed(total_of(mesh, 1), 2)  # the processes connect
    for B, T, layers, H in options.shapes:
        row = measure(mesh, B, Sizes(H, layers, EMBEDDING, B // mesh.size, T), options)
        if jax.process_index() == 0:
            print(row, flush=True)
            stamp = {"device": device_name(jax.devices()[0]), "commit": commit()}
            append(options.results, [row], **stamp)


def measure(mesh: Mesh, B: int, sizes: Sizes, options: Any) -> dict[str, Any]:
    step, shapes = training_step(sizes, mesh, dtype=jnp.float32)
    shapes = placed(mesh, shapes)
    draw = np.random.default_rng(0)

    def filled(a: Any) -> Any:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        value = draw.random(a.shape) * (256 if a.dtype == jnp.int32 else 0.05)
        value = np.asarray(value).astype(a.dtype)
        return jax.make_array_from_callback(a.shape, a.sharding, lambda at: value[at])

    whole = NamedSharding(mesh, PartitionSpec())
    rows = jax.tree.map(lambda a: a.sharding, shapes[1])
    compiled = (
        jax.jit(step, out_shardings=(whole, rows, whole)).lower(*shapes).compile()
    )
    state, carry, *rest = jax.tree.map(filled, shapes)
    weights = sum(a.size for a in jax.tree.leaves(state.weights))

    def once() -> None:
        nonlocal state, carry
        state, carry, loss = compiled(state, carry, *rest)
        jax.block_until_ready((state, carry, loss))

    steps = timed(once, options.steps)
    sums = timed(total_of(mesh, weights), options.steps)
    return {
        "processes": mesh.size,
        "batch": B,
        **sizes._asdict(),
        "weights": weights,
        "collectives": len(CALL.findall(compiled.as_text() or "")),
        "step_ms": steps,
        "sum_ms": sums,
        "sum_of_one_ms": timed(total_of(mesh, 1), options.steps),
    }


def total_of(mesh: Mesh, n: int) -> Callable[[], None]:
    """A sum over the processes of `n` numbers that each has."""
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    ones = np.ones((mesh.size, n), np.float32)
    a = jax.make_array_from_callback(ones.shape, rows, lambda at: ones[at])
    total = jax.jit(
        lambda a: a.sum(0), out_shardings=NamedSharding(mesh, PartitionSpec())
    )
    return lambda: jax.block_until_ready(total(a))


def timed(run: Callable[[], None], n: int) -> dict[str, float]:
    """Milliseconds; the first two runs compile."""
    for _ in range(2):
        run()
    found, cpu = [], time.process_time()
    for _ in range(n):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    times = {
        "least": min(found),
        "median": float(np.median(found)),
        "cpu": (time.process_time() - cpu) / n,
    }
    return {name: round(1000 * t, 3) for name, t in times.items()}


if __name__ == "__main__":
    main()
