"""Checks of a Transformer's weights, which name what does not fit."""

from typing import Any

import jax

from jaxseq._base.check import check, check_dtype, check_flag
from jaxseq._models.check import (
    as_arrays,
    check_kind,
    check_parts,
    check_tree,
    heads_like,
    shape_of,
)
from jaxseq._models.transformer.params import (
    NormLayout,
    NormParams,
    TransformerLayer,
    TransformerParams,
    TransformerStack,
    check_epsilon,
    embed_of,
)
from jaxseq._models.transformer.positions import Rotary, Sinusoidal


def check_params(params: Any) -> TransformerParams:
    """Checks types, shapes and dtypes of all weights, and returns them as arrays."""
    check_kind(params, "params", TransformerParams)
    params = as_arrays(params, "params")
    stacks = {name: getattr(params, name) for name in ("encoder", "decoder")}
    stacks = {f"params.{k}": stack for k, stack in stacks.items() if stack is not None}
    check(len(stacks) > 0, "params", "an encoder or a decoder", "neither")
    width: Any = None
    for name, stack in stacks.items():
        check_kind(stack, name, TransformerStack)
        _check_layout(stack.layout, f"{name}.layout")
        check_parts(stack.layers, f"{name}.layers", "layers")
        if width is None:
            width = _width(stack.layers[0], f"{name}.layers[0]")
        _check_stack(stack, name, *width)
    D, dtype = width
    w: Any = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    positions = params.positions
    if not isinstance(positions, (Sinusoidal, Rotary)):
        name = "params.positions"
        check_tree(positions, w(shape_of(positions, name, 2)[0], D), name)
    if params.decoder is not None and params.w_o is not None:
        size = embed_of(params, "decoder").shape[0]
        check_tree(params.w_o, w(D, size), "params.w_o")
    return params


def _width(layer: Any, name: str) -> tuple[int, Any]:
    """The width of the model and the dtype of its weights."""
    check_kind(layer, name, TransformerLayer)
    D, _ = shape_of(layer.w_1, f"{name}.w_1", 2)
    check_dtype(layer.w_1.dtype, f"{name}.w_1")
    return D, layer.w_1.dtype


def _check_stack(stack: TransformerStack, name: str, D: int, dtype: Any) -> None:
    w: Any = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    norm = NormParams(w(D), w(D))
    first = stack.layers[0]
    with_cross = name == "params.decoder" and getattr(first, "cross", None) is not None
    if stack.embed is not None:
        size, _ = shape_of(stack.embed, f"{name}.embed", 2)
        check_tree(stack.embed, w(size, D), f"{name}.embed")
    if stack.norm is not None:
        check_tree(stack.norm, norm, f"{name}.norm")
    for i, layer in enumerate(stack.layers):
        its = f"{name}.layers[{i}]"
        check_kind(layer, its, TransformerLayer)
        _, F = shape_of(layer.w_1, f"{its}.w_1", 2)
        heads = heads_like(layer.attention, f"{its}.attention", D, D, D, dtype)
        cross = None
        if with_cross:
            cross = heads_like(layer.cross, f"{its}.cross", D, D, D, dtype)
        like = TransformerLayer(
            heads, norm, cross, norm if with_cross else None,
            w(D, F), w(F), w(F, D), w(D), norm,
        )  # fmt: skip
        check_tree(layer, like, its)


def _check_layout(layout: Any, name: str) -> None:
    check_kind(layout, name, NormLayout)
    check_flag(layout.pre_norm, f"{name}.pre_norm")
    check_epsilon(layout.epsilon, f"{name}.epsilon")
