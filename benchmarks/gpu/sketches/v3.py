"""V3: a cluster of C blocks for 16 or 32 sequences, `h` through global memory.

The batch is the N side of the tensor core's product, so that a small batch wastes
nothing and many clusters share a large one. A block has H/C columns of every gate,
all in one product of 4H/C rows. With `grid` the blocks of a batch are no cluster:
all blocks of the grid meet at one semaphore, and all have to be on the GPU at once.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from benchmarks.gpu.sketches.common import (
    gpu,
    outputs,
    parameters,
    store,
    tiled,
    update,
)


def lstm(
    z_x: Any,
    w_h: Any,
    h: Any,
    c: Any,
    *,
    C: int,
    rows: int = 16,
    grid: bool = False,
    lane: bool = True,
    approx: bool = True,
    interpret: Any = None,
) -> Any:
    _, T, B, H = z_x.shape
    N, dtype, tiles = H // C, w_h.dtype, B // rows
    width = min(N, 32)
    layout = gpu.Layout.TILED(
        gpu.Tiling(((16, width), (4, width // 8))),
        warp_dims=(-4,),
        lane_dims=(-2, -3),
        vector_dim=-1,
    )

    def body(z_g, w_g, h_g, c_g, y_g, c_end, *, w_s, h_s, z_s, s_s, y_s, c_s, **bar):
        batch = pl.ds(lax.axis_index("b") * rows, rows)
        columns = pl.ds(lax.axis_index("c") * N, N)
        everyone = pl.get_global(gpu.SemaphoreType.REGULAR) if grid else None

        def fetch(t, slot):
            source = z_g.at[:, t, batch, columns]
            gpu.copy_gmem_to_smem(source, z_s.at[slot], bar["z"].at[slot])

        def meet(t):
            if not grid:
                gpu.barrier_arrive(bar["all"])
                gpu.barrier_wait(bar["all"])
                return
            gpu.semaphore_signal(everyone, memory_scope="gpu")
            gpu.semaphore_wait(
                everyone,
                value=(t + 1) * C * tiles,
                decrement=False,
                memory_scope="gpu",
            )

        for g in range(4):
            target = w_s.at[pl.ds(g * N, N), :]
            gpu.copy_gmem_to_smem(w_g.at[g, columns, :], target, bar["w"])
        gpu.copy_gmem_to_smem(h_g.at[batch, :], h_s, bar["start"])
        gpu.copy_gmem_to_smem(c_g.at[batch, columns], c_s, bar["start"])
        fetch(0, 0)
        gpu.barrier_wait(bar["w"])
        gpu.barrier_wait(bar["start"])

        def step(t, c):
            slot = lax.rem(t, 2)
            more = t + 1 < T
            pl.when(more)(lambda: fetch(t + 1, 1 - slot))

            def product(sums):
                gpu.wgmma(sums, w_s, h_s.T)
                return sums[...]

            z_h = pl.run_scoped(product, gpu.ACC((4 * N, rows), jnp.float32))
            store(s_s.T, gpu.layout_cast(z_h, gpu.Layout.WGMMA_TRANSPOSED))
            # all warps have stored before any of them loads another's part
            gpu.commit_smem()
            gpu.barrier_wait(bar["z"].at[slot])
            z = []
            for g in range(4):
                of_gate = s_s.at[:, pl.ds(g * N, N)]
                z_h = gpu.load(of_gate, layout=layout, optimized=False)
                z_x = gpu.load(z_s.at[slot, g], layout=layout, optimized=False)
                z.append(z_h + z_x.astype(jnp.float32))
            h, c = update(z, c)
            y_s[...] = h.astype(dtype)
            gpu.commit_smem()
            gpu.copy_smem_to_gmem(y_s, y_g.at[t, batch, columns])
            gpu.wait_smem_to_gmem(0)
            meet(t)

            @pl.when(more)
            def _():
                gpu.copy_gmem_to_smem(y_g.at[t, batch, :], h_s, bar["y"])
                gpu.barrier_wait(bar["y"])

            return c

        start = gpu.load(c_s, layout=layout, optimized=False)
        c_s[...] = lax.fori_loop(0, T, step, start)
        gpu.commit_smem()
        gpu.copy_smem_to_gmem(c_s, c_end.at[batch, columns])
        gpu.wait_smem_to_gmem(0)

    scratch = dict(
        w_s=gpu.SMEM((4 * N, H), dtype, transforms=tiled(dtype, H)),
        h_s=gpu.SMEM((rows, H), dtype, transforms=tiled(dtype, H)),
        z_s=gpu.SMEM((2, 4, rows, N), z_x.dtype),
        s_s=gpu.SMEM((rows, 4 * N), jnp.float32),
        y_s=gpu.SMEM((rows, N), dtype),
        c_s=gpu.SMEM((rows, N), jnp.float32),
        w=gpu.Barrier(num_arrivals=4),
        start=gpu.Barrier(num_arrivals=2),
        y=gpu.Barrier(),
        z=gpu.Barrier(num_barriers=2),
    )
    if grid:
        blocks = {"grid": (tiles, C), "grid_names": ("b", "c")}
    else:
        scratch["all"] = gpu.ClusterBarrier(collective_axes=("c",))
        blocks = {"grid": (tiles,), "grid_names": ("b",)}
        blocks |= {"cluster": (C,), "cluster_names": ("c",)}
    kernel = gpu.kernel(
        body,
        out_type=outputs(z_x, w_h),
        scratch_types=scratch,
        compiler_params=parameters(lane, approx),
        **blocks,
        **({} if interpret is None else {"interpret": interpret}),
    )
    return kernel(z_x, w_h, h, c)
