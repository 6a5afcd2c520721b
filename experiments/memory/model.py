"""A recurrent layer, or two, and a linear head over the last output or each."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import jaxseq.nn
from examples.cells.indrnn import INDRNN
from experiments.memory.data import WIDTHS, Batch
from experiments.memory.settings import Settings


def make_recurrent(settings: Settings, D: int, rngs: nnx.Rngs) -> nnx.Module:
    """The recurrent part, its weights as the settings have them at the start."""
    cell, H = settings.cell, settings.hidden
    if cell == "indrnn":
        return make_indrnn(settings, D, rngs)
    if cell == "gru":
        module = jaxseq.nn.GRU(D, H, rngs=rngs)
    elif cell == "lstm":
        bias = settings.forget_bias
        module = jaxseq.nn.LSTM(D, H, forget_bias=bias, rngs=rngs)
    else:
        activation = jax.lax.tanh if cell == "rnn" else jax.nn.relu
        module = jaxseq.nn.RNN(D, H, activation=activation, rngs=rngs)
    (weights,) = module.weights
    if cell == "irnn":  # Le, Jaitly and Hinton, 2015
        weights.w_x[...] = 1e-3 * jax.random.normal(rngs.params(), (D, H))
        weights.w_h[...] = jnp.eye(H)
    if settings.span is not None:
        # gates that keep for 1 to `span` - 1 steps (Tallec and Ollivier, 2018)
        most = settings.span - 1
        steps = jax.random.uniform(rngs.params(), (H,), minval=1, maxval=most)
        b, zeros = jnp.log(steps), jnp.zeros(H)
        gates = [-b, b, zeros, zeros] if cell == "lstm" else [zeros, b, zeros]
        weights.b[...] = jnp.concatenate(gates)
    return module


def make_indrnn(settings: Settings, D: int, rngs: nnx.Rngs) -> nnx.Module:
    """Two layers, of which the first keeps out what the second is not to add up.

    Over the whole length a unit can at most double what it has. Those of the second
    layer begin with a half to that (Li and others, 2018, section 3).
    """
    H, most = settings.hidden, 2 ** (1 / settings.length)
    bound = lambda u: jnp.clip(u, -most, most)
    update = lambda z_x, h, w_h, u: INDRNN.update(z_x, h, w_h, bound(u))
    module = jaxseq.nn.Cell(
        INDRNN._replace(update=update), D, H, num_layers=2, rngs=rngs
    )
    for weights, least in zip(module.weights, (0, 1 / most), strict=True):
        u = jax.random.uniform(rngs.params(), (H,), minval=least, maxval=most)
        weights.extra[...] = u
    return module


class Memory(nnx.Module):
    """Maps inputs `(B, T, D)` to answers: `(B, 1)` to adding, `(B, T, 9)` to copy."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        D, K = WIDTHS[settings.task]
        self.recurrent = make_recurrent(settings, D, rngs)
        self.head = nnx.Linear(settings.hidden, K, rngs=rngs)
        self.last = settings.task == "adding"

    def __call__(self, x: Array) -> Array:
        _, y = self.recurrent(x)
        return self.head(y[:, -1] if self.last else y)


def make(settings: Settings, facts: dict[str, Any]) -> Memory:
    return Memory(settings, rngs=nnx.Rngs(settings.seed))


def loss(model: Memory, batch: Batch) -> tuple[Array, Array]:
    """The sum of the squared errors, or of the cross-entropies, and their number."""
    answer = model(jnp.asarray(batch.x))
    if model.last:
        each = jnp.square(answer[:, 0] - batch.y)
    else:
        each = optax.softmax_cross_entropy_with_integer_labels(answer, batch.y)
    return each.sum(), jnp.asarray(each.size)
