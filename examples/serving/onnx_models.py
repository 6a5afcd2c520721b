"""Encoders and decoders as ONNX models, which write token after token.

jax2onnx converts functions without a loop over time, such as any decoder's step. The
layers of a recurrent encoder `jaxseq.convert.to_onnx` writes, for which ONNX has
operators with lengths and both directions. The sizes of the batch and of the source are
left open. A state is a tensor for each of its leaves, which has the name of its path.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

import jaxseq
from jaxseq.convert import Network, to_onnx

OPSET = 18


def step(decode_step: Callable[..., Any], state: Any) -> Any:
    """The model of a step `(state, token) -> (state, logits)`, as of `jaxseq.greedy`.

    Args:
        decode_step: such as `partial(jaxseq.seq2seq_decode_step, params)`.
        state: the shapes and dtypes of a state.

    Inputs: `token` `(B,)`, int32; the state. Outputs: `logits` `(B, V)`; what changes
    of the state, with `new.` in front of its names.
    """
    leaves, tree = jax.tree.flatten(state)

    def f(token: Any, *leaves: Any) -> Any:
        after, logits = decode_step(tree.unflatten(leaves), token)
        return logits, *jax.tree.leaves(after)

    token = jax.ShapeDtypeStruct(leaves[0].shape[:1], jnp.int32)
    inputs = dict(zip(["token", *names(state)], [token, *leaves], strict=True))
    return converted(f, inputs, ["logits", *(f"new.{name}" for name in names(state))])


def converted(f: Callable[..., Any], inputs: dict[str, Any], outputs: list[str]) -> Any:
    """The model of a function, without the outputs that are inputs as they come.

    Args:
        f: of arrays, one after the other; it returns a tuple or list of such.
        inputs: their names, with their shapes and dtypes.
        outputs: names of what it returns.
    """
    import jax2onnx  # pyright: ignore[reportMissingImports]

    # Traced before, since jax2onnx replaces functions of jax.numpy while it traces; and
    # without calls of functions under `jit`, which its version 0.17 cannot read from
    # JAX 0.12 on. (A cell of one's own that has run before keeps those in its update.)
    with jax.disable_jit():
        traced = jax.make_jaxpr(f)(*inputs.values())
    made = [id(a) not in map(id, traced.jaxpr.invars) for a in traced.jaxpr.outvars]
    run = jaxpr_as_fun(traced)
    return jax2onnx.to_onnx(
        lambda *args: [a for a, own in zip(run(*args), made, strict=True) if own],
        list(inputs.values()),
        opset=OPSET,
        input_names=list(inputs),
        output_names=[name for name, own in zip(outputs, made, strict=True) if own],
    )


def names(state: Any) -> list[str]:
    paths = [path for path, _ in jax.tree.leaves_with_path(state)]
    return [jax.tree_util.keystr(p, simple=True, separator=".") for p in paths]


def sources() -> dict[str, Any]:
    """Inputs of an encoder, as `converted` takes them."""
    B, S = jax.export.symbolic_shape("batch, time")
    tokens = jax.ShapeDtypeStruct((B, S), jnp.int32)
    return {"tokens": tokens, "lengths": jax.ShapeDtypeStruct((B,), jnp.int32)}


def first_state(params: jaxseq.Seq2SeqParams, cell: jaxseq.Cell) -> Any:
    """The shapes and dtypes of the state that `seq2seq_encode` returns."""
    encode = lambda tokens, lengths: jaxseq.seq2seq_encode(
        params, tokens, cell=cell, source_lengths=lengths
    )
    return jax.eval_shape(encode, *sources().values())


def seq2seq_encoder(params: jaxseq.Seq2SeqParams, cell: jaxseq.Cell) -> Any:
    """The model of `jaxseq.seq2seq_encode`, of `LSTM`, `GRU` or `RNN`.

    Inputs: `tokens` `(B, S)`, int64; `lengths` `(B,)`, int32, at least 1. Outputs: the
    state.
    """
    from onnx import compose, helper

    layers = tuple(own if own[1:] else own[0] for own in params.encoder)
    table, how = params.source, {"lengths": True, "opset": OPSET}
    below: Any = to_onnx(Network(layers, cell), embedding=table, **how)
    B, S = jax.export.symbolic_shape("batch, time")
    sizes = {"batch": B, "time": S}

    def like(own: Any) -> jax.ShapeDtypeStruct:
        tensor = own.type.tensor_type
        shape = [sizes.get(d.dim_param, d.dim_value) for d in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        return jax.ShapeDtypeStruct(tuple(shape), dtype)

    def copy_out(name: str, copy: str) -> None:
        """Adds an output that is a copy of an input or output."""
        values = [*below.graph.input, *below.graph.output]
        (own,) = [own for own in values if own.name == name]
        below.graph.node.append(helper.make_node("Identity", [name], [copy]))
        below.graph.output.append(helper.make_value_info(copy, own.type))

    copy_out("lengths", "lengths again")
    inputs = {f"read {own.name}": like(own) for own in below.graph.output}
    pairs = [(own.name, f"read {own.name}") for own in below.graph.output]
    if params.attention is not None:
        copy_out("y", "memory.values")
    rest = lambda y, *ends: jax.tree.leaves(_state(params, cell, y, ends))
    above = converted(rest, inputs, names(first_state(params, cell)))
    above.ir_version = below.ir_version
    return compose.merge_models(below, above, io_map=pairs)


def _state(params: jaxseq.Seq2SeqParams, cell: jaxseq.Cell, y: Any, ends: Any) -> Any:
    """What `seq2seq_encode` makes of what its layers return.

    `ends` are of each layer the final `h`, `(N, B, H)` for N directions, and of an LSTM
    the final `c`; behind all of them are the lengths.
    """
    *ends, lengths = ends
    layers, parts = [], len(ends) // len(params.bridge)
    for i, (bridge, own) in enumerate(zip(params.bridge, params.decoder, strict=True)):
        mine = ends[i * parts : (i + 1) * parts]
        by_direction = [a[n] for n in range(mine[0].shape[0]) for a in mine]
        z = jnp.concatenate(by_direction, -1) @ bridge.w + bridge.b
        h, *c = jnp.split(z, parts, -1)
        tree = jax.tree.structure(cell.zeros(own))
        layers.append(tree.unflatten([jnp.tanh(h), *c]))
    attention, feed, memory = params.attention, None, None
    if attention is not None:
        valid = jnp.arange(y.shape[1], dtype=jnp.int32) < lengths[:, None]
        memory = jaxseq.Memory(y, _keys(attention.score, y), valid)
    if isinstance(attention, jaxseq.LuongParams) and attention.feeding is not None:
        feed = jnp.zeros((y.shape[0], attention.w.shape[-1]), y.dtype)
    return jaxseq.Seq2SeqState(tuple(layers), feed, memory)


def _keys(score: Any, y: Any) -> Any:
    """The part of a score that no query enters."""
    if isinstance(score, jaxseq.AdditiveParams):
        return y @ score.w_k
    if isinstance(score, jaxseq.MultiHeadParams):
        maps = (score.w_k, score.b_k), (score.w_v, score.b_v)
        heads = [(jnp.einsum("bsc,cna->bsna", y, w), b) for w, b in maps]
        return tuple(a if b is None else a + b for a, b in heads)
    return None
