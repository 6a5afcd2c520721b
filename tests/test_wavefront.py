"""`jaxseq.wavefront` beside `jaxseq.stack`: values, final states and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jaxseq
from tests.calls import OWN_ZEROS, own_init, own_update
from tests.cells import CELLS, assert_close, random_problem
from tests.test_collectives import sent

P = PartitionSpec
B, T, H = 2, 7, 4  # with chunks of 3, the last is not whole
LENGTHS = np.array([7, 3])
RNG = np.random.default_rng(0)
RESETS, MASK = RNG.random((B, T)) < 0.3, RNG.random((B, T)) < 0.7
OPTIONS = {
    "": {},
    "lengths": {"lengths": LENGTHS, "resets": RESETS},
    "reverse": {"lengths": LENGTHS, "mask": MASK, "resets": RESETS, "reverse": True},
}


def mesh_of(kind=AxisType.Auto, shape=(2,), names=("layer",)):
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))


def problem(name, layers=2, D=H):
    cell = CELLS[name]
    some = [
        random_problem(cell, batch=(B,), T=T, D=H if i else D, H=H, seed=i)
        for i in range(layers)
    ]
    params, states = [p for p, _, _ in some], tuple(s for _, _, s in some)
    return cell.sequence, params, some[0][1], states


def gradients(run, *args):
    """What comes out, and the gradients of a sum of it."""

    def loss(args):
        out = run(*args)
        sums = (jnp.sin(a + i).sum() for i, a in enumerate(jax.tree.leaves(out)))
        return sum(sums), out

    return jax.jit(jax.grad(loss, has_aux=True))(args)


def stacked(layer, params, x, state=None, **options):
    return jaxseq.stack([partial(layer, p) for p in params], x, state, **options)


def compared(layer, params, x, state, mesh=None, **options):
    how = {"axis": "layer", "chunk": 3, "mesh": mesh}
    found = partial(jaxseq.wavefront, layer, **how, **options)
    want = partial(stacked, layer, **options)
    args = (params, x) if state is None else (params, x, state)
    assert_close(gradients(found, *args), gradients(want, *args))


@pytest.mark.parametrize(
    ("name", "options"), [("lstm", o) for o in OPTIONS] + [("gru", "lengths")]
)
def test_as_a_stack(name, options):
    compared(*problem(name), mesh_of(), **OPTIONS[options])


def test_from_zeros_two_layers_a_device_and_another_width_below():
    layer, params, x, _ = problem("rnn", layers=4, D=3)
    compared(layer, params, x, None, mesh_of())


def test_one_sequence():
    layer, params, x, states = problem("gru")
    states = tuple(s[0] for s in states)
    compared(layer, params, x[0], states, mesh_of(), lengths=np.array(5))


def test_gates_as_an_axis_and_another_width_below():
    _, params, x, _ = problem("lstm", D=3)
    params = [
        p._replace(
            w_x=p.w_x.reshape(-1, 4, H), w_h=p.w_h.reshape(H, 4, H), b=p.b.reshape(4, H)
        )
        for p in params
    ]
    compared(jaxseq.lstm, params, x, None, mesh_of())


@pytest.mark.parametrize("D", [3, 6])
def test_one_layer_in_a_tree_and_another_width(D):
    layer, params, x, _ = problem("gru", layers=1, D=D)
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3)
    mesh = jax.make_mesh((1,), ("layer",), devices=jax.devices()[:1])
    end, y = run(together(params), x, mesh=mesh)
    assert_close((end[0], y), layer(params[0], x))


def test_wider_inputs():
    compared(*problem("gru", D=6), mesh_of(), **OPTIONS["lengths"])


def test_on_an_explicit_mesh():
    with jax.set_mesh(mesh_of(AxisType.Explicit)):
        compared(*problem("gru"), **OPTIONS["lengths"])


def test_the_batch_over_devices():
    mesh = mesh_of(shape=(2, 1), names=("data", "layer"))
    layer, params, x, states = problem("lstm")
    options = {**OPTIONS["lengths"], "batch_axis": "data"}
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3, mesh=mesh, **options)
    want = partial(stacked, layer, **OPTIONS["lengths"])
    args = params, x, states
    assert_close(gradients(run, *args), gradients(want, *args))


def test_a_cell_of_ones_own_that_begins_elsewhere():
    """Where no state is given, each layer begins where it does by itself."""
    draw = lambda key: own_init(key, H, H, dtype=jnp.float64)
    params = [draw(key) for key in jax.random.split(jax.random.key(0), 2)]
    start = jaxseq.LSTMState(*RNG.standard_normal((2, H)))
    x = RNG.standard_normal((B, T, H))
    layer = partial(jaxseq.cell, own_update, zeros=OWN_ZEROS, start=start, remat=2)
    compared(layer, params, x, None, mesh_of(), lengths=LENGTHS)


@pytest.mark.parametrize("steps", [0, 2])
def test_fewer_steps_than_a_chunk(steps):
    layer, params, x, states = problem("gru")
    compared(layer, params, x[:, :steps], states, mesh_of())


def test_a_chunk_is_no_longer_than_the_sequence():
    layer, params, x, _ = problem("rnn")
    how = {"axis": "layer", "mesh": mesh_of()}
    sizes = [
        jax.jit(partial(jaxseq.wavefront, layer, chunk=chunk, **how))
        .lower(params, x)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for chunk in (T, 20 * T)
    ]
    assert sizes[0] == sizes[1]


def test_gradients_of_a_list_of_weights_are_on_all_devices():
    layer, params, x, _ = problem("rnn")
    found, _ = gradients(
        partial(jaxseq.wavefront, layer, axis="layer", chunk=3, mesh=mesh_of()),
        params, x,
    )  # fmt: skip
    for a in jax.tree.leaves(found):
        assert a.sharding.is_fully_replicated and len(a.sharding.device_set) == 2


def test_narrow_lengths_of_a_long_sequence():
    """T is beyond what their dtype can hold."""
    layer, params, _, _ = problem("rnn")
    x, lengths = RNG.standard_normal((B, 300, H)), np.array([200, 3], np.uint8)
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=100, mesh=mesh_of())
    found = jax.jit(run)(params, x, lengths=lengths)
    assert_close(found, stacked(layer, params, x, lengths=lengths))


def test_a_start_that_is_learned():
    """The layer closes over it, so devices sum its gradient inside of the loop."""
    draw = lambda key: own_init(key, H, H, dtype=jnp.float64)
    params = [draw(key) for key in jax.random.split(jax.random.key(0), 2)]
    start = jaxseq.LSTMState(*RNG.standard_normal((2, H)))
    x, options = RNG.standard_normal((B, T, H)), OPTIONS["lengths"]

    def run(over, params, start):
        layer = partial(jaxseq.cell, own_update, zeros=OWN_ZEROS, start=start)
        return over(layer, params, x, **options)

    how = {"axis": "layer", "chunk": 3, "mesh": mesh_of()}
    found = partial(run, partial(jaxseq.wavefront, **how))
    assert_close(
        gradients(found, params, start), gradients(partial(run, stacked), params, start)
    )


def test_dropout_with_a_key_for_each_layer():
    _, params, x, _ = problem("gru")
    keys = jax.random.key_data(jax.random.split(jax.random.key(1), 2))
    rates = {"dropout": 0.3, "recurrent_dropout": 0.4}

    def layer(params, x, state, **options):
        params, key = params
        key = jax.random.wrap_key_data(key)
        options |= {"key": key, **rates}
        return jaxseq.cell_dropout(jaxseq.GRU, params, x, state, **options)

    pairs = list(zip(params, keys, strict=True))
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3, mesh=mesh_of())
    found = jax.jit(run)(pairs, x)
    assert_close(found, stacked(layer, pairs, x))
    assert not np.allclose(found[1], stacked(jaxseq.gru, params, x)[1])


def test_vmap_and_forward_mode():
    layer, params, x, _ = problem("gru")
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3, mesh=mesh_of())
    way = RNG.standard_normal(x.shape)

    def of(run):
        each = lambda x: jax.jvp(lambda x: run(params, x), (x,), (way[0],))
        return jax.jit(jax.vmap(each))(x)

    assert_close(of(run), of(partial(stacked, layer)))


def test_in_a_shard_map_over_the_batch():
    layer, params, x, states = problem("gru")
    mesh = mesh_of(shape=(2, 1), names=("data", "layer"))
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3, mesh=mesh)
    over = P("data")
    run = jax.shard_map(
        run, mesh=mesh, in_specs=(P(), over, over), out_specs=over, axis_names={"data"}
    )
    found = jax.jit(run)(params, x, states)
    assert_close(found, stacked(layer, params, x, states))


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_one_axis_of_each_kind(kind):
    kinds = AxisType.Explicit, kind
    mesh = jax.make_mesh((2, 1), ("data", "layer"), axis_types=kinds)
    layer, params, x, states = problem("gru")
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3, batch_axis="data")
    with jax.set_mesh(mesh):
        found = jax.jit(run)(params, jax.device_put(x, P("data")), states)
        assert jax.typeof(found[1]).sharding.spec[0] == "data"
        message = r"^x: expected an array over no mesh axis but batch_axis None, got"
        with pytest.raises(ValueError, match=message):
            run(params, jax.device_put(x, P("data")), states, batch_axis=None)
    assert_close(found, stacked(layer, params, x, states))


def test_remat_of_a_layer_takes_less_memory():
    """With more than one piece in a chunk; with one there is nothing to leave out."""
    _, params, _, _ = problem("lstm")
    x = RNG.standard_normal((B, 256, H))

    def bytes_for(remat):
        layer = partial(jaxseq.lstm, remat=remat)
        how = {"axis": "layer", "chunk": 64, "mesh": mesh_of()}
        run = partial(jaxseq.wavefront, layer, **how)
        grad = jax.grad(lambda params: jnp.sin(run(params, x)[1]).sum())
        compiled = jax.jit(grad).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_for(8) < 0.7 * bytes_for(None)


def test_16_bits():
    _, params, x, _ = problem("gru")
    half = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), tree)

    def layer(params, *args, **options):
        assert all(a.dtype == jnp.bfloat16 for a in jax.tree.leaves(params))
        return jaxseq.gru(params, *args, **options)

    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3, mesh=mesh_of())
    found = jax.jit(run)(half(params), half(x))
    want = stacked(layer, half(params), half(x))
    for a, b in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(*(np.float32(v) for v in (a, b)), atol=0.02)


def test_donated_state():
    layer, params, x, states = problem("gru")
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3, mesh=mesh_of())
    step = jax.jit(lambda states, x: run(params, x, states), donate_argnums=0)
    first, _ = step(jax.tree.map(jnp.array, states), x)
    found = step(first, x)
    assert all(a.is_deleted() for a in first)
    want = stacked(layer, params, np.concatenate([x, x], 1), states)
    assert_close(found, (want[0], want[1][:, T:]))


def together(trees):
    return jax.tree.map(lambda *a: np.stack(a), *trees)


@pytest.mark.parametrize("axis", [None, "layer"])
def test_weights_with_an_axis_of_layers(axis):
    layer, params, x, states = problem("lstm")
    with jax.set_mesh(mesh_of()):
        run = partial(jaxseq.wavefront, layer, axis=axis, chunk=3)
        found = jax.jit(run)(together(params), x, together(states))
    end, y = stacked(layer, params, x, states)
    assert_close(found, (together(end), y))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_weights_on_the_devices_of_their_layers(kind):
    layer, params, x, states = problem("lstm")

    def alone(params, x, states):
        end, y = stacked(layer, params, x, states)
        return jax.tree.map(lambda *a: jnp.stack(a), *end), y

    (d, dx, ds), out = gradients(alone, params, x, states)
    with jax.set_mesh(mesh_of(kind)):
        run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3)
        own, first = jax.device_put((together(params), together(states)), P("layer"))
        found = gradients(run, own, x, first)
        for a in jax.tree.leaves((found[0][0], found[1][0])):
            assert a.sharding.spec[0] == "layer"
    assert_close(found, ((together(d), dx, together(ds)), out))


def test_nan_in_padding():
    layer, params, x, _ = problem("lstm")
    padding = (np.arange(T) >= LENGTHS[:, None])[..., None]
    how = {"axis": "layer", "chunk": 3, "lengths": LENGTHS, "mesh": mesh_of()}
    run = partial(jaxseq.wavefront, layer, **how)
    dirty, clean = (
        gradients(run, params, np.where(padding, v, x)) for v in (np.nan, 0.0)
    )
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(clean))
    assert_close(dirty, clean)


def test_as_a_layer_of_both_directions():
    layer, params, x, _ = problem("gru")
    run = partial(jaxseq.wavefront, layer, params, axis="layer", chunk=3)
    deep = [partial(layer, p) for p in params]
    with jax.set_mesh(mesh_of()):
        found = jaxseq.bidirectional(deep[0], run, x, lengths=LENGTHS)
    alone = partial(jaxseq.stack, deep)
    assert_close(found, jaxseq.bidirectional(deep[0], alone, x, lengths=LENGTHS))


def test_what_is_sent():
    """A permute a tick each way; the outputs and gradients of x and b once."""
    layer, params, x, states = problem("lstm")
    mesh = mesh_of()
    own, whole = (jax.NamedSharding(mesh, P(*a)) for a in (["layer"], []))
    put = jax.device_put
    args = put(together(params), own), put(x, whole), put(together(states), own)
    run = partial(jaxseq.wavefront, layer, axis="layer", chunk=3, mesh=mesh)
    forward = sent(jax.jit(run).lower(*args).compile())
    kinds = sorted((kind, inside != "") for kind, _, inside in forward)
    assert kinds == [("all-reduce", False), ("collective-permute", True)]
    loss = lambda *args: (run(*args)[1] ** 2).sum()
    both = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*args).compile()
    kinds = [(kind, inside != "") for kind, _, inside in sent(both)]
    assert kinds.count(("collective-permute", True)) == 2
    assert 1 <= kinds.count(("all-reduce", False)) <= 2
    assert set(kinds) == {("collective-permute", True), ("all-reduce", False)}
    # of a list of weights the gradients are gathered too, each once
    grad = jax.jit(jax.grad(lambda params: loss(params, x, None)))
    found = sent(grad.lower(put(params, whole)).compile())
    kinds = [(kind, inside != "") for kind, _, inside in found]
    assert set(kinds) == {
        ("collective-permute", True),
        ("all-reduce", False),
        ("all-gather", False),
    }
    gathered = sum(n for kind, n, _ in found if kind == "all-gather")
    assert gathered == len(jax.tree.leaves(params[0]))


def call(*args, **options):
    layer, params, x, _ = problem("lstm")
    given = dict(zip(("layer", "params", "x", "state"), args, strict=False))
    whole = {"layer": layer, "params": params, "x": x, "state": None}
    how = {"axis": "layer", "mesh": mesh_of(), "chunk": 3}
    return jaxseq.wavefront(**{**whole, **how, **given, **options})


@pytest.mark.parametrize(
    "message, options",
    {
        "layer: expected a function": {"layer": 3},
        "chunk: expected a size of at least 1, got 0": {"chunk": 0},
        "params: expected a multiple of 2 layers, the number of devices, got 3": {
            "params": problem("lstm", layers=3)[1]
        },
        "params: expected a list of one for each layer, or arrays with an axis of "
        "layers in front, got str": {"params": "lstm"},
        "state: expected a tuple of 2, one for each layer, got a tuple of 1": {
            "state": problem("lstm")[3][:1]
        },
        "params: expected at least one layer, got 0": {"params": []},
        "axis: expected an axis of the mesh, one of ('layer',), got 'time'": {
            "axis": "time"
        },
        "axis: expected None without a mesh, got 'layer'": {"mesh": None},
        "batch_axis: expected an axis other than axis, with no shard_map over it, "
        "got layer": {"batch_axis": "layer"},
        "batch_axis: expected None where axis is None, got layer": {
            "axis": None,
            "batch_axis": "layer",
        },
        "x: expected a batch, its first axis, that is a multiple of 2, got (1, 7, 4)": {
            "x": np.zeros((1, T, H)),
            "mesh": mesh_of(shape=(2, 1), names=("data", "layer")),
            "batch_axis": "data",
        },
        "mesh: expected a mesh or None, got int": {"mesh": 2},
        "params: expected a list of one for each layer, or arrays with an axis of "
        "layers in front, got first axes of [4, 16]": {"params": problem("lstm")[1][0]},
        "state: expected a list of one for each layer, or arrays with an axis of "
        "2 layers in front, got first axes of [3]": {
            "params": together(problem("lstm")[1]),
            "state": np.zeros((3, B, H)),
        },
    }.items(),
)
def test_errors(message, options):
    with pytest.raises(ValueError) as e:
        call(**options)
    assert str(e.value).startswith(message)


def test_errors_of_meshes():
    run = partial(call, mesh=None)
    mesh = mesh_of(shape=(2, 1), names=("data", "layer"))
    shard = partial(jax.shard_map, mesh=mesh, in_specs=P(), out_specs=P())
    x = np.zeros((B, T, H))
    message = r"^axis: expected an axis with no shard_map over it, got layer"
    with pytest.raises(ValueError, match=message):
        shard(lambda x: run(x=x)[1])(x)
    message = r"^batch_axis: expected an axis other than axis, with no shard_map"
    with pytest.raises(ValueError, match=message):
        shard(lambda x: run(x=x, batch_axis="data")[1], axis_names={"data"})(x)
    message = r"^mesh: expected that of the context, {'data': 2, 'layer': 1}, got"
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=message):
        call()


def test_a_layer_with_two_outputs():
    layer, params, x, _ = problem("gru", layers=1)
    two = lambda p, *args, **options: jaxseq.bidirectional(
        partial(layer, p), partial(layer, p), *args, merge=None, **options
    )
    mesh = jax.make_mesh((1,), ("layer",), devices=jax.devices()[:1])
    message = "^layer: expected one array as outputs, got tuple"
    with pytest.raises(ValueError, match=message):
        jaxseq.wavefront(two, params, x, axis="layer", mesh=mesh)


def test_layers_of_other_shapes():
    layer, params, x, _ = problem("lstm")
    other = params[0]._replace(b_h=np.zeros(4 * H))
    with pytest.raises(ValueError, match=r"^params\[0\]: expected the shapes"):
        call(layer, [other, params[1]])
    wide = random_problem(CELLS["lstm"], batch=(B,), T=T, D=H, H=6)[0]
    with pytest.raises(ValueError, match=r"^params\[0\]: expected the shapes"):
        call(layer, [params[0], wide])
    tree = {"w_h": np.zeros((H, 4 * H))}
    ignores = lambda p, x, state, **_: (state, x[..., :2] @ p["w_h"][:2, :H])
    with pytest.raises(ValueError, match=r"^x: expected 4 features, as in the output"):
        call(ignores, [tree, tree], x[..., :3], (np.zeros(1), np.zeros(1)))
