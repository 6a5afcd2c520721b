"""The stages of a chain, and that XLA overwrites nothing that one still reads."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from jaxseq._engine.chain import chain_of, product
from tests.cells import assert_close
from tests.test_updates import H, Pair, with_gradients

sigmoid = jax.nn.sigmoid
turned = lambda a: jnp.concatenate([a[1:], a[:1]])
shifted = lambda a, b: jnp.concatenate([a, b])[2 : 2 + H]


def computed_twice(z, h, w, _):
    g, one, two = sigmoid(w["a"](h)), sigmoid(h + z), sigmoid(z + h)
    return jnp.sin(z + w["b"](g * one * two) + turned(one) * two + g)


def computed_twice_and_shifted(z, h, w, _):
    g = sigmoid(w["a"](h))
    p = w["b"](g * sigmoid(h + z) * sigmoid(z + h))
    return jnp.sin(z + shifted(p, sigmoid(h + z)) * sigmoid(z + h) + g)


def by_another_name(z, h, w, _):
    g = jnp.tanh(w["a"](h) * jnp.maximum(h, h))
    return jnp.sin(z + shifted(w["b"](g), h) * jnp.tanh(jnp.maximum(h, h)))


def a_product_by_another_name(z, h, w, _):
    a = w["a"](h)
    p = w["b"](jnp.tanh(a))
    return jnp.sin(z + shifted(p, a) * lax.stop_gradient(a))


def a_part_by_another_name(z, state, w, _):
    h, c = state
    k = 0.5 * lax.stop_gradient(h) + 2 * z.sum()
    parts = w["a"](jnp.arange(float(H)))[1:], w["b"](c)[:1]
    norm = jnp.linalg.norm(jnp.concatenate(parts))
    new = jnp.sin(k * jnp.concatenate([h[1:], jnp.ones(1)]))
    return Pair(new, jnp.sin(jnp.tanh(jnp.maximum(h, h)) / (1 + norm)))


UPDATES = {
    f.__name__: f
    for f in (
        computed_twice,
        computed_twice_and_shifted,
        by_another_name,
        a_product_by_another_name,
        a_part_by_another_name,
    )
}


@pytest.mark.parametrize("rows", [4, None])
@pytest.mark.parametrize("name", UPDATES)
def test_one_array_by_two_names(name, rows):
    update = UPDATES[name]
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal((*([rows] * bool(rows)), *shape))
    w_h = {k: rng.standard_normal((H, H)) for k in "ab"}
    params, x = jaxseq.CellParams(None, w_h, None), draw(6, H)
    start = draw(H)
    if update is a_part_by_another_name:
        start = Pair(start, draw(H))

    def of(how):
        run = partial(jaxseq.cell, update, implementation=how)
        return jax.jit(partial(with_gradients, run))((params, x, start))

    assert_close(of(None), of("scan"), rtol=1e-11, atol=1e-11)


def stages_of(f):
    """The stages of a function of two rows, and which arguments each reads."""
    jaxpr = jax.make_jaxpr(f)(np.ones(H), np.ones(H)).jaxpr
    chain = chain_of(jaxpr)
    given = [*jaxpr.invars, *(s.product.outvars[0] for s in chain.stages if s.product)]
    return chain.stages, [[v in given for v in s.reads] for s in chain.stages]


def test_a_stage_has_what_reads_its_values_and_no_product_to_come():
    def f(a, b):
        t = jnp.tanh(a)
        return jnp.sin(t) + product(0, t, H) * jnp.cos(b)

    (first, _last), (_, given) = stages_of(f)
    assert len(first.writes) == 2 and given.count(False) == 1


def shift(a, b):
    return lax.slice(lax.concatenate([a, b], 0), (1,), (1 + H,))


# how the last stage reads what the first makes of a, b being the product
READ = {
    "element by element": (lambda a, b: a * b, False),
    "each beside the others": (lambda a, b: shift(b, a), True),
    "in a product": (lambda a, b: jnp.outer(a, b) @ a, True),
    "out of place, of no size that it has": (
        lambda a, b: lax.concatenate([b, a], 0),
        False,
    ),
    "out of place in a function": (lambda a, b: jax.jit(shift)(b, a), True),
    "the product out of place": (lambda a, b: a * b[::-1], False),
}


@pytest.mark.parametrize("read, anew", READ.values(), ids=READ)
def test_what_is_read_out_of_place_is_computed_anew(read, anew):
    def f(a, _):
        t = jnp.tanh(a)
        return read(jnp.sin(t), product(0, t, H))

    _, (_, given) = stages_of(f)
    assert all(given) == anew


def test_a_function_called_in_a_stage_is_inlined():
    wave = lambda z: jnp.sin(z) * z[::-1]
    params = jaxseq.CellParams(None, np.ones((H, H)), None)
    args = np.ones((2, 5, H)), np.ones((2, H))

    def calls(f):
        update = lambda z, h, w, _: jnp.tanh(f(z) + w(h))
        run = partial(jaxseq.cell, update, params, implementation="loop")
        loss = lambda *args: run(*args)[1].sum()
        text = jax.jit(jax.grad(loss)).lower(*args).compile().as_text()
        return str(text).count(" call(")

    assert calls(jax.jit(wave)) == calls(wave) > 0
