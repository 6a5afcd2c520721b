"""A step of time, drawn: the new state and the outputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.random_bodies.draw import Draw

INTEGERS = ("counter", "tokens")


def step(d: Draw, old: Any, own: Any, x: Any, extra: Any) -> Any:
    """Of floats `old` and `x`, and of parts of other kinds, `own` and `extra`."""
    wide = lambda a: jnp.asarray(a).astype(jnp.float64)
    d.states, d.inputs = list(map(wide, old)), list(map(wide, x))
    d.pool = [*d.states, *d.inputs]
    d.ints = [
        jnp.asarray(v).astype(int) for k, v in (own | extra).items() if k in INTEGERS
    ]
    d.flags = [v for k, v in (own | extra).items() if k in ("flags", "resets")]
    new = dict(own)
    if "counter" in own:
        new["counter"] = own["counter"] + 1
    if "flags" in own and d.chance(0.7):
        new["flags"] = ~own["flags"]
    if "key" in own:
        new["key"], now = jax.random.split(own["key"])
        d.keys.append(now)
    if "keys" in extra:
        d.keys.append(extra["keys"])
    if d.ints and d.chance(0.5):
        d.keys.append(jax.random.fold_in(jax.random.key(3), d.pick(d.ints).sum()))
    if d.flags and d.chance(0.5):
        d.states[0] = d.reset(d.states[0])
    floats = [advanced(d, i, a) for i, a in enumerate(d.states)]
    if len(floats) > 1 and floats[0].shape == floats[1].shape and d.chance(0.15):
        floats[:2] = floats[1::-1]
    floats = [a.astype(jnp.asarray(b).dtype) for a, b in zip(floats, old, strict=True)]
    state = floats[0] if len(floats) == 1 and not own else tuple(floats)
    outputs = [
        lambda: floats[0],
        lambda: floats[0],
        lambda: d.pick(floats),
        lambda: tuple(floats),
        lambda: old[0],
        lambda: d.pick(d.pool),
        lambda: d.product(d.states[0].shape or (2,)),
        lambda: d.expression((2,), 2),
        lambda: d.states[0].argmax(-1) if d.states[0].ndim else None,
        lambda: None,
        lambda: {"a": floats[-1], "b": [None, d.pick(d.pool) > 0]},
        lambda: new,
        lambda: x,
        lambda: d.weight(2, 2),
        lambda: d.pick([1.5, np.arange(3)]),
    ]
    ys = d.pick(outputs)()
    if d.chance(0.3):
        ys = {"y": ys, "more": (d.pick(outputs)(), d.pick(outputs)())}
    return ((state, new) if own else state), ys


def advanced(d: Draw, i: int, a: Any) -> Any:
    """A part of the new state; the first reads a product of the state."""
    if i and d.chance(0.2):
        return d.pick([a, jnp.full_like(a, 0.3), d.leaf(a.shape, d.inputs)])
    if i == 0:
        z = d.product(a.shape, d.states, d.chance(0.1))
        if d.chance(0.7):
            z = z + d.expression(a.shape, 2)
    else:
        z = d.expression(a.shape, 2)
    ways = [
        lambda: jnp.tanh(z),
        lambda: 0.5 * a + 0.5 * jnp.sin(z),
        lambda: jax.nn.relu(z) / (1 + jnp.abs(z)),
        lambda: interpolate(jax.nn.sigmoid(z), a, d.expression(a.shape, 1)),
        lambda: z / (1 + z * z),
    ]
    new = d.pick(ways)()
    d.pool.append(new)
    return new


def interpolate(u: Any, a: Any, b: Any) -> Any:
    return u * a + (1 - u) * jnp.tanh(b)
