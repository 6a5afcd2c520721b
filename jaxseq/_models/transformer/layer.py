"""The layers of a stack, and what comes after the last: a norm and logits."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.heads import attend_heads
from jaxseq._attention.params import MultiHeadParams
from jaxseq._base.check import check
from jaxseq._base.dtypes import state_dtype, widened
from jaxseq._base.linear import linear
from jaxseq._models.transformer.cache import Cache
from jaxseq._models.transformer.params import (
    NormLayout,
    NormParams,
    TransformerLayer,
    TransformerParams,
    TransformerStack,
    embed_of,
)

Activation = Callable[[Array], Array]


def keep(x: Array) -> Array:
    return x


class Pass(NamedTuple):
    """What all layers have in common in one pass."""

    layout: NormLayout
    activation: Activation
    valid: Array | None = None  # (..., S), which of the encoder's outputs are
    dropped: Activation = keep


def run_layers(
    stack: TransformerStack,
    x: Array,
    attend: Callable[[int, Array], Array],
    cross: tuple[Cache, ...] | None,
    common: Pass,
) -> tuple[Array, tuple[Array | None, ...]]:
    """Outputs, and each layer's weights of its attention to the encoder's outputs.

    `attend` is the self-attention of a layer, given its number.
    """
    weights = []
    for i, layer in enumerate(stack.layers):
        memory = None if cross is None else cross[i]
        x, w = _run_layer(layer, x, partial(attend, i), memory, common)
        weights.append(w)
    if stack.norm is not None:
        x = _normed(stack.norm, x, stack.layout.epsilon)
    return x, tuple(weights)


def _run_layer(
    layer: TransformerLayer,
    x: Array,
    attend: Activation,
    cross: Cache | None,
    common: Pass,
) -> tuple[Array, Array | None]:
    y = attend(_before(layer.attention_norm, x, common))
    x, weights = _after(layer.attention_norm, x, y, common), None
    if layer.cross is not None and layer.cross_norm is not None:
        assert cross is not None
        query = _before(layer.cross_norm, x, common)
        y, weights = _attend_cross(layer.cross, query, cross, common.valid)
        x = _after(layer.cross_norm, x, y, common)
    z = linear(_before(layer.norm, x, common), layer.w_1, layer.b_1)
    y = linear(_activated(common.activation, z), layer.w_2, layer.b_2)
    return _after(layer.norm, x, y, common), weights


def _before(norm: NormParams, x: Array, common: Pass) -> Array:
    """The input of a sub-layer."""
    layout = common.layout
    return _normed(norm, x, layout.epsilon) if layout.pre_norm else x


def _after(norm: NormParams, x: Array, y: Array, common: Pass) -> Array:
    """The result of a sub-layer with input x and output y."""
    x = x + common.dropped(y)
    layout = common.layout
    return x if layout.pre_norm else _normed(norm, x, layout.epsilon)


def _attend_cross(
    params: MultiHeadParams, x: Array, cross: Cache, valid: Array | None
) -> tuple[Array, Array]:
    if valid is not None:
        shape = (*x.shape[:-1], valid.shape[-1])
        valid = jnp.broadcast_to(valid[..., None, :], shape)
    return attend_heads(params, x, *cross, valid)


def _activated(activation: Activation, z: Array) -> Array:
    a: Any = activation(z)
    expected = f"a function to {z.dtype} {z.shape}, as what it is given"
    got = f"{getattr(a, 'dtype', type(a).__name__)} {jnp.shape(a)}"
    check(got == f"{z.dtype} {z.shape}", "activation", expected, got)
    return a


def _normed(params: NormParams, x: Array, epsilon: float) -> Array:
    """Ba, Kiros and Hinton, 2016, https://arxiv.org/abs/1607.06450."""
    wide = x.astype(state_dtype(x.dtype))
    centred = wide - wide.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    unit = centred * jax.lax.rsqrt(variance + epsilon)
    params = widened(params)
    return (unit * params.scale + params.b).astype(x.dtype)


def logits_of(params: TransformerParams, x: Array) -> Array:
    w_o = params.w_o
    return linear(x, embed_of(params, "decoder").T if w_o is None else w_o)
