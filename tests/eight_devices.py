"""Compares scans on eight devices, in a process of its own, which has that many."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxseq
from tests import bodies

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)


def with_layouts(w):
    """A body that says where its values go."""

    def body(h, x):
        z = jnp.matmul(h, w["h"], out_sharding=P("d", "m"))
        z = z + x @ w["x"] + w["b"]
        h = jax.reshard(jax.nn.relu(z), P("d", None))
        return h, jnp.tanh(z)

    return body


def tokens(w):
    def body(h, t):
        x = w["embed"].at[t].get(out_sharding=P("d", None))
        h = bodies.core(w, h, x)
        return h, h

    return body


def plain(w):
    return lambda h, x: (lambda h: (h, h))(bodies.core(w, h, x))


def gradients(scan, make, w, h, x):
    def loss(w, h):
        end, y = scan(make(w), h, x)
        return jnp.sin(end).sum() + jnp.cos(y).sum(), (end, y)

    return jax.grad(loss, argnums=(0, 1), has_aux=True)(w, h)


def compared(make, w, h, x):
    told = jaxseq.explain(make(w), h, x)
    assert "in the loop" in told, told
    got, want = (
        jax.jit(partial(gradients, scan, make))(w, h, x)
        for scan in (jaxseq.scan, lax.scan)
    )
    assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def main():
    bodies.B = 8
    w, h, x = bodies.vanilla(np.random.default_rng(0))
    w["embed"] = jnp.ones((5, bodies.D)).cumsum(0)
    t = jnp.asarray(np.random.default_rng(0).integers(0, 5, (bodies.T, 8)))
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(AxisType.Explicit,) * 2)
    put = jax.device_put
    with jax.set_mesh(mesh):
        over = {"x": P(None, "m"), "h": P(None, "m"), "b": P("m"), "embed": P()}
        parts = {k: put(a, over[k]) for k, a in w.items()}
        whole = {k: put(a, P()) for k, a in w.items()}
        rows = put(h, P("d")), put(x, P(None, "d"))
        compared(with_layouts, parts, *rows)
        compared(plain, whole, *rows)
        compared(plain, whole, put(h, P(("d", "m"))), put(x, P(None, ("d", "m"))))
        compared(tokens, whole, rows[0], put(t, P(None, "d")))
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(AxisType.Auto,) * 2)
    every = ("d", "m")
    for check_vma in (True, False):

        def each(run, w, h, x, check_vma=check_vma):
            d, (end, y) = gradients(run, plain, w, h, x)
            if not check_vma:
                d = lax.psum(d[0], every), d[1]
            return d, (end, y)

        specs = (P(), P(every), P(None, every))
        outs = (P(), P(every)), (P(every), P(None, every))
        got, want = (
            jax.jit(
                jax.shard_map(
                    partial(each, run), mesh=mesh, in_specs=specs, out_specs=outs,
                    check_vma=check_vma,
                )
            )(w, h, x)
            for run in (jaxseq.scan, lax.scan)
        )  # fmt: skip
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    print("all are as those of lax.scan")


if __name__ == "__main__":
    main()
