"""What the sketches share: layouts, problems, and the same in a scan."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

gpu: Any = plgpu  # its names differ between versions of jax


def tiled(dtype: Any, width: int) -> Any:
    """Transforms of shared memory that a tensor core reads, for rows of `width`."""
    size = np.dtype(dtype).itemsize
    for swizzle in (128, 64, 32):
        if width % (swizzle // size) == 0:
            tiling = gpu.TilingTransform((8, swizzle // size))
            return tiling, gpu.SwizzleTransform(swizzle)
    raise ValueError(f"rows of {width} fit no swizzle")


def store(ref: Any, value: Any) -> None:
    """Stores with bank conflicts allowed, which later versions want to be told."""
    if hasattr(gpu, "store"):
        gpu.store(ref, value, optimized=False)
    else:
        ref[...] = value


def parameters(lane: bool, approx: bool) -> Any:
    semantics = gpu.LoweringSemantics
    return gpu.CompilerParams(
        lowering_semantics=semantics.Lane if lane else semantics.Warpgroup,
        approx_math=approx,
    )


def outputs(z_x: Any, w_h: Any) -> Any:
    _, T, B, H = z_x.shape
    y = jax.ShapeDtypeStruct((T, B, H), w_h.dtype)
    return y, jax.ShapeDtypeStruct((B, H), jnp.float32)


def update(z: Any, c: Any) -> tuple[Any, Any]:
    """New `h` and `c` from the four gates before their functions."""
    i, f, g, o = z
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def scan(z_x: Any, w_h: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """What a kernel has to compute."""

    def step(state: Any, z: Any) -> Any:
        h, c = state
        product = jnp.einsum("bk,gnk->gbn", h, w_h, preferred_element_type=jnp.float32)
        h, c = update(z.astype(jnp.float32) + product, c)
        h = h.astype(w_h.dtype)
        return (h, c), h

    (_, c), y = lax.scan(step, (h, c), jnp.moveaxis(z_x, 1, 0))
    return y, c


def draw(T: int, B: int, H: int, dtype: Any) -> tuple[Any, ...]:
    random = np.random.default_rng(0)
    normal = lambda *s: jnp.asarray(random.standard_normal(s, np.float32))
    z_x, w_h = normal(4, T, B, H) / 2, normal(4, H, H) / H**0.5
    h, c = normal(B, H) / 2, normal(B, H) / 2
    return z_x.astype(dtype), w_h.astype(dtype), h.astype(dtype), c
