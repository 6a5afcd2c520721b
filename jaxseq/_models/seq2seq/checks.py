"""Checks of a recurrent encoder-decoder's weights, which name what does not fit."""

from typing import Any

import jax

from jaxseq._attention.params import AdditiveParams, Dot, MultiHeadParams, ScaledDot
from jaxseq._base.check import check, check_dtype
from jaxseq._cells.any import cell_of
from jaxseq._cells.cell import Cell
from jaxseq._models.check import (
    as_arrays,
    check_kind,
    check_parts,
    check_tree,
    heads_like,
    shape_of,
)
from jaxseq._models.seq2seq.cells import widths_of
from jaxseq._models.seq2seq.params import (
    BahdanauParams,
    BridgeParams,
    InputFeeding,
    LuongParams,
    Seq2SeqParams,
    feeds,
)


def check_params(params: Any, cell: Cell | None) -> Seq2SeqParams:
    """Checks types, shapes and dtypes of all weights, and returns them as arrays."""
    check_kind(params, "params", Seq2SeqParams)
    params = as_arrays(params, "params")
    size, E = shape_of(params.source, "params.source", 2)
    dtype = params.source.dtype
    check_dtype(dtype, "params.source")
    _check_cells(params, cell, dtype)
    w: Any = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    if params.target is not None:
        size, _ = shape_of(params.target, "params.target", 2)
        check_tree(params.target, w(size, E), "params.target")
    top = [widths_of(cell, own)[0] for own in params.encoder[-1]]
    H, C = widths_of(cell, params.decoder[-1])[0], sum(top)
    A = _check_readout(params.attention, H, C, E, dtype)
    more = C if isinstance(params.attention, BahdanauParams) else 0
    more = A if A is not None and feeds(params) else more
    _check_input(params.decoder[0], "params.decoder[0].w_x", E + more)
    check_tree(params.w_o, w(H if A is None else A, size), "params.w_o")
    check_tree(params.b_o, w(size), "params.b_o")
    for i, both in enumerate(params.encoder):
        F = sum(sum(widths_of(cell, one)) for one in both)
        S = sum(widths_of(cell, params.decoder[i]))
        like = BridgeParams(w(F, S), w(S))
        check_tree(params.bridge[i], like, f"params.bridge[{i}]")
    return params


def _check_cells(params: Seq2SeqParams, cell: Cell | None, dtype: Any) -> None:
    check_parts(params.decoder, "params.decoder", "cells")
    n = len(params.decoder)
    check_parts(params.encoder, "params.encoder", "layers, as in the decoder", n)
    check_parts(params.bridge, "params.bridge", "bridges, of each layer", n)
    for i, both in enumerate(params.encoder):
        its = f"params.encoder[{i}]"
        check_parts(both, its, "cells")
        check(len(both) <= 2, its, "the cells of one or both directions", len(both))
    for i, layer in enumerate((*params.encoder, params.decoder)):
        its = "params.decoder" if i == n else f"params.encoder[{i}]"
        for j, own in enumerate(layer):
            cell_of(cell, own)
            expected = f"dtype {dtype}, that of params.source"
            for w in jax.tree.leaves(own.w_x):
                check(w.dtype == dtype, f"{its}[{j}].w_x", expected, w.dtype)


def _check_input(params: Any, name: str, width: int) -> None:
    """Checks the map of a cell's inputs, if it has one."""
    for w in jax.tree.leaves(params.w_x)[:1]:
        check(w.shape[0] == width, name, f"a map of {width} inputs", w.shape)


def _check_readout(attention: Any, H: int, C: int, E: int, dtype: Any) -> int | None:
    """Checks the weights of the attention, and returns the width of its output."""
    if attention is None:
        return None
    name = "params.attention"
    luong, known = type(attention) is LuongParams, (BahdanauParams, LuongParams)
    expected = "BahdanauParams, LuongParams or None"
    check(type(attention) in known, name, expected, type(attention).__name__)
    w: Any = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    width = shape_of(attention.b, f"{name}.b", 1)[0]
    into = C + H if luong else H + C + E
    like = attention._replace(
        score=_score_like(attention.score, H, C, dtype), w=w(into, width), b=w(width)
    )
    check_tree(attention, like, name)
    if not luong:
        even = width % 2 == 0
        check(even, f"{name}.b", "an even width, for maxout", width)
        return width // 2
    ok = attention.feeding is None or isinstance(attention.feeding, InputFeeding)
    got = type(attention.feeding).__name__
    check(ok, f"{name}.feeding", "InputFeeding() or None", got)
    return width


def _score_like(score: Any, H: int, C: int, dtype: Any) -> Any:
    """What a score of this kind has to be."""
    name = "params.attention.score"
    w: Any = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    if isinstance(score, AdditiveParams):
        A = shape_of(score.v, f"{name}.v", 1)[0]
        return AdditiveParams(w(H, A), w(C, A), w(A))
    if isinstance(score, MultiHeadParams):
        return heads_like(score, name, H, C, C, dtype)
    if isinstance(score, (Dot, ScaledDot)):
        check(C == H, name, "another, as C and H differ", f"C = {C}, H = {H}")
        return type(score)()
    return w(H, C)
