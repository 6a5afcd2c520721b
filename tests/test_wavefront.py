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
    layer = partial(jaxseq.cell, own_update, zeros=OWN_ZEROS, start=start, remat=3)
    compared(layer, params, x, None, mesh_of(), lengths=LENGTHS)


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
        "params: expected a multiple of 2 layers, one a device, got 3": {
            "params": problem("lstm", layers=3)[1]
        },
        "params: expected a list of one for each layer, or arrays with an axis of "
        "layers first, got str": {"params": "lstm"},
        "state: expected a tuple of 2, one for each layer, got a tuple of 1": {
            "state": problem("lstm")[3][:1]
        },
        "params: expected at least one layer, got 0": {"params": []},
        "axis: expected an axis of the mesh, one of ('layer',), got 'time'": {
            "axis": "time"
        },
        "axis: expected an axis that is free, got layer": {"batch_axis": "layer"},
        "batch_axis: expected None without an axis, got layer": {
            "axis": None,
            "batch_axis": "layer",
        },
        "mesh: expected a mesh or None, got int": {"mesh": 2},
    }.items(),
)
def test_errors(message, options):
    with pytest.raises(ValueError) as e:
        call(**options)
    assert str(e.value).startswith(message)


def test_layers_of_other_shapes():
    layer, params, x, _ = problem("lstm")
    other = params[0]._replace(b_h=np.zeros(4 * H))
    with pytest.raises(ValueError, match=r"^params\[0\]: expected shapes"):
        call(layer, [other, params[1]])
    wide = random_problem(CELLS["lstm"], batch=(B,), T=T, D=H, H=6)[0]
    with pytest.raises(ValueError, match=r"^params\[0\]: expected shapes"):
        call(layer, [params[0], wide])
    tree = {"w_h": np.zeros((H, 4 * H))}
    ignores = lambda p, x, state, **_: (state, x[..., :2] @ p["w_h"][:2, :H])
    with pytest.raises(ValueError, match=r"^x: expected 4 features, as the layers"):
        call(ignores, [tree, tree], x[..., :3], (np.zeros(1), np.zeros(1)))
