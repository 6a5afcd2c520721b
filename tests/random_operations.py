"""Expressions, products and weights of a given shape, drawn at random."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxseq

Shape = tuple[int, ...]


class Draw:
    """What is drawn in one pass through a body, and what it may read."""

    def __init__(
        self,
        seed: int,
        weights: dict[str, Any],
        path: str = "",
        notes: Any = None,
        like: Any = None,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights = weights
        self.path = path
        self.notes = notes  # a set, in the first pass, which makes the weights
        self.known: list[tuple[str, Shape]] = []
        self.states: list[Any] = []
        self.inputs: list[Any] = []
        self.pool: list[Any] = []  # of these floats and of others
        self.ints: list[Any] = []
        self.flags: list[Any] = []
        self.keys: list[Any] = []
        self.calls = 0
        if like is not None:
            for name in "known states inputs pool ints flags keys".split():
                setattr(self, name, list(getattr(like, name)))

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def pick(self, items: Any) -> Any:
        return items[self.rng.integers(len(items))]

    def inside(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """`f(draw, *args)` of a draw that is the same whenever it is traced."""
        self.calls += 1
        seed, path = int(self.rng.integers(2**31)), f"{self.path}{self.calls}."
        new = lambda like: Draw(seed, self.weights, path, self.notes, like)
        like = new(self)
        return lambda *args: f(new(like), *args)

    def leaf_weight(self, *shape: int) -> Any:
        name = f"{self.path}w{sum(k.startswith(self.path) for k, _ in self.known)}"
        if self.notes is not None and name not in self.weights:
            rng = np.random.default_rng([len(self.weights), *shape])
            scale = 0.8 / math.sqrt(max(shape, default=1))
            self.weights[name] = rng.standard_normal(shape) * scale
        self.known.append((name, shape))
        return jnp.asarray(self.weights[name])

    def weight(self, *shape: int) -> Any:
        """A weight, or what is computed of weights."""
        again = [k for k, s in self.known if s == shape]
        if again and self.chance(0.35):
            return jnp.asarray(self.weights[self.pick(again)])
        if self.chance(0.5):
            return self.leaf_weight(*shape)
        return self.pick(WEIGHTS)(self, shape)

    def reset(self, a: Any) -> Any:
        """`a`, begun anew where a flag is set."""
        flags = self.pick(self.flags)
        if a.ndim and a.shape[0] == flags.shape[0]:
            flags = flags.reshape(-1, *[1] * (a.ndim - 1))
            start = self.leaf_weight(*a.shape[1:]) if self.chance(0.3) else 0.0
            return jnp.where(flags, start, a)
        return a * (1.0 - flags.any().astype(a.dtype))

    def leaf(self, shape: Shape, among: Any = None) -> Any:
        """One of the values that there are, brought to this shape."""
        values = self.pool if among is None or not among else among
        alike = [a for a in values if a.shape == shape]
        if alike and self.chance(0.7):
            return self.pick(alike)
        return self.fitted(self.pick(values), shape)

    def fitted(self, a: Any, shape: Shape) -> Any:
        if a.shape == shape:
            return a
        ways = [
            lambda: jnp.resize(a, shape),
            lambda: jnp.broadcast_to(a.mean(), shape),
        ]
        if a.size == math.prod(shape):
            ways += [lambda: a.reshape(shape)] * 3 + [lambda: a.T.reshape(shape)]
        if shape and a.shape[:-1] == shape[:-1] and a.ndim:
            ways += [lambda: a @ self.weight(a.shape[-1], shape[-1])] * 4
            if a.shape[-1] > shape[-1]:
                ways += [lambda: a[..., : shape[-1]], lambda: a[..., -shape[-1] :]]
            else:
                pad = [(0, 0)] * (a.ndim - 1) + [(0, shape[-1] - a.shape[-1])]
                ways += [lambda: jnp.pad(a, pad)]
        if a.ndim > len(shape) and a.shape[a.ndim - len(shape) :] == shape:
            axes = tuple(range(a.ndim - len(shape)))
            ways += [
                lambda: a.mean(axes),
                lambda: a.max(axes),
                lambda: a[(0,) * len(axes)],
            ]
        try:
            np.broadcast_shapes(a.shape, shape)
            if np.broadcast_shapes(a.shape, shape) == shape:
                ways += [lambda: jnp.broadcast_to(a, shape)] * 3
        except ValueError:
            pass
        return self.pick(ways)()

    def product(self, shape: Shape, among: Any = None, keep: bool = True) -> Any:
        """A product with a weight, which others may read too."""
        if not shape:
            a = self.leaf((3,), among)
            return a @ self.weight(3)
        for _ in range(20):
            z = self.pick(PRODUCTS)(self, shape, among)
            if z is not None:
                assert z.shape == shape
                if keep:
                    self.pool.append(z)
                return z
        raise AssertionError

    def expression(self, shape: Shape, depth: int) -> Any:
        if depth <= 0:
            return self.leaf(shape)
        if self.chance(0.25):
            return self.product(shape)
        if self.chance(0.15):
            return both(self, shape)
        for _ in range(50):
            a = self.pick(OPERATIONS)(self, shape, depth - 1)
            if a is not None:
                assert a.shape == shape and a.dtype == jnp.float64
                return a
        raise AssertionError


def both(d: Draw, shape: Shape) -> Any:
    """The sum of a product of the state and one of inputs."""
    of_h, of_x = d.product(shape, d.states, False), d.product(shape, d.inputs, False)
    if d.chance(0.3):
        of_x = of_x + bias(d, shape)
    if d.chance(0.3):
        of_h = of_h + bias(d, shape)
    if shape and d.chance(0.3):
        return jnp.concatenate(
            [
                a + b
                for a, b in zip(
                    jnp.split(of_h, shape[-1], -1),
                    jnp.split(of_x, shape[-1], -1),
                    strict=True,
                )
            ],
            -1,
        )
    if d.chance(0.2):
        return (of_x.ravel() + of_h.ravel()).reshape(shape)
    return of_h + of_x if d.chance(0.5) else of_x + of_h


def bias(d: Draw, shape: Shape) -> Any:
    n = len(shape)
    shapes = [
        shape[-1:],
        shape,
        (),
        (1,) * n,
        shape[-2:],
        (*[1] * (n - 1), *shape[-1:]),
    ]
    if n > 1:
        shapes.append((shape[0], *[1] * (n - 1)))
    return d.weight(*d.pick(shapes))


# weights that are computed
def _again_turned(d: Draw, s: Shape) -> Any:
    alike = [k for k, shape in d.known if shape == s[::-1]]
    return (
        jnp.asarray(d.weights[d.pick(alike)]).T if alike else d.leaf_weight(*s[::-1]).T
    )


def _normed(d: Draw, s: Shape) -> Any:
    v = d.leaf_weight(*s)
    if not s:
        return v
    return v * d.leaf_weight(*s[-1:]) / jnp.sqrt((v * v).sum(0) + 0.1)


def _low_rank(d: Draw, s: Shape) -> Any:
    if len(s) != 2:
        return d.leaf_weight(*s)
    return d.weight(s[0], 2) @ d.weight(2, s[1])


def _sliced(d: Draw, s: Shape) -> Any:
    whole = d.weight(*s[:-1], s[-1] + 2) if s else d.weight(2)
    return whole[..., 1:-1] if s else whole[1]


def _joined(d: Draw, s: Shape) -> Any:
    if not s or s[-1] < 2:
        return d.leaf_weight(*s)
    return jnp.concatenate([d.weight(*s[:-1], 1), d.weight(*s[:-1], s[-1] - 1)], -1)


def _of_input(d: Draw, s: Shape) -> Any:
    return d.leaf_weight(*s) * (1 + 0.3 * d.leaf((), d.inputs))


def _of_state(d: Draw, s: Shape) -> Any:
    return d.leaf_weight(*s) * (1 + 0.3 * d.leaf((), d.states))


def _chosen(d: Draw, s: Shape) -> Any:
    i = d.pick(d.ints).sum() % 2 if d.ints else 1
    return d.leaf_weight(2, *s)[i]


def _constant(d: Draw, s: Shape) -> Any:
    return d.rng.standard_normal(s) / math.sqrt(max(s, default=1))


WEIGHTS: list[Callable[[Draw, Shape], Any]] = [
    _again_turned,
    _again_turned,
    _normed,
    _low_rank,
    _sliced,
    _joined,
    _of_input,
    _of_state,
    _chosen,
    _constant,
    lambda d, s: d.leaf_weight(*s) + 0.5 * d.weight(*s),
    lambda d, s: d.leaf_weight(math.prod(s)).reshape(s),
    lambda d, s: d.leaf_weight(*s) * (_constant(d, s) > 0).astype(float),
    lambda d, s: jax.nn.softmax(d.leaf_weight(*s), -1) if s else d.leaf_weight(),
    lambda d, s: lax.stop_gradient(d.leaf_weight(*s)),
    lambda d, s: jnp.eye(*s) if len(s) == 2 else jnp.full(s, 0.5),
    lambda d, s: jax.jit(jnp.tanh)(d.weight(*s)),
    lambda d, s: jax.nn.silu(d.weight(*s)),
    lambda d, s: d.leaf_weight(*s, 1)[..., 0],
    lambda d, s: d.inside(lambda d: jax.jit(lambda w: w * _constant(d, s)))()(
        d.weight(*s)
    ),
]


# products (..., O)
def _letters(shape: Shape) -> str:
    return "xyz"[: len(shape) - 1]


def _einsum(formula: str) -> Any:
    """`L` stands for the axes in front."""

    def product(d: Draw, shape: Shape, among: Any) -> Any:
        lead = _letters(shape)
        left, out = formula.replace("L", lead).split("->")
        a, w = left.split(",")
        swap = "w" in a
        if swap:
            a, w = w, a
        w = w.replace("w", "")
        sizes = dict(zip(lead, shape, strict=False))
        sizes |= {
            "o": shape[-1],
            "i": d.pick([1, 2, 3, 4]),
            "p": 2,
            "q": d.pick([1, 3]),
        }
        if "u" in out:
            if shape[-1] % 2:
                return None
            sizes |= {"u": 2, "v": shape[-1] // 2}
        size = lambda axes: tuple(sizes[c] for c in axes)
        axes = [c for c in a if c in lead] + [c for c in a if c not in lead]
        value = d.leaf(size(axes), among)
        if "".join(axes) != a:
            value = value.transpose([axes.index(c) for c in a])
        weight = d.weight(*size(w))
        pair = (f"{w},{a}", weight, value) if swap else (f"{a},{w}", value, weight)
        z = jnp.einsum(f"{pair[0]}->{out}", *pair[1:])
        back = [*lead, *(c for c in ("o", "u", "v") if c in out)]
        z = z.transpose([out.index(c) for c in back])
        return z.reshape(shape)

    return product


def _rows_by_vmap(d: Draw, shape: Shape, among: Any) -> Any:
    if len(shape) < 2:
        return None
    a, w = d.leaf((*shape[:-1], 3), among), d.weight(shape[-1], 3)
    f: Any = lambda a: w @ a
    for _ in shape[:-1]:
        f = jax.vmap(f)
    return f(a)


def _rows_mixed(d: Draw, shape: Shape, among: Any) -> Any:
    n = d.pick([1, 2, shape[0]])
    w = d.weight(shape[0], n)
    return jnp.tensordot(w, d.leaf((n, *shape[1:]), among), 1)


def _own_of_rows(d: Draw, shape: Shape, among: Any) -> Any:
    if len(shape) != 2:
        return None
    B, O = shape
    a = d.leaf((B, 3), among)
    return jnp.einsum("bi,bio->bo", a, d.weight(B, 3, O))


def _of_concatenation(d: Draw, shape: Shape, among: Any) -> Any:
    widths = [d.pick([1, 2, 4]) for _ in range(d.pick([2, 2, 3]))]
    sources = [among, d.inputs, None]
    parts = [d.leaf((*shape[:-1], n), s) for n, s in zip(widths, sources, strict=False)]
    if d.chance(0.5):
        parts = parts[::-1]
    axis = d.pick([-1, 0])
    if axis == 0:
        parts = [jnp.moveaxis(a, -1, 0) for a in parts]
        z = jnp.tensordot(d.weight(shape[-1], sum(widths)), jnp.concatenate(parts), 1)
        return jnp.moveaxis(z, 0, -1)
    return jnp.concatenate(parts, -1) @ d.weight(sum(widths), shape[-1])


def _several_of_one(d: Draw, shape: Shape, among: Any) -> Any:
    a = d.leaf((*shape[:-1], 3), among)
    one, two = a @ d.weight(3, shape[-1]), a @ d.weight(3, shape[-1])
    return one + jnp.tanh(two) if d.chance(0.5) else (one + two) * two


def _dot_general(d: Draw, shape: Shape, among: Any) -> Any:
    """The axis in the middle, or in front, of either."""
    if len(shape) != 2:
        return None
    B, O = shape
    I = d.pick([1, 2, 3])
    a = d.leaf(d.pick([(B, I), (I, B)]), among)
    w = d.weight(*d.pick([(I, O), (O, I)]))
    i = 1 if a.shape == (B, I) else 0
    j = 0 if w.shape == (I, O) else 1
    more = d.pick([{}, {"precision": "highest"}, {"preferred_element_type": float}])
    if d.chance(0.5):
        return lax.dot_general(a, w, (((i,), (j,)), ((), ())), **more)
    return lax.dot_general(w, a, (((j,), (i,)), ((), ())), **more).T


def _convolved(d: Draw, shape: Shape, among: Any) -> Any:
    if len(shape) != 2:
        return None
    a = d.leaf(shape, among)[:, None]
    return lax.conv(a, d.weight(1, 1, 1), (1,), "SAME")[:, 0]


@jax.custom_vjp
def _own_product(a: Any, w: Any) -> Any:
    return a @ w


_own_product.defvjp(
    lambda a, w: (a @ w, (a, w)),
    lambda r, z: (
        0.5 * z @ r[1].T,
        r[0].reshape(-1, r[0].shape[-1]).T @ z.reshape(-1, z.shape[-1]),
    ),
)


def _by_rule(d: Draw, shape: Shape, among: Any) -> Any:
    return _own_product(d.leaf((*shape[:-1], 2), among), d.weight(2, shape[-1]))


def _seen(d: Draw, shape: Shape, among: Any) -> Any:
    """Attention over a memory, which is a weight or in the state."""
    if len(shape) != 2:
        return None
    B, O = shape
    memory = d.leaf((B, 3, O), among) if d.chance(0.5) else d.weight(B, 3, O)
    scores = jnp.einsum("bo,bmo->bm", d.leaf((B, O), among), memory)
    return jnp.einsum("bm,bmo->bo", jax.nn.softmax(scores), memory)


PRODUCTS: list[Callable[[Draw, Shape, Any], Any]] = [
    _einsum("Li,io->Lo"),
    _einsum("Li,io->Lo"),
    _einsum("Li,oi->Lo"),
    _einsum("oiw,Li->oL"),
    _einsum("oiw,iL->oL"),
    _einsum("iow,iL->Lo"),
    _einsum("Lui,uiv->Luv"),
    _einsum("Lui,uiv->uLv"),
    _einsum("uivw,uiL->uvL"),
    _einsum("Lui,uiv->Lvu"),
    _einsum("Lpq,pqo->Lo"),
    _einsum("Lpq,qpo->Lo"),
    _einsum("opqw,qLp->oL"),
    _einsum("Li,iuv->Luv"),
    _einsum("Li,ivu->Luv"),
    _einsum("uivw,Li->vLu"),
    _einsum("L,o->Lo"),
    _rows_by_vmap,
    _rows_mixed,
    _own_of_rows,
    _of_concatenation,
    _of_concatenation,
    _several_of_one,
    _dot_general,
    _dot_general,
    _convolved,
    _by_rule,
    _seen,
]


# operations
Operation = Callable[[Draw, Shape, int], Any]
OPERATIONS: list[Operation] = []


def operation(f: Operation) -> Operation:
    OPERATIONS.append(f)
    return f


def pointwise(f: Callable[..., Any], n: int = 1, times: int = 1) -> None:
    def apply(d: Draw, shape: Shape, depth: int) -> Any:
        return f(*(d.expression(shape, depth) for _ in range(n)))

    OPERATIONS.extend([apply] * times)


@jax.custom_jvp
def _twice_the_slope(a: Any) -> Any:
    return jnp.tanh(a)


@_twice_the_slope.defjvp
def _(primals: Any, tangents: Any) -> Any:
    y = _twice_the_slope(*primals)
    return y, 2 * (1 - y**2) * tangents[0]


@jax.custom_vjp
def _clipped(a: Any) -> Any:
    return a


_clipped.defvjp(lambda a: (a, None), lambda _, d: (jnp.clip(d, -0.1, 0.1),))

pointwise(lambda a, b: a + b, 2, 3)
pointwise(lambda a, b: a - b, 2)
pointwise(lambda a, b: a * jnp.tanh(b), 2, 2)
pointwise(lambda a, b: a / (1 + jnp.abs(b)), 2)
pointwise(lambda a, b, c: _mix(jax.nn.sigmoid(a), b, c), 3)
pointwise(lambda a, b, c: jnp.where(a > 0.1, b, c), 3)
pointwise(lambda a, b, c: lax.select_n(a > 0.1, b, lax.stop_gradient(c)), 3)
pointwise(jnp.maximum, 2)
pointwise(jnp.minimum, 2)
pointwise(lambda a: 0.3 - 2 * a)
pointwise(lambda a: jnp.exp(-jnp.abs(a)))
pointwise(lambda a, b: jnp.exp(a - jnp.maximum(a, b)), 2)
pointwise(lambda a: jnp.sqrt(a * a + 0.1))
pointwise(lambda a: jnp.clip(a, -0.5, 0.5))
pointwise(lambda a: (a + a) * a)
pointwise(lambda a: a - lax.stop_gradient(a) + jnp.sign(a))
pointwise(lambda a: jnp.round(3 * a) / 3 + 0 * a)
pointwise(lax.stop_gradient)
pointwise(_twice_the_slope)
pointwise(_clipped)
for _f in (jnp.tanh, jnp.sin, jax.nn.sigmoid, jax.nn.relu, jax.nn.silu):
    pointwise(_f)
for _f in (jax.nn.softplus, jax.nn.gelu, jax.nn.hard_sigmoid, jax.nn.leaky_relu):
    pointwise(_f)


def _mix(u: Any, a: Any, b: Any) -> Any:
    return u * a + (1 - u) * b


def along_last(f: Callable[[Any], Any]) -> None:
    def apply(d: Draw, shape: Shape, depth: int) -> Any:
        return f(d.expression(shape, depth)) if shape else None

    OPERATIONS.append(apply)


along_last(lambda a: jnp.cumsum(a, -1) / a.shape[-1])
along_last(lambda a: jnp.sort(a, -1))
along_last(lambda a: jnp.roll(a, 1, -1) + a[..., ::-1])
along_last(lambda a: jax.nn.softmax(a, -1))
along_last(lambda a: jax.nn.log_softmax(a, 0))
along_last(lambda a: a - jax.nn.logsumexp(a, -1, keepdims=True))
along_last(lambda a: a * jax.nn.one_hot(a.argmax(-1), a.shape[-1], dtype=a.dtype))
along_last(lambda a: jnp.concatenate([a[..., 1:], jnp.tanh(a[..., :1])], -1))
along_last(lambda a: a.at[..., 0].set(0.3).at[..., -1].add(a[..., 0]))
along_last(lambda a: jnp.take_along_axis(a, jnp.argsort(-a, -1), -1))
along_last(lambda a: jnp.fft.irfft(jnp.fft.rfft(a), a.shape[-1]) / 2)
along_last(
    lambda a: jnp.stack([a, jnp.tanh(a)], 0).swapaxes(0, -1)[..., 1].T.reshape(a.shape)
)
along_last(
    lambda a: (
        jax.nn.logsumexp(
            jnp.where(jnp.arange(a.shape[-1]) < 2, a, -jnp.inf), -1, keepdims=True
        )
        * a
    )
)
along_last(lambda a: jnp.linalg.norm(a, axis=-1, keepdims=True) + a)


@operation
def _biased(d: Draw, shape: Shape, depth: int) -> Any:
    return d.expression(shape, depth) + bias(d, shape)


@operation
def _gained(d: Draw, shape: Shape, depth: int) -> Any:
    return d.expression(shape, depth) * (1 + bias(d, shape))


@operation
def _layer_norm(d: Draw, shape: Shape, depth: int) -> Any:
    if not shape:
        return None
    a = d.product(shape) if d.chance(0.5) else d.expression(shape, depth)
    axes = d.pick([-1, 0, None])
    if d.chance(0.5):
        a = a - a.mean(axes, keepdims=True)
    a = a * lax.rsqrt((a * a).mean(axes, keepdims=True) + 0.1)
    return a * (1 + bias(d, shape)) + bias(d, shape)


@operation
def _gates(d: Draw, shape: Shape, depth: int) -> Any:
    """Several of one product, by any way to take it apart."""
    if not shape:
        return None
    *lead, O = shape
    k = d.pick([2, 3, 4])
    wide = *lead, k * O
    z = both(d, wide) if d.chance(0.5) else d.product(wide)
    if d.chance(0.5):
        z = z + bias(d, wide)
    if d.chance(0.2):
        z = jnp.tanh(z)
    ways = [
        lambda: jnp.split(z, k, -1),
        lambda: [z[..., i * O : (i + 1) * O] for i in range(k)],
        lambda: [z[..., i::k] for i in range(k)],
        lambda: [z.reshape(*lead, k, O)[..., i, :] for i in range(k)],
        lambda: jnp.unstack(z.reshape(*lead, O, k), axis=-1),
        lambda: list(jnp.moveaxis(z.reshape(*lead, k, O), -2, 0)),
        lambda: jnp.split(z.reshape(*lead, k, O).swapaxes(-1, -2).reshape(wide), k, -1),
        lambda: [a.T.reshape(shape) for a in jnp.split(z.T, k, 0)],
    ]
    a, b, *rest = d.pick(ways)()
    total = jax.nn.sigmoid(a + bias(d, shape) if d.chance(0.3) else a) * jnp.tanh(b)
    for c in rest:
        total = total + d.pick([jnp.tanh, jax.nn.relu, jnp.sin])(c) * d.leaf(shape)
    return total


@operation
def _reset(d: Draw, shape: Shape, depth: int) -> Any:
    return d.reset(d.expression(shape, depth)) if d.flags else None


@operation
def _embedded(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.ints or not shape:
        return None
    i = d.pick(d.ints) % 3
    table = jnp.asarray(d.weight(3, shape[-1]))
    return d.fitted(
        table[i] if d.chance(0.6) else jax.nn.one_hot(i, 3, dtype=float) @ table, shape
    )


@operation
def _dropped(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.keys:
        return None
    key, a = d.pick(d.keys), d.expression(shape, depth)
    if d.chance(0.3):
        return a + 0.1 * jax.random.normal(key, shape)
    return jnp.where(jax.random.bernoulli(key, 0.7, shape), a / 0.7, 0.0)


@operation
def _sliced_by_step(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.ints or not shape:
        return None
    a = d.expression((shape[0] + 1, *shape[1:]), depth)
    return lax.dynamic_slice_in_dim(a, d.pick(d.ints).sum() % 2, shape[0])


@operation
def _written_at_step(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.ints or not shape:
        return None
    a, b = d.expression(shape, depth), d.expression(shape[1:], depth)
    i = d.pick(d.ints).sum() % shape[0]
    return (
        lax.dynamic_update_index_in_dim(a, b, i, 0) if d.chance(0.5) else a.at[i].set(b)
    )


@operation
def _jitted(d: Draw, shape: Shape, depth: int) -> Any:
    wrap = d.pick([jax.jit, jax.checkpoint, jax.jit])
    f = d.inside(lambda d, a: jnp.tanh(a) + d.expression(shape, depth))
    return wrap(f)(d.leaf(shape))


@operation
def _product_in_call(d: Draw, shape: Shape, depth: int) -> Any:
    wrap = d.pick([jax.jit, jax.checkpoint, lambda f: jax.checkpoint(jax.jit(f))])
    if not shape:
        return None
    f = lambda a, w: jnp.tanh(a @ w)
    return wrap(f)(d.leaf((*shape[:-1], 3)), d.weight(3, shape[-1]))


@operation
def _branches(d: Draw, shape: Shape, depth: int) -> Any:
    one = d.inside(lambda d, a: a * d.expression(shape, depth - 1))
    two = d.inside(lambda d, a: d.expression(shape, depth - 1) - a)
    which = d.pick(d.ints).sum() % 2 == 0 if d.ints else d.leaf(()) > 0
    return lax.cond(which, one, two, d.expression(shape, depth))


@operation
def _loop_inside(d: Draw, shape: Shape, depth: int) -> Any:
    step = d.inside(lambda d, a: jnp.tanh(a + d.expression(shape, depth - 1)))
    product = d.inside(lambda d, a: d.product(shape, [a]))
    a = d.expression(shape, depth)
    if d.chance(0.4):
        return lax.fori_loop(0, 2, lambda _, a: step(a), a)
    scan = d.pick([lax.scan, jaxseq.scan])
    return scan(lambda a, _: (jnp.tanh(product(a)), None), a, None, 2)[0]


@operation
def _by_rows(d: Draw, shape: Shape, depth: int) -> Any:
    if len(shape) < 2:
        return None
    rows = [d.expression(shape, depth), d.leaf(shape)]
    if d.chance(0.5):
        rows[1] = d.weight(*shape)

    def f(d: Draw, a: Any, b: Any) -> Any:
        d.pool += [a, b]
        return a + d.expression(shape[1:], depth) * b

    return jax.vmap(d.inside(f))(*rows)


@operation
def _slope_inside(d: Draw, shape: Shape, depth: int) -> Any:
    if not shape:
        return None
    f = d.inside(lambda d, a: jnp.sin(d.product(shape, [a])).sum())
    return jax.grad(f)(d.leaf(shape))


@operation
def _rotated(d: Draw, shape: Shape, depth: int) -> Any:
    """By complex numbers, those of weights."""
    a = lax.complex(d.expression(shape, depth), d.leaf(shape))
    w = lax.complex(jnp.asarray(d.weight(*shape)), jnp.asarray(d.weight(*shape)))
    return (a * w).real


@operation
def _narrowed(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.chance(0.15):
        return None
    if d.notes is not None:
        d.notes.add("narrow")
    return jnp.sin(d.expression(shape, depth).astype(jnp.float32)).astype(jnp.float64)


@operation
def _attended(d: Draw, shape: Shape, depth: int) -> Any:
    """Over a memory of the state, by queries that a weight makes."""
    if len(shape) != 2:
        return None
    B, O = shape
    keys, values = d.leaf((B, 3, 2), d.states), d.leaf((B, 3, O), d.states)
    scores = jnp.einsum("bi,bmi->bm", d.product((B, 2)), keys)
    return jnp.einsum("bm,bmo->bo", jax.nn.softmax(scores, -1), values)


@operation
def _outer(d: Draw, shape: Shape, depth: int) -> Any:
    """A matrix of two vectors, read by a third: fast weights."""
    if len(shape) != 1:
        return None
    a, b, c = d.leaf(shape), d.leaf((3,)), d.product((3,))
    return jnp.outer(a, jnp.tanh(b)) @ c / 3


@operation
def _of_nothing(d: Draw, shape: Shape, depth: int) -> Any:
    """Something that is computed and not read, and something with no gradient."""
    d.product(shape or (1,))
    return d.leaf(shape) * 0.0 + (d.leaf(shape) > 0).astype(float)
