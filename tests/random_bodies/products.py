"""Products of a value and a weight, of a given shape `(..., O)`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.random_bodies.draw import Draw, Shape
from tests.random_bodies.rules import halved_gradient_product


def einsum(formula: str) -> Any:
    """A product of `value,weight->out`, or of `weight,value->out`: a `w` marks it then.

    `L` stands for the leading axes, `o` for the last one or `u` and `v` for two that it
    is split into; the others are summed over.
    """

    def product(d: Draw, shape: Shape, among: Any) -> Any:
        lead = "xyz"[: len(shape) - 1]
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


def by_vmap(d: Draw, shape: Shape, among: Any) -> Any:
    if len(shape) < 2:
        return None
    a, w = d.leaf((*shape[:-1], 3), among), d.weight(shape[-1], 3)
    f: Any = lambda a: w @ a
    for _ in shape[:-1]:
        f = jax.vmap(f)
    return f(a)


def over_rows(d: Draw, shape: Shape, among: Any) -> Any:
    """It sums over the first axis, which is of rows."""
    n = d.pick([1, 2, shape[0]])
    w = d.weight(shape[0], n)
    return jnp.tensordot(w, d.leaf((n, *shape[1:]), among), 1)


def weight_per_row(d: Draw, shape: Shape, among: Any) -> Any:
    if len(shape) != 2:
        return None
    B, O = shape
    a = d.leaf((B, 3), among)
    return jnp.einsum("bi,bio->bo", a, d.weight(B, 3, O))


def of_concatenation(d: Draw, shape: Shape, among: Any) -> Any:
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


def two_of_one_value(d: Draw, shape: Shape, among: Any) -> Any:
    a = d.leaf((*shape[:-1], 3), among)
    one, two = a @ d.weight(3, shape[-1]), a @ d.weight(3, shape[-1])
    return one + jnp.tanh(two) if d.chance(0.5) else (one + two) * two


def dot_general(d: Draw, shape: Shape, among: Any) -> Any:
    """Of either side in front, over the first axis of each or over the last."""
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


def convolution(d: Draw, shape: Shape, among: Any) -> Any:
    if len(shape) != 2:
        return None
    a = d.leaf(shape, among)[:, None]
    return lax.conv(a, d.weight(1, 1, 1), (1,), "SAME")[:, 0]


def with_halved_gradient(d: Draw, shape: Shape, among: Any) -> Any:
    return halved_gradient_product(
        d.leaf((*shape[:-1], 2), among), d.weight(2, shape[-1])
    )


def attention(d: Draw, shape: Shape, among: Any) -> Any:
    """Attention over a memory, which is a weight or in the state."""
    if len(shape) != 2:
        return None
    B, O = shape
    memory = d.leaf((B, 3, O), among) if d.chance(0.5) else d.weight(B, 3, O)
    scores = jnp.einsum("bo,bmo->bm", d.leaf((B, O), among), memory)
    return jnp.einsum("bm,bmo->bo", jax.nn.softmax(scores), memory)


PRODUCTS: list[Callable[[Draw, Shape, Any], Any]] = [
    einsum("Li,io->Lo"),
    einsum("Li,io->Lo"),
    einsum("Li,oi->Lo"),
    einsum("oiw,Li->oL"),
    einsum("oiw,iL->oL"),
    einsum("iow,iL->Lo"),
    einsum("Lui,uiv->Luv"),
    einsum("Lui,uiv->uLv"),
    einsum("uivw,uiL->uvL"),
    einsum("Lui,uiv->Lvu"),
    einsum("Lpq,pqo->Lo"),
    einsum("Lpq,qpo->Lo"),
    einsum("opqw,qLp->oL"),
    einsum("Li,iuv->Luv"),
    einsum("Li,ivu->Luv"),
    einsum("uivw,Li->vLu"),
    einsum("L,o->Lo"),
    by_vmap,
    over_rows,
    weight_per_row,
    of_concatenation,
    of_concatenation,
    two_of_one_value,
    dot_general,
    dot_general,
    convolution,
    with_halved_gradient,
    attention,
]
