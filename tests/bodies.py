"""Bodies of scans, as people write them: cells of libraries, of papers, and odd ones.

Each maker is given `B`, `D`, `H` and a `numpy.random.Generator`, and returns weights,
`make_body(weights)`, the first state, and the inputs of `T` steps.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

B, T, D, H = 3, 4, 3, 4
BODIES: dict[str, Callable[[Any], Any]] = {}


def named(name: str) -> Any:
    def keep(make: Any) -> Any:
        BODIES[name] = make
        return make

    return keep


def noisy(rng: Any, tree: Any) -> Any:
    """Floats like these, none of them zero."""
    one = lambda a: jnp.asarray(0.5 * rng.standard_normal(a.shape), a.dtype)
    is_float = lambda a: jnp.issubdtype(a.dtype, jnp.floating)
    return jax.tree.map(lambda a: one(a) if is_float(a) else a, tree)


def drawn(rng: Any, *shape: int) -> Any:
    return jnp.asarray(rng.standard_normal(shape))


def _nnx(cell: Any, parts: int) -> Any:
    def make(rng: Any) -> Any:
        dtypes = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        graph, w = nnx.split(cell(D, H, **dtypes, rngs=nnx.Rngs(0)))
        state = tuple(drawn(rng, B, H) for _ in range(parts))
        body = lambda w: lambda s, x: nnx.merge(graph, w)(s, x)
        return (
            body,
            noisy(rng, w),
            state if parts > 1 else state[0],
            drawn(rng, T, B, D),
        )

    return make


def _linen(cell: Any, parts: int) -> Any:
    def make(rng: Any) -> Any:
        module = cell(H, dtype=jnp.float64, param_dtype=jnp.float64)
        state = tuple(drawn(rng, B, H) for _ in range(parts))
        state = state if parts > 1 else state[0]
        w = module.init(jax.random.key(0), state, jnp.zeros((B, D)))
        return (
            lambda w: lambda s, x: module.apply(w, s, x),
            noisy(rng, w),
            state,
            drawn(rng, T, B, D),
        )

    return make


for _cell, _parts in (
    ("OptimizedLSTMCell", 2),
    ("LSTMCell", 2),
    ("GRUCell", 1),
    ("SimpleCell", 1),
):
    BODIES[f"nnx {_cell}"] = _nnx(getattr(nnx, _cell), _parts)
    BODIES[f"linen {_cell}"] = _linen(getattr(nn, _cell), _parts)
BODIES["linen MGUCell"] = _linen(nn.MGUCell, 1)


def plain_weights(rng: Any, **shapes: Any) -> Any:
    return {name: 0.5 * drawn(rng, *shape) for name, shape in shapes.items()}


def vanilla(rng: Any) -> tuple[Any, Any, Any]:
    w = plain_weights(rng, x=(D, H), h=(H, H), b=(H,))
    return w, drawn(rng, B, H), drawn(rng, T, B, D)


def core(w: Any, h: Any, x: Any) -> Any:
    return jnp.tanh(x @ w["x"] + h @ w["h"] + w["b"])


def simple(name: str, body: Any, change: Any = lambda h, x: (h, x)) -> None:
    """A body `(w, h, x) -> (h, y)` of the weights of `core`."""

    def make(rng: Any) -> Any:
        w, h, x = vanilla(rng)
        h, x = change(h, x)
        return (lambda w: lambda h, x: body(w, h, x)), w, h, x

    BODIES[name] = make


def twice(h: Any) -> Any:
    return h, h


_ramped = jax.jit(lambda h: h * np.linspace(0.5, 1.5, H))


def _as_rows(x: Any) -> Any:
    return x.reshape(B, H)


def _crossed(z: Any, x: Any) -> Any:
    return jnp.tanh(jnp.concatenate([z[:, :2] + x[:, 2:], z[:, 2:] + x[:, :2]], -1))


def _overlapping(z: Any, x: Any) -> Any:
    parts = [z[:, 1:3] + x[:, 1:3], z[:, :2] + x[:, :2]]
    return jnp.tanh(jnp.concatenate(parts, -1))


def _encoded(w: Any, x: Any) -> Any:
    return jnp.tanh(x @ w["x"])[:, :D]


simple("vanilla", lambda w, h, x: twice(core(w, h, x)))
simple("no output", lambda w, h, x: (core(w, h, x), None))
simple("input as output", lambda w, h, x: (core(w, h, x), x))
simple("constant output", lambda w, h, x: (core(w, h, x), jnp.float64(2)))
simple("old state as output", lambda w, h, x: (core(w, h, x), h))
simple("index as output", lambda w, h, x: (core(w, h, x), h.argmax(-1)))
simple("no input", lambda w, h, _: twice(jnp.tanh(h @ w["h"])), lambda h, x: (h, None))
simple("relu", lambda w, h, x: twice(jax.nn.relu(x @ w["x"] + h @ w["h"])))
simple("silu of two", lambda w, h, x: twice(jax.nn.silu(core(w, h, x) @ w["h"])))
simple("weight from the left", lambda w, h, x: twice(jnp.tanh((w["h"] @ h.T).T)))
simple("weight three ways", lambda w, h, x: twice(core(w, h @ w["h"], x) * w["h"][0]))
simple("weight in a norm", lambda w, h, x: twice(core(w, h, x) / (w["h"] ** 2).sum()))
simple("sum read twice", lambda w, h, x: (core(w, h, x), x @ w["x"]))
simple("product as output", lambda w, h, x: (core(w, h, x), h @ w["h"]))
simple("state read before", lambda w, h, x: twice(core(w, h, x) * h + jnp.sin(h)))
simple("stopped", lambda w, h, x: twice(core(w, lax.stop_gradient(h), x) + h))
simple("checkpointed", lambda w, h, x: twice(jax.checkpoint(core)(w, h, x)))
simple("jitted", lambda w, h, x: twice(jax.jit(core)(w, h, x)))
simple("array of NumPy in a jit", lambda w, h, x: twice(core(w, _ramped(h), x)))
simple("weight made in the body", lambda w, h, x: twice(core(w, h @ jnp.eye(H), x)))
simple("an encoder first", lambda w, h, x: twice(core(w, h, _encoded(w, x))))
simple("a head behind", lambda w, h, x: ((h := core(w, h, x)), h @ w["h"] + w["b"]))
simple("a bias twice", lambda w, h, x: twice(core(w, h, x) + jnp.sin(h + w["b"])))
simple(
    "a number for each step",
    lambda w, h, x: twice(jnp.tanh(h @ w["h"] + jnp.exp(x))),
    lambda h, x: (h, x[:, 0, 0]),
)
simple("bias of one number", lambda w, h, x: twice(jnp.tanh(h @ w["h"] + w["b"][0])))
simple(
    "a number with no gradient",
    lambda w, h, x: twice(jnp.tanh(h @ w["h"] + w["b"] * jnp.sign(jnp.exp(x) - 1))),
    lambda h, x: (h, x[:, 0, 0]),
)
simple(
    "a row of x_t as rows",
    lambda w, h, x: twice(jnp.tanh(h @ w["h"] + _as_rows(x @ jnp.tile(w["x"], B)))),
    lambda h, x: (h, x[:, 0]),
)
simple("sums of unlike halves", lambda w, h, x: twice(_crossed(h @ w["h"], x @ w["x"])))
simple("sums that overlap", lambda w, h, x: twice(_overlapping(h @ w["h"], x @ w["x"])))
simple("one row", lambda w, h, x: twice(core(w, h, x)), lambda h, x: (h[0], x[:, 0]))
simple("rows by vmap", lambda w, h, x: twice(jax.vmap(core, (None, 0, 0))(w, h, x)))
simple("rows mixed", lambda w, h, x: twice(core(w, h - h.mean(0), x)))


@named("concatenation")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)
    w = {"w": 0.5 * drawn(rng, D + H, H), "b": w["b"]}

    def make(w: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            both = jnp.concatenate([x, h], -1)
            return twice(jnp.tanh(both @ w["w"] + w["b"]))

        return body

    return make, w, h, x


@named("resets of a policy")
def _(rng: Any) -> Any:
    make, w, h, x = BODIES["linen GRUCell"](rng)
    resets = jnp.asarray(rng.random((T, B)) < 0.3)

    def with_resets(w: Any) -> Any:
        def body(h: Any, now: Any) -> Any:
            x, reset = now
            return make(w)(jnp.where(reset[:, None], 0.0, h), x)

        return body

    return with_resets, w, h, (x, resets)


@named("counter in the state")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)

    def make(w: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            h = core(w, s["h"], x) * jnp.where(s["n"] % 2, 1.0, 0.5)
            return {"h": h, "n": s["n"] + 1}, (h, s["n"])

        return body

    return make, w, {"h": h, "n": jnp.int32(0)}, x


@named("tokens")
def _(rng: Any) -> Any:
    w, h, _ = vanilla(rng)
    w["embed"] = drawn(rng, 5, D)
    tokens = jnp.asarray(rng.integers(0, 5, (T, B)))
    return (lambda w: lambda h, t: twice(core(w, h, w["embed"][t]))), w, h, tokens


@named("branch")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)

    def make(w: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            h, t = s
            other = lambda h: core(w, h, x) * w["b"]
            h = lax.cond(t % 2 == 0, other, jnp.sin, core(w, h, x))
            return (h, t + 1), h

        return body

    return make, w, (h, jnp.int32(0)), x


@named("scan inside")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)

    def make(w: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            inner = lambda h, _: (core(w, h, x), None)
            return twice(lax.scan(inner, core(w, h, x), None, 2)[0])

        return body

    return make, w, h, x


def _masked(key: Any) -> Any:
    return jnp.where(jax.random.bernoulli(key, 0.7, (B, H)), 1 / 0.7, 0.0)


@named("random keys in the input")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)
    body = lambda w: lambda h, now: twice(core(w, h, now[0]) * _masked(now[1]))
    return body, w, h, (x, jax.random.split(jax.random.key(0), T))


@named("old random keys in the input")
def _(rng: Any) -> Any:
    body, w, h, (x, keys) = BODIES["random keys in the input"](rng)
    return body, w, h, (x, jax.random.key_data(keys))


@named("random key in the state")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)

    def make(w: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            h, key = s
            key, now = jax.random.split(key)
            h = core(w, h, x) * _masked(now)
            return (h, key), h

        return body

    return make, w, (h, jax.random.key(0)), x


@named("keys whose bits depend on the batch")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)
    body = lambda w: lambda h, now: twice(core(w, h, now[0]) * _masked(now[1]))
    return body, w, h, (x, jax.random.split(jax.random.key(0, impl="rbg"), T))


@named("a product of what such a key masks")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)
    body = lambda w: lambda h, now: twice(core(w, h * _masked(now[1]), now[0]))
    return body, w, h, (x, jax.random.split(jax.random.key(0, impl="rbg"), T))


@jax.custom_jvp
def _called_back(a: Any) -> Any:
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(a.shape, a.dtype), a)


_called_back.defjvp(lambda p, t: (_called_back(*p), jnp.cos(*p) * t[0]))
simple("callback", lambda w, h, x: twice(core(w, _called_back(h), _called_back(x))))


@named("product of integers")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)

    def make(w: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            h, n = s
            n = n @ jnp.ones((H, H), jnp.int32)
            return (core(w, h, x) + (n % 3).astype(h.dtype), n), h

        return body

    return make, w, (h, jnp.arange(B * H, dtype=jnp.int32).reshape(B, H)), x


@named("one mask over time")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)
    mask = _masked(jax.random.key(1))
    return (lambda w: lambda h, x: twice(core(w, h * mask, x))), w, h, x


@named("attention")
def _(rng: Any) -> Any:
    w, h, x = vanilla(rng)
    w["memory"] = drawn(rng, B, 5, H)

    def make(w: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            scores = jnp.einsum("bh,bsh->bs", h, w["memory"])
            weights = jax.nn.softmax(scores)
            seen = jnp.einsum("bs,bsh->bh", weights, w["memory"])
            return core(w, seen, x), weights

        return body

    return make, w, h, x


@named("heads")
def _(rng: Any) -> Any:
    """An sLSTM: a matrix in blocks, exponential gates, four parts of the state."""
    w = plain_weights(rng, x=(D, 4 * H), h=(2, H // 2, 2 * H), b=(4 * H,))

    def make(w: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            h, c, n, m = s
            heads = h.reshape(B, 2, H // 2)
            z = jnp.einsum("bgi,gio->bgo", heads, w["h"]).reshape(B, 2, 4, H // 2)
            z = z.swapaxes(1, 2).reshape(B, 4 * H) + x @ w["x"] + w["b"]
            i, f, z, o = jnp.split(z, 4, -1)
            f = jax.nn.log_sigmoid(f)
            top = jnp.maximum(f + m, i)
            i, f = jnp.exp(i - top), jnp.exp(f + m - top)
            c, n = f * c + i * jnp.tanh(z), f * n + i
            h = jax.nn.sigmoid(o) * c / jnp.maximum(n, 1e-6)
            return (h, c, n, top), h

        return body

    state = tuple(drawn(rng, B, H) for _ in range(4))
    return make, w, state, drawn(rng, T, B, D)


@named("blocks and norms")
def _(rng: Any) -> Any:
    """A world model's GRU: norms, and dense layers in blocks of [h, x]."""
    G, A = 2, H // 2
    w = plain_weights(
        rng, h=(H, H), x=(D, H), g=(3, H), a=(G, 3 * A, A), b=(G, A, 3 * A)
    )
    norm = lambda a, g: a * lax.rsqrt((a * a).mean(-1, keepdims=True) + 1e-4) * g

    def make(w: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            one = jax.nn.silu(norm(h @ w["h"], w["g"][0]))
            two = jax.nn.silu(norm(x @ w["x"], w["g"][1]))
            group = lambda a: a.reshape(B, G, -1)
            z = jnp.concatenate([group(h), group(one), group(two)], -1)
            z = jnp.einsum("bgi,gio->bgo", z, w["a"]).reshape(B, H)
            z = jax.nn.silu(norm(z, w["g"][2]))
            z = jnp.einsum("bgi,gio->bgo", group(z), w["b"])
            r, c, u = (a.reshape(B, H) for a in jnp.split(z, 3, -1))
            u = jax.nn.sigmoid(u - 1)
            return twice(u * jnp.tanh(jax.nn.sigmoid(r) * c) + (1 - u) * h)

        return body

    return make, w, drawn(rng, B, H), drawn(rng, T, B, D)


@named("two layers")
def _(rng: Any) -> Any:
    lower, w_1, s_1, x = BODIES["nnx OptimizedLSTMCell"](rng)
    w_2 = plain_weights(rng, x=(H, H), h=(H, H), b=(H,))

    def make(w: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            low, y = lower(w[0])(s[0], x)
            high = core(w[1], s[1], y)
            return (low, high), high

        return body

    return make, (w_1, w_2), (s_1, drawn(rng, B, H)), x


@named("peepholes")
def _(rng: Any) -> Any:
    w = plain_weights(rng, x=(D, 4 * H), h=(H, 4 * H), b=(4 * H,), p=(3, H))

    def make(w: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            h, c = s
            z = x @ w["x"] + h @ w["h"] + w["b"]
            i, f, g, o = jnp.split(z, 4, -1)
            i = jax.nn.sigmoid(i + w["p"][0] * c)
            f = jax.nn.sigmoid(f + w["p"][1] * c)
            c = f * c + i * jnp.tanh(g)
            h = jax.nn.sigmoid(o + w["p"][2] * c) * jnp.tanh(c)
            return (h, c), h

        return body

    return make, w, (drawn(rng, B, H), drawn(rng, B, H)), drawn(rng, T, B, D)


@named("ensemble")
def _(rng: Any) -> Any:
    """Members by a batch axis of the weights; the state is (members, B, H)."""
    w = plain_weights(rng, x=(2, D, H), h=(2, H, H), b=(2, 1, H))
    body = lambda w: lambda h, x: twice(core(w, h, x))
    return body, w, drawn(rng, 2, B, H), drawn(rng, T, B, D)
