"""Long inputs over eight devices, in a process of its own, which has that many."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxseq
from tests.eight_collectives import narrow_sums
from tests.test_collectives import sent

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)

B, T, H, L = 4, 16, 4, 4
RNG = np.random.default_rng(0)
KEYS = jax.random.split(jax.random.key(0), L)


def total(out):
    return sum(jnp.sin(a + i).sum() for i, a in enumerate(jax.tree.leaves(out)))


def gradients(run, *args):
    grad = jax.value_and_grad(lambda args: total(run(*args)))
    return jax.jit(grad).lower(args).compile()


def same(found, want):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def kinds(compiled):
    """The collectives, and whether each stands in a loop."""
    return sorted((kind, inside != "") for kind, _, inside in sent(compiled))


def linear():
    over, whole = P("data", "time"), P("data")
    a, b = RNG.uniform(-1, 1, (B, T, H)), RNG.standard_normal((B, T, H))
    args = a, b, RNG.standard_normal((B, H))
    want = gradients(jaxseq.linear_scan, *args)(args)
    specs = over, over, whole
    args = tuple(jax.device_put(v, s) for v, s in zip(args, specs, strict=True))
    how = {"axis": "time", "batch_axis": "data"}
    compiled = gradients(partial(jaxseq.linear_scan, **how), *args)
    same(compiled(args), want)
    found = kinds(compiled)
    assert found.count(("all-gather", False)) == 1, found
    assert {kind for kind, _ in found} == {"all-gather", "all-reduce"}, found
    assert not any(inside for _, inside in found), found


def layers():
    lengths, resets = np.array([16, 0, 9, 5]), RNG.random((B, T)) < 0.2
    params = [jaxseq.lstm_init(key, H, H, dtype=jnp.float64) for key in KEYS]
    states = [jaxseq.LSTMState(*RNG.standard_normal((2, B, H))) for _ in KEYS]
    options = {"lengths": lengths, "resets": resets}
    x = RNG.standard_normal((B, T, H))

    def stacked(params, x, states):
        run = [partial(jaxseq.lstm, p) for p in params]
        return jaxseq.stack(run, x, states, **options)

    args = params, x, states
    how = {"axis": "layer", "batch_axis": "data", "chunk": 4, **options}
    run = partial(jaxseq.wavefront, jaxseq.lstm, **how)
    same(gradients(run, *args)(args), gradients(stacked, *args)(args))

    together = lambda trees: jax.tree.map(lambda *a: jnp.stack(a), *trees)

    def in_one(*args):
        end, y = stacked(*args)
        return together(end), y

    value, (d, dx, ds) = gradients(in_one, *args)(args)
    want = value, (together(d), dx, together(ds))
    params = jax.device_put(together(params), P("layer"))
    states = jax.device_put(together(states), P("layer", "data"))
    args = params, jax.device_put(x, P("data")), states
    compiled = gradients(run, *args)
    value, (d, dx, ds) = compiled(args)
    same((value, (d, dx, ds)), want)
    assert jax.tree.leaves(d)[0].sharding.spec[0] == "layer"
    found = kinds(compiled)
    # one a tick each way, and in no loop but these
    assert found.count(("collective-permute", True)) == 2, found
    others = {kind for kind in found if kind != ("collective-permute", True)}
    assert others == {("all-reduce", False)}, found


def in_shards():
    """Within a `shard_map` over another axis, of which JAX has no gradient."""
    params = [jaxseq.gru_init(k, H, H, dtype=jnp.float64) for k in KEYS]
    x, lengths = RNG.standard_normal((B, T, H)), np.array([16, 0, 9, 5])
    want = jaxseq.stack([partial(jaxseq.gru, p) for p in params], x, lengths=lengths)

    def run(params, x, lengths):
        how = {"axis": "layer", "chunk": 5, "lengths": lengths}
        return jaxseq.wavefront(jaxseq.gru, params, x, **how)

    for check_vma in (True, False):
        over = jax.shard_map(
            run,
            in_specs=(P(), P("data"), P("data")),
            out_specs=P("data"),
            axis_names={"data"},
            check_vma=check_vma,
        )
        same(jax.jit(over)(params, x, lengths), want)


def sums_are_wide():
    """Gradients of weights in 16 bits are summed over the batch in float32."""
    params = [jaxseq.gru_init(k, H, H, dtype=jnp.bfloat16) for k in KEYS]
    x = jax.device_put(jnp.ones((B, T, H), jnp.bfloat16), P("data"))
    how = {"axis": "layer", "batch_axis": "data", "chunk": 4}
    run = partial(jaxseq.wavefront, jaxseq.gru, **how)
    loss = lambda params: jnp.sin(run(params, x)[1].astype(jnp.float32)).sum()
    narrow = narrow_sums(jax.jit(jax.grad(loss)).lower(params))
    outputs = f"bf16[{B // 2},{T},{H}]"  # which are those of one device, and zeros
    assert set(narrow) <= {outputs}, narrow


def main():
    kinds = (AxisType.Auto,) * 2
    with jax.set_mesh(jax.make_mesh((2, 4), ("data", "time"), axis_types=kinds)):
        linear()
    with jax.set_mesh(jax.make_mesh((2, 4), ("data", "layer"), axis_types=kinds)):
        layers()
        in_shards()
        sums_are_wide()
    print("all are as on one device")


if __name__ == "__main__":
    main()
