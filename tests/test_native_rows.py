"""Matrices in blocks, and rows of all shapes, by the native kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

import jaxseq
from examples.cells.layer_norm_lstm import LAYER_NORM_LSTM
from examples.cells.slstm import SLSTM
from jaxseq._base.dtypes import floats, with_floats
from jaxseq._kernels.cpu.moves import View, spread, whole
from tests.bodies import BODIES
from tests.native.problems import cell_run, check, gradients, normal, random_weights

pytestmark = pytest.mark.usefixtures("native_library")


def both(ran):
    return {"forward", "backward"} <= set(ran)


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("B", "H", "N"), [(3, 12, 4), (1, 30, 2), (40, 32, 2), (5, 8, 8), (2, 5, 1)]
)
@pytest.mark.parametrize("masks", [False, True])
def test_matrices_in_blocks(B, H, N, masks, ran):
    params = random_weights(SLSTM.init, 3, H, N=N)
    rng = np.random.default_rng(0)
    options = {"lengths": jnp.asarray(rng.integers(0, 6, B)), "reverse": True}
    run = cell_run(SLSTM, B, **(options if masks else {}))
    check(gradients(run, params, normal(1, B, 5, 3)))
    assert both(ran)


def test_blocks_of_gates(ran):
    """Each block has the columns of several gates."""
    cell = jaxseq.lstm_cell(heads=2)
    params = random_weights(cell.init, 3, 6)
    check(gradients(cell_run(cell, 4), params, normal(1, 4, 5, 3)))
    assert both(ran)


def test_many_blocks_take_no_more_registers(ran):
    H = N = 12
    params = random_weights(SLSTM.init, 3, H, N=N)
    check(gradients(cell_run(SLSTM, 3), params, normal(1, 3, 2, 3)))
    assert both(ran)


def test_derivatives_through_blocks_are_those_of_finite_differences(ran):
    params = random_weights(SLSTM.init, 2, 4, N=2)
    run = cell_run(SLSTM, 2)
    loss = lambda params, x: jnp.sin(run(params, x, "native")[1]).sum()
    check_grads(loss, (params, normal(1, 2, 3, 2)), 1, ["rev"], 1e-6, 1e-6)
    assert both(ran)


@pytest.mark.parametrize("B", [1, 5])
def test_layer_norm_goes_back(B, ran):
    params = random_weights(LAYER_NORM_LSTM.init, 3, 9)
    params = jax.tree.map(lambda a: a + 0.1 * normal(2, *a.shape), params)
    run = cell_run(LAYER_NORM_LSTM, B, lengths=jnp.arange(B) % 5)
    check(gradients(run, params, normal(1, B, 4, 3)))
    assert both(ran)
    loss = lambda x: jnp.sin(run(params, x, "native")[1]).sum()
    check_grads(loss, (normal(1, B, 4, 3),), 1, ["rev"], 1e-6, 1e-6)


# of rows (12,), with weights (12,) and (3, 4): what moves, spreads and sums elements
ROWS = {
    "gates as an axis": lambda a, v, w: (a.reshape(4, 3)[0] * a.reshape(4, 3)).ravel(),
    "transposed": lambda a, v, w: (a.reshape(3, 4).T + v.reshape(4, 3)).ravel(),
    "turned": lambda a, v, w: a[::-1] * v + jnp.flip(a.reshape(3, 4), 0).ravel(),
    "every second": lambda a, v, w: jnp.concatenate([a[::2], v[1::2]]),
    "norm of heads": lambda a, v, w: (
        a.reshape(3, 4) / (1 + jnp.square(a.reshape(3, 4)).sum(1, keepdims=True))
    ).ravel(),
    "over gates": lambda a, v, w: jnp.tile(a.reshape(3, 4).max(0), 3),
    "over two axes": lambda a, v, w: a * a.reshape(2, 2, 3).sum((0, 2)).prod(),
    "spread": lambda a, v, w: jnp.repeat(a[:3], 4) + a,
    "matrix": lambda a, v, w: (a.reshape(3, 4) * w).ravel(),
    "row of a matrix": lambda a, v, w: a * jnp.tile(w[1], 3) + w.sum(),
    "padded": lambda a, v, w: jnp.pad(w[:, 1:3] * a[0], ((0, 0), (1, 1))).ravel(),
    "stacked": lambda a, v, w: jnp.stack([a[:6], a[6:]], 1).ravel(),
    "softmax of heads": lambda a, v, w: jax.nn.softmax(a.reshape(3, 4)).ravel(),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_axes_of_a_row(name, ran):
    def update(z_x, h, w_h, extra):
        return jnp.tanh(ROWS[name](z_x + w_h(h), *extra))

    extra = normal(5, 12), normal(6, 3, 4)
    params = jaxseq.CellParams(normal(2, 3, 12), normal(3, 12, 12) / 4, None, extra)

    def run(params, x, implementation):
        how = {"zeros": 12, "implementation": implementation}
        return jaxseq.cell(update, params, x, **how)

    check(gradients(run, params, normal(1, 3, 4, 3)))
    assert both(ran)


def of_scan(make, w, state, xs):
    """Values and all gradients by `jaxseq.scan` and by `lax.scan`."""
    given = w, state, xs

    def everything(scan):
        def loss(moving):
            w, state, xs = with_floats(moving, given)
            out = scan(make(w), state, xs)
            some = [a for a in jax.tree.leaves(floats(out)) if a is not None]
            return sum(jnp.sin(a).sum() for a in some), out

        return jax.jit(jax.grad(loss, has_aux=True))(floats(given))

    as_floats = lambda out: jax.tree.map(lambda a: a.astype(float), out)
    return as_floats(everything(jaxseq.scan)), as_floats(everything(lax.scan))


NAMES = [
    "linen OptimizedLSTMCell", "nnx GRUCell", "blocks and norms",
    "weight in a norm", "a number for each step", "bias of one number",
    "constant output", "one mask over time", "random keys in the input",
    "resets of a policy",
]  # fmt: skip


def test_blocks_with_the_gates_of_a_head(ran):
    B, T, H = 3, 4, 6

    def make(w):
        def body(state, x):
            h, c = state
            heads = jnp.einsum("bni,nio->bno", h.reshape(B, 2, 3), w)
            z = heads.reshape(B, 2, 4, 3).swapaxes(1, 2).reshape(B, 4 * H) + x
            i, f, g, o = jnp.split(z, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return body

    state, w = (normal(1, B, H), normal(2, B, H)), normal(3, 2, 3, 12)
    check(of_scan(make, w, state, normal(4, T, B, 4 * H)))
    assert both(ran)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", NAMES)
def test_bodies_of_scans(name, ran):
    problem = BODIES[name](np.random.default_rng(1))
    check(of_scan(*problem))
    assert both(ran)


def test_what_all_rows_share(ran):
    """A number for each step, one in the state, and rows among the weights."""
    B, T, H = 4, 5, 4  # as many rows as units, which nothing may mistake

    def make(w):
        def body(state, now):
            h, on, best = state
            x, rate, flag = now
            h = jnp.tanh(x * w["rows"] + rate * (h @ w["h"]) + w["b"][None] * w["s"])
            h = jnp.where(on ^ flag, h, 0.5 * h)
            best = jnp.maximum(best, h.max(-1))
            return (h, flag, best), (h, 2 * rate * w["s"], on, best)

        return body

    w = {"rows": normal(1, B, H), "h": normal(2, H, H), "b": normal(3, H)}
    w["s"] = jnp.asarray(0.7)
    state = normal(4, B, H), jnp.asarray(True), normal(5, B)
    flags = jnp.asarray([True, False, True, True, False])
    check(of_scan(make, w, state, (normal(6, T, B, H), normal(7, T), flags)))
    assert both(ran)


REFUSED = {
    "rows mixed": (
        lambda h, x, w: ((x + h @ w["h"]) / h.sum(0), None),
        "the kernel has no reduce_sum of float64[3,4] to float64[4]",
    ),
    "sorted": (
        lambda h, x, w: (jnp.sort(x + h @ w["h"], -1), None),
        "the kernel has no sort",
    ),
    "turned rows": (
        lambda h, x, w: ((x + h @ w["h"])[::-1], None),
        "the kernel has no rev of float64[3,4] to float64[3,4]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_run(name, ran, refused):
    f, why = REFUSED[name]
    h, x, w = normal(1, 3, 4), normal(2, 5, 3, 4), {"h": normal(3, 4, 4)}
    run = lambda h, w: jaxseq.scan(lambda h, x: f(h, x, w), h, x)
    jax.jit(run).lower(h, w)
    assert not ran and refused == [why]


def test_views():
    a = np.arange(24).reshape(2, 3, 4)
    at = lambda view: [
        i
        for first, n, times in view.runs()
        for i in range(first, first + n)
        for _ in range(times)
    ]
    assert at(whole((2, 3, 4))) == list(range(24))
    assert at(whole((2, 3, 4)).over((2, 0, 1))) == list(a.transpose(2, 0, 1).ravel())
    assert at(View((2, 3), (12, -4), 8)) == list(a[:, ::-1, 0].ravel())
    wide = spread(whole((3, 1)), (2, 3, 4), (1, 2))
    assert at(wide) == list(np.broadcast_to(a[0, :, :1] // 4, (2, 3, 4)).ravel())
    assert len(list(wide.runs())) == 6 and len(list(whole((4, 5)).runs())) == 1
    assert at(whole((2, 0, 3))) == [] and at(whole(())) == [0]
