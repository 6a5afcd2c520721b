"""Every public function under donation, export, meshes and `shard_map`.

They are walked by the table of `tests/calls.py`.
"""

import inspect
from functools import cache, partial

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
import jaxseq.linen
import jaxseq.nn
from tests.calls import CALLS, RECURRENT, weights

NAMES = [n for n in dir(jaxseq) if not n.startswith("_")]
FUNCTIONS = [n for n in NAMES if inspect.isfunction(getattr(jaxseq, n))]
for _name in ("explain", "native_available"):  # which give no arrays
    FUNCTIONS.remove(_name)
FILES = {"load", "load_arrays", "load_config", "save"}  # which are not traced
FUNCTIONS = [n for n in FUNCTIONS if n not in FILES]
MODULES = [f"nn.{n}" for n in jaxseq.nn.__all__]
MODULES += [f"linen.{n}" for n in jaxseq.linen.__all__]
SIZES = B, T = 4, 5
P = jax.sharding.PartitionSpec

DOT = {"bidirectional": False, "score": "dot"}
SCALED = {"bidirectional": False, "score": "scaled_dot"}

every_call = pytest.mark.parametrize("name", CALLS)
a_fifth = pytest.mark.every(5)  # all of them are compiled in make test-long
sharded_calls = [name for name in CALLS if "_init" not in name]
every_sharded_call = pytest.mark.parametrize("name", sharded_calls)
assert_close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-5)


@pytest.fixture(autouse=True, scope="module")
def float32():
    """As most users have it."""
    with jax.enable_x64(False):
        yield


def axes_of(tree_of):
    """Of each array the names of its axes: "b" or "t" if that size changes it."""
    shape = lambda a: P(*a.shape)
    sizes = SIZES, (B + 2, T), (B, T + 2)
    shapes = [jax.tree.map(shape, tree_of(*pair)) for pair in sizes]

    def one(at, more_b, more_t):
        name = lambda n, b, t: "b" if b != n else "t" if t != n else None
        return P(*map(name, at, more_b, more_t))

    return jax.tree.map(one, *shapes)


def shapes_out(name):
    call = CALLS[name]
    return lambda B, T: jax.eval_shape(call.run, *call.args(B, T))


def is_float(a):
    return jnp.issubdtype(a.dtype, jnp.floating)


def with_gradients(run, args):
    """What `run` gives, and the gradients of a sum of it by all floats."""
    leaves, tree = jax.tree.flatten(args)
    at = [i for i, a in enumerate(leaves) if is_float(a)]

    def loss(moving):
        whole = list(leaves)
        for i, a in zip(at, moving, strict=True):
            whole[i] = a
        out = run(*tree.unflatten(whole))
        floats = filter(is_float, jax.tree.leaves(out))
        return sum((jnp.sin(a).sum() for a in floats), start=jnp.float32(0)), out

    return jax.grad(loss, has_aux=True)([leaves[i] for i in at])


def program(name, run):
    """`run` in place of that of the call, with its gradients if it has them."""
    if not CALLS[name].differentiable:
        return jax.jit(lambda *args: ((), run(*args)))
    return jax.jit(lambda *args: with_gradients(run, args))


@cache
def plain(name):
    call = CALLS[name]
    return program(name, call.run)(*call.args(*SIZES))


def test_every_public_name_has_a_call():
    assert set(FUNCTIONS + MODULES) == {name.split()[0] for name in CALLS}


def buffers(tree):
    return [a.unsafe_buffer_pointer() for a in jax.tree.leaves(tree)]


@pytest.mark.every(3)
@every_call
def test_no_buffer_twice(name):
    """So that what is returned can be donated, and what was given outlives it."""
    call = CALLS[name]
    args = jax.tree.map(jnp.array, call.args(*SIZES))
    out = call.run(*args)
    found = buffers(out)
    assert len(set(found)) == len(found)
    assert not set(found) & set(buffers(args))


@a_fifth
@every_call
def test_export_with_symbolic_sizes(name):
    """Of any size, without constraints, and through bytes."""
    call = CALLS[name]
    symbols = dict(zip("bt", jax.export.symbolic_shape("b, t"), strict=True))

    def symbolic(a, axes):
        pairs = zip(a.shape, axes, strict=True)
        shape = tuple(symbols.get(axis, n) for n, axis in pairs)
        return jax.ShapeDtypeStruct(shape, a.dtype)

    args = jax.tree.map(symbolic, call.args(*SIZES), axes_of(call.args))
    exported = jax.export.export(jax.jit(call.run))(*args)
    exported = jax.export.deserialize(exported.serialize())
    one, many = call.args(1, 1), call.args(*SIZES)

    @jax.jit
    def both(one, many):
        return call.run(*one), exported.call(*one), exported.call(*many)

    want, got, got_many = both(one, many)
    assert_close(got, want)
    assert_close(got_many, plain(name)[1])


def over_devices(axes):
    return P(*("d" if axis == "b" else None for axis in axes))


@a_fifth
@every_sharded_call
def test_on_an_explicit_mesh(name):
    call = CALLS[name]
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    specs = jax.tree.map(over_devices, axes_of(call.args))
    with jax.set_mesh(mesh):
        args = jax.tree.map(jax.device_put, call.args(*SIZES), specs)
        got = program(name, call.run)(*args)
        jax.eval_shape(lambda: call.run(*args))  # with values that are known
    assert_close(got, plain(name))


@a_fifth
@every_sharded_call
def test_in_shards(name):
    call = CALLS[name]
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    axes, axes_out = axes_of(call.args), axes_of(shapes_out(name))
    args = call.args(*SIZES)
    specs, specs_out = (jax.tree.map(over_devices, a) for a in (axes, axes_out))
    sharded = partial(jax.shard_map, mesh=mesh, in_specs=specs)
    if call.by_row:
        got = program(name, sharded(call.run, out_specs=specs_out))(*args)
        assert_close(got, plain(name))
        return

    def alone(*args):
        return jax.tree.map(lambda a: a[None], call.run(*args))

    def half(i):
        def cut(a, axes):
            if axes[:1] != ("b",):
                return a
            n = len(a) // 2
            return a[i * n : (i + 1) * n]

        return jax.jit(alone)(*jax.tree.map(cut, args, axes))

    got = jax.jit(sharded(alone, out_specs=P("d")))(*args)
    assert_close(got, jax.tree.map(lambda *a: jnp.concatenate(a), half(0), half(1)))


@pytest.mark.parametrize("name", ["wavefront", "linear_scan"])
def test_export_of_what_lies_over_devices(name):
    """Layers or time over two devices."""
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("d",), axis_types=kinds)
    gru = partial(weights, jaxseq.gru_init)
    x = CALLS["gru"].args(B, 4)[1]
    if name == "wavefront":
        layers = [gru(x.shape[-1], 4), gru(4, 4)]
        run = partial(jaxseq.wavefront, jaxseq.gru, layers, chunk=3)
    else:
        run = lambda x, **over: jaxseq.linear_scan(jax.nn.sigmoid(x), x, **over)
    with jax.set_mesh(mesh):
        exported = jax.export.export(jax.jit(partial(run, axis="d")))(x)
        exported = jax.export.deserialize(exported.serialize())
        got = jax.jit(exported.call)(jax.device_put(x, P()))
        (b,) = jax.export.symbolic_shape("b")
        symbolic = jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
        with pytest.raises(ValueError, match=r"^[ax]: expected known sizes"):
            jax.export.export(jax.jit(partial(run, axis="d")))(symbolic)
    assert_close(got, run(x))


def kinds_of(tree):
    """The types of the NamedTuples in a tree."""
    if not isinstance(tree, tuple | list | dict):
        return set()
    own = {type(tree)} if hasattr(tree, "_fields") else set()
    parts = tree.values() if isinstance(tree, dict) else tree
    return own.union(*map(kinds_of, parts))


def test_every_public_tuple_is_in_a_call():
    """So that the calls through bytes have shown each of them."""
    types = {getattr(jaxseq, n) for n in NAMES if inspect.isclass(getattr(jaxseq, n))}
    trees = [call.args(1, 1) for call in CALLS.values()]
    trees += [shapes_out(name)(1, 1) for name in CALLS if "search" in name]
    trees.append(weights(jaxseq.seq2seq_init, **RECURRENT, **DOT))
    trees.append(weights(jaxseq.seq2seq_init, **RECURRENT, **SCALED))
    functions = {jaxseq.Cell, jaxseq.Activation}
    assert types - functions <= kinds_of(trees)


@pytest.mark.parametrize("options", [DOT, SCALED], ids=["dot", "scaled"])
def test_what_stands_for_a_score_is_serialized(options):
    params = weights(jaxseq.seq2seq_init, **RECURRENT, **options)
    exported = jax.export.export(jax.jit(lambda a: a))(params)
    found = jax.export.deserialize(exported.serialize()).call(params)
    chex.assert_trees_all_equal(found, params)


def test_a_scan_of_ones_own_on_devices():
    """Over steps, from zeros laid out as docs/layers.md says."""
    params = weights(jaxseq.lstm_init, 2, 4)
    x = CALLS["lstm"].args(B, T)[1].swapaxes(0, 1)
    step, zeros = partial(jaxseq.lstm_step, params), partial(jaxseq.lstm_zeros, params)
    want = jax.jit(lambda x: jax.lax.scan(step, zeros(B), x))(x)
    with jax.set_mesh(jax.make_mesh((2,), ("d",))):
        over = jax.device_put(x, P(None, "d"))
        state = jax.reshard(zeros(B), P("d"))
        assert_close(
            jax.jit(lambda *args: jax.lax.scan(step, *args))(state, over), want
        )
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))

    def run(x):
        state = jax.lax.pcast(zeros(B // 2), "d", to="varying")
        return jax.lax.scan(step, state, x)

    specs = {"in_specs": P(None, "d"), "out_specs": (P("d"), P(None, "d"))}
    assert_close(jax.jit(jax.shard_map(run, mesh=mesh, **specs))(x), want)


WIDE = [np.uint32, np.uint64, np.int64]


@pytest.mark.parametrize("dtype", WIDE)
def test_lengths_and_tokens_beyond_32_bits(dtype):
    """Under `jit`, which alone knows them: the nearest that there is, not another."""
    with jax.enable_x64(True):
        far = dtype(2**32 - 3 if dtype is np.uint32 else 2**32 + 1)
        for name in LENGTHS_LAST:
            *args, _ = CALLS[name].args(2, 4)
            run = jax.jit(CALLS[name].run)
            got = run(*args, np.array([far, 1], dtype))
            assert_close(got, run(*args, np.array([4, 1], dtype)))
        logits, labels, _ = CALLS["cross_entropy"].args(2, 4)
        loss = jax.jit(jaxseq.cross_entropy)(logits, np.full_like(labels, far, dtype))
        assert jnp.isnan(loss).all()


LENGTHS_LAST = [
    "additive_attention", "dot_attention", "perplexity", "crf_log_partition",
    "ctc_greedy", "seq2seq_encode", "transformer_encode", "prefill",
]  # fmt: skip


def test_nan_in_another_segment():
    """It stays out of the outputs of others; gradients of weights it does reach."""
    params, x = weights(jaxseq.lstm_init, 2, 4), CALLS["lstm"].args(2, 8)[1]
    resets = jnp.zeros((2, 8), bool).at[:, 4].set(True)
    bad = jnp.asarray(x).at[0, 2].set(jnp.nan)
    run = jax.jit(lambda x: jaxseq.lstm(params, x, resets=resets))
    (state, y), (want_state, want) = run(bad), run(x)
    chex.assert_trees_all_equal((state, y[:, 4:]), (want_state, want[:, 4:]))
