"""One layer, and what comes behind the last: a norm and logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.heads import attend_heads
from jaxseq._base.dtypes import state_dtype
from jaxseq._models.transformer.cache import Cache
from jaxseq._models.transformer.params import (
    NormLayout,
    NormParams,
    TransformerLayer,
    TransformerParams,
    embed_of,
)

Activation = Callable[[Array], Array]


def run_layer(
    layer: TransformerLayer,
    x: Array,
    attend: Activation,
    cross: Cache | None,
    cross_valid: Array | None,
    activation: Activation,
    layout: NormLayout,
    dropped: Activation,
) -> tuple[Array, Array | None]:
    """One layer, and the weights of its attention to the encoder's outputs."""
    weights = []

    def sub(f: Activation, norm: NormParams, x: Array) -> Array:
        if layout.pre_norm:
            return x + dropped(f(normed(norm, x, layout.epsilon)))
        return normed(norm, x + dropped(f(x)), layout.epsilon)

    def attend_cross(x: Array) -> Array:
        assert layer.cross is not None and cross is not None
        valid = cross_valid
        if valid is not None:
            shape = (*x.shape[:-1], valid.shape[-1])
            valid = jnp.broadcast_to(valid[..., None, :], shape)
        context, w = attend_heads(layer.cross, x, *cross, valid)
        weights.append(w)
        return context

    x = sub(attend, layer.attention_norm, x)
    if layer.cross_norm is not None:
        x = sub(attend_cross, layer.cross_norm, x)
    maps = lambda x: activation(x @ layer.w_1 + layer.b_1) @ layer.w_2 + layer.b_2
    return sub(maps, layer.norm, x), weights[0] if weights else None


def normed(params: NormParams, x: Array, epsilon: float) -> Array:
    """Ba, Kiros and Hinton, 2016, https://arxiv.org/abs/1607.06450."""
    wide = x.astype(state_dtype(x.dtype))
    centred = wide - wide.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    unit = (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)
    return unit * params.scale + params.b


def logits_of(params: TransformerParams, x: Array) -> Array:
    return x @ (embed_of(params, "decoder").T if params.w_o is None else params.w_o)


def keep(x: Array) -> Array:
    return x
