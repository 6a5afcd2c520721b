"""What the engine runs of an update and its arrays: for tests below the public face."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxseq._base.dtypes import state_dtype, widened
from jaxseq._base.masks import make_masks
from jaxseq._cells.gru_update import gru_update
from jaxseq._cells.lstm_update import lstm_update
from jaxseq._cells.rnn import RNNUpdate
from jaxseq._engine.kept import prepared
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.step import Step
from jaxseq._engine.types import Devices, Inputs, Spec, Weights
from jaxseq._engine.update import Shapes

ONE = Devices(1, NO_MESH)
UPDATES = {
    "rnn": RNNUpdate(jnp.tanh),
    "rnn_relu": RNNUpdate(jax.nn.relu),
    "lstm": lstm_update,
    "gru": gru_update,
}


def step_of(
    update: Any, Z: int, state: Any, w_h: Any, extra: Any = None, dtype: Any = None
) -> Step:
    """Of the width of `z_x`, those of the state, and shapes of matrices and extras."""
    shape = lambda a: jax.ShapeDtypeStruct(a, dtype or jnp.float64)
    of = lambda tree: jax.tree.map(shape, tree, is_leaf=lambda a: type(a) is tuple)
    rows = jax.tree.map(lambda F: shape((F,)), state)
    shapes = Shapes(shape((Z,)), rows, of(w_h), of(extra))
    return prepared(update, shapes, frozenset())[0].step


def parts(
    update: Any,
    params: Any,
    x: Any,
    state: Any,
    *,
    start: Any = None,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    reverse: bool = False,
) -> tuple[Spec, Weights, Inputs]:
    """Of one input, and of weights `(w_x, w_h, b)` or `(w_x, w_h, b, extra)`."""
    w_x, w_h, b, extra = (*params, None)[:4]
    widths = jax.tree.map(lambda a: a.shape[-1], state)
    w_h_shapes, extra_shapes = jax.tree.map(lambda a: a.shape, (w_h, extra))
    wide = state_dtype(x.dtype)
    step = step_of(update, w_x.shape[-1], widths, w_h_shapes, extra_shapes, wide)
    leaves = lambda tree: None if tree is None else tuple(jax.tree.leaves(tree))
    weights = Weights((w_x,), (b,), leaves(w_h) or (), leaves(extra) or ())
    masks = make_masks(x.shape[-2], lengths, mask, resets, reverse)
    inputs = Inputs(
        (jnp.moveaxis(x, -2, 0),), leaves(state) or (), leaves(start), masks
    )
    spec = Spec(step, reverse, x.dtype, mask is not None, start is not None)
    return spec, widened(weights), inputs
