"""V1: a cluster of C blocks for 64 sequences, `h` through global memory.

The batch is the M side of the tensor core's product. A block has H/C columns of
every gate.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from benchmarks.gpu.sketches.common import gpu, outputs, parameters, tiled, update


def lstm(
    z_x: Any,
    w_h: Any,
    h: Any,
    c: Any,
    *,
    C: int,
    rows: int = 64,
    lane: bool = False,
    approx: bool = True,
    interpret: Any = None,
) -> Any:
    _, T, B, H = z_x.shape
    N, dtype, layout = H // C, w_h.dtype, gpu.Layout.WGMMA

    def body(z_g, w_g, h_g, c_g, y_g, c_end, *, w_s, h_s, z_s, y_s, **bar):
        batch = pl.ds(lax.axis_index("b") * rows, rows)
        columns = pl.ds(lax.axis_index("c") * N, N)

        def fetch(t, slot):
            for g in range(4):
                source = z_g.at[g, t, batch, columns]
                gpu.copy_gmem_to_smem(source, z_s.at[slot, g], bar["z"].at[slot])

        for g in range(4):
            gpu.copy_gmem_to_smem(w_g.at[g, columns, :], w_s.at[g], bar["w"])
        gpu.copy_gmem_to_smem(h_g.at[batch, :], h_s, bar["h"])
        fetch(0, 0)
        gpu.barrier_wait(bar["w"])
        gpu.barrier_wait(bar["h"])
        c = gpu.load(c_g.at[batch, columns], layout=layout, optimized=False)

        def step(t, c):
            slot = lax.rem(t, 2)
            more = t + 1 < T
            pl.when(more)(lambda: fetch(t + 1, 1 - slot))

            def products(*sums):
                for g in range(4):
                    gpu.wgmma(sums[g], h_s, w_s.at[g].T)
                return tuple(s[...] for s in sums)

            sums = [gpu.ACC((rows, N), jnp.float32) for _ in range(4)]
            z_h = pl.run_scoped(products, *sums)
            gpu.barrier_wait(bar["z"].at[slot])
            z = [gpu.load(z_s.at[slot, g], layout=layout) for g in range(4)]
            z = [a.astype(jnp.float32) + b for a, b in zip(z, z_h, strict=True)]
            h, c = update(z, c)
            y_s[...] = h.astype(dtype)
            gpu.commit_smem()
            gpu.copy_smem_to_gmem(y_s, y_g.at[t, batch, columns])
            gpu.wait_smem_to_gmem(0)
            gpu.barrier_arrive(bar["all"])
            gpu.barrier_wait(bar["all"])

            @pl.when(more)
            def _():
                gpu.copy_gmem_to_smem(y_g.at[t, batch, :], h_s, bar["y"])
                gpu.barrier_wait(bar["y"])

            return c

        c_end.at[batch, columns][...] = lax.fori_loop(0, T, step, c)

    scratch = dict(
        w_s=gpu.SMEM((4, N, H), dtype, transforms=tiled(dtype, H)),
        h_s=gpu.SMEM((rows, H), dtype, transforms=tiled(dtype, H)),
        z_s=gpu.SMEM((2, 4, rows, N), z_x.dtype, transforms=tiled(z_x.dtype, N)),
        y_s=gpu.SMEM((rows, N), dtype, transforms=tiled(dtype, N)),
        w=gpu.Barrier(num_arrivals=4),
        h=gpu.Barrier(),
        y=gpu.Barrier(),
        z=gpu.Barrier(num_arrivals=4, num_barriers=2),
        all=gpu.ClusterBarrier(collective_axes=("c",)),
    )
    kernel = gpu.kernel(
        body,
        out_type=outputs(z_x, w_h),
        scratch_types=scratch,
        grid=(B // rows,),
        grid_names=("b",),
        cluster=(C,),
        cluster_names=("c",),
        compiler_params=parameters(lane, approx),
        **({} if interpret is None else {"interpret": interpret}),
    )
    return kernel(z_x, w_h, h, c)
