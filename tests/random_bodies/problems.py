"""A random body and its arguments.

The body draws anew whenever it is traced, and always the same.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.random_bodies.body import step
from tests.random_bodies.draw import Draw
from tests.random_bodies.grammar import GRAMMAR

SHAPES = ("BH", "BH", "BH", "H", "BGK", "B", "", "BMH", "OH", "HB")


class Problem(NamedTuple):
    """A body and its arguments; `moving` are floats: weights, state and inputs."""

    make: Callable[[Any], Any]  # of the weights, the body
    init: Callable[[Any], Any]  # of the floats of the state, all of it
    xs: Callable[[Any], Any]
    moving: tuple[Any, Any, Any]
    T: int
    narrow: bool  # whether there are float32 in it

    def run(self, scan: Any, moving: Any, reverse: bool) -> Any:
        w, state, x = moving
        return scan(self.make(w), self.init(state), self.xs(x), self.T, reverse)


def problem(seed: int) -> Problem:
    """The state, the inputs, and a body with weights of its own."""
    rng = np.random.default_rng(seed)
    pick = lambda items: items[rng.integers(len(items))]
    sizes = {"B": pick([1, 2, 3]), "H": pick([1, 2, 4, 4]), "G": 2, "K": pick([1, 2])}
    sizes |= {"M": 3, "O": 1}
    T = pick([1, 2, 3, 3, 4])
    if rng.random() < 0.1:  # input maps are made in blocks of 8 steps
        T, sizes["B"] = 11, 8
    drawn_shape = lambda: tuple(sizes[c] for c in pick(SHAPES))
    value = lambda *shape: rng.standard_normal(shape) * 0.7

    bits = pick(["threefry2x32", "threefry2x32", "rbg"])
    random_key = partial(jax.random.key, impl=bits)

    # the state: floats, of which one may be given twice, and parts of other kinds
    shapes = [(sizes["B"], sizes["H"]) if rng.random() < 0.7 else drawn_shape()]
    shapes[0] = shapes[0] or (sizes["H"],)
    shapes += [drawn_shape() for _ in range(pick([0, 0, 1, 1, 2]))]
    if len(shapes) > 1 and rng.random() < 0.3:
        shapes[1] = shapes[0]
    dtypes = [np.float32 if rng.random() < 0.04 else np.float64 for _ in shapes]
    same = len(shapes) > 1 and shapes[0] == shapes[1] and dtypes[0] == dtypes[1]
    same = same and rng.random() < 0.5
    number = () in shapes[1:] and rng.random() < 0.5  # it begins as a Python number
    state: list[Any] = [
        value(*s).astype(d) for s, d in zip(shapes, dtypes, strict=True)
    ]
    kinds = [k for k in ("counter", "flags", "key") if rng.random() < 0.2]
    others: dict[str, Any] = {
        "counter": pick([0, jnp.int32(0), np.int64(1)]),
        "flags": rng.random(sizes["B"]) < 0.5,
        "key": (jax.random.PRNGKey if rng.random() < 0.4 else random_key)(seed),
    }

    x_shapes = [drawn_shape() for _ in range(pick([0, 1, 1, 1, 2, 2, 3]))]
    x: list[Any] = [value(T, *s) for s in x_shapes]
    if x and rng.random() < 0.04:
        x[0] = x[0].astype(np.float32)
    more = [k for k in ("tokens", "resets", "keys") if rng.random() < 0.25]
    keys = jax.random.split(random_key(seed), T)
    whole = pick([np.int32, np.int64, np.uint8])
    given: dict[str, Any] = {
        "tokens": rng.integers(0, 3, (T, *pick([(), (sizes["B"],)]))).astype(whole),
        "resets": rng.random((T, sizes["B"])) < 0.4,
        "keys": keys
        if rng.random() < 0.5 or bits == "rbg"
        else jax.random.key_data(keys),
    }

    def init(floats: Any) -> Any:
        parts = list(floats)
        if same:
            parts[1] = parts[0]
        if number:
            parts[shapes.index((), 1)] = 0.25
        parts = parts[0] if len(parts) == 1 and not kinds else tuple(parts)
        return (parts, {k: others[k] for k in kinds}) if kinds else parts

    def xs(floats: Any) -> Any:
        return (list(floats), {k: given[k] for k in more}) if floats or more else None

    body_seed = int(rng.integers(2**31))

    def make(weights: Any, notes: Any = None) -> Any:
        flat = weights if notes is not None else flattened(weights)

        def body(s: Any, now: Any) -> Any:
            d = Draw(GRAMMAR, body_seed, flat, notes=notes)
            old, own = s if kinds else (s, {})
            old = list(old) if isinstance(old, tuple) else [old]
            x, extra = ([], {}) if now is None else now
            return step(d, old, own, x, extra)

        return body

    weights: dict[str, Any] = {}
    notes: set[str] = set()
    first = lambda a: None if a is None else jax.tree.map(lambda a: a[0], a)
    jax.eval_shape(lambda: make(weights, notes)(init(state), first(xs(x))))
    narrow = "narrow" in notes or any(a.dtype == np.float32 for a in (*state, *x))
    array = partial(jax.tree.map, jnp.asarray)
    moving = array(nested(weights)), array(state), array(x)
    return Problem(make, init, xs, moving, T, narrow)


def nested(weights: dict[str, Any]) -> Any:
    """Weights as a tree with tuples and dicts in it."""
    names = list(weights)
    part = lambda i, n: {k: weights[k] for k in names[i::n]}
    return {"first": part(0, 2), "rest": ([part(1, 4)], part(3, 4))}


def flattened(tree: Any) -> dict[str, Any]:
    (one,), two = tree["rest"]
    return tree["first"] | one | two
