"""What it costs thread blocks to meet, or to hand each other a tile, each step.

The kernels do nothing else. How many steps they do is an argument, and the time of a
step is a difference of two runs, so that a launch costs nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from benchmarks.gpu.sketches.common import gpu, parameters
from benchmarks.gpu.task import Task
from benchmarks.timing import sample

FEW, MANY = 1000, 11000
TILE = (64, 32)  # of bfloat16, what a block of 8 hands on at 64 sequences and H = 256
LANES = 128


def launch(
    body: Callable[..., None], scratch: dict[str, Any], blocks: dict[str, Any]
) -> Callable[[Any], Any]:
    """A kernel from the number of steps to a number of each block, all of them 1."""
    cluster = blocks.get("cluster", (1,))[0]
    count = blocks["grid"][0] * cluster

    def whole(steps_g: Any, done_g: Any, **refs: Any) -> None:
        body(steps_g[0], **refs)
        axes = [lax.axis_index(n) for n in blocks["grid_names"]]
        axes += [lax.axis_index(n) for n in blocks.get("cluster_names", ())]
        block = axes[0] if len(axes) == 1 else axes[0] * cluster + axes[1]
        one = jnp.float32(1)
        done = gpu.layout_cast(
            lax.broadcast(one, (LANES,)), gpu.Layout.WG_STRIDED((LANES,), 1)
        )
        done_g.at[block][...] = done

    return gpu.kernel(
        whole,
        out_type=jax.ShapeDtypeStruct((count, LANES), jnp.float32),
        scratch_types=scratch,
        compiler_params=parameters(lane=True, approx=False),
        **blocks,
    )


def of_cluster(C: int) -> dict[str, Any]:
    grid = {"grid": (1,), "grid_names": ("b",)}
    return {**grid, "cluster": (C,), "cluster_names": ("c",)}


def cluster_barrier(C: int) -> Any:
    def body(steps: Any, *, everyone: Any) -> None:
        def step(_: Any, carry: Any) -> Any:
            gpu.barrier_arrive(everyone)
            gpu.barrier_wait(everyone)
            return carry

        lax.fori_loop(0, steps, step, jnp.int32(0))

    everyone = gpu.ClusterBarrier(collective_axes=("c",))
    return launch(body, {"everyone": everyone}, of_cluster(C))


def store_async(C: int) -> Any:
    """Every block stores a tile into every block's shared memory and waits for all."""

    def body(steps: Any, *, tiles: Any, came: Any, started: Any) -> None:
        me = lax.axis_index("c")
        tile = gpu.layout_cast(lax.broadcast(jnp.bfloat16(1), TILE), gpu.Layout.WGMMA)
        gpu.barrier_arrive(started)
        gpu.barrier_wait(started)

        def step(t: Any, carry: Any) -> Any:
            slot = lax.rem(t, 2)
            for p in range(C):
                gpu.async_store_smem(
                    tile,
                    tiles.at[slot, me],
                    came.at[slot],
                    cluster_idx=jnp.int32(p),
                    cluster_dim="c",
                )
            gpu.barrier_wait(came.at[slot])
            return carry

        lax.fori_loop(0, steps, step, jnp.int32(0))

    transforms = gpu.TilingTransform((8, 32)), gpu.SwizzleTransform(64)
    scratch = {
        "tiles": gpu.SMEM((2, C, *TILE), jnp.bfloat16, transforms=transforms),
        "came": gpu.Barrier(num_arrivals=C, num_barriers=2),
        "started": gpu.ClusterBarrier(collective_axes=("c",)),
    }
    return launch(body, scratch, of_cluster(C))


def semaphore(blocks: int) -> Any:
    """All blocks of a grid, which must all be on the GPU at once."""

    def body(steps: Any) -> None:
        everyone = pl.get_global(gpu.SemaphoreType.REGULAR)

        def step(t: Any, carry: Any) -> Any:
            gpu.semaphore_signal(everyone, memory_scope="gpu")
            gpu.semaphore_wait(
                everyone,
                value=(t + 1) * blocks,
                decrement=False,
                memory_scope="gpu",
            )
            return carry

        lax.fori_loop(0, steps, step, jnp.int32(0))

    return launch(body, {}, {"grid": (blocks,), "grid_names": ("b",)})


SYNCS: dict[str, Callable[[], Any]] = {
    "cluster-barrier-8": partial(cluster_barrier, 8),
    "cluster-barrier-16": partial(cluster_barrier, 16),
    "semaphore-48": partial(semaphore, 48),
    "semaphore-128": partial(semaphore, 128),
    "store-async-2": partial(store_async, 2),
    "store-async-8": partial(store_async, 8),
}
NAMES = tuple(SYNCS)


def main(task: Task, name: str) -> None:
    task.lines.shared["measure"] = name
    device = task.device()
    if device is None:
        return
    kernel = jax.jit(SYNCS[name]())
    if task.dry:
        shape = jax.ShapeDtypeStruct((1,), jnp.int32)
        text = kernel.trace(shape).lower(lowering_platforms=("cuda",)).as_text()
        task.lines.write(lowered_for="cuda", characters=len(text), error="no GPU")
        return

    def ms(steps: int) -> float:
        argument = jnp.full(1, steps, jnp.int32)
        done = np.asarray(kernel(argument))
        if not np.all(done == 1):
            raise ArithmeticError(f"{np.sum(done != 1)} blocks did not end well")
        return min(
            sample(lambda: jax.block_until_ready(kernel(argument))) for _ in range(9)
        )

    # few first: a kernel that hangs shows before it is asked for more
    few, many = ms(FEW), ms(MANY)
    task.lines.write(us=1e3 * (many - few) / (MANY - FEW), launch_us=1e3 * few)
