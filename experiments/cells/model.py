"""One network for all tasks: an embedding, a recurrent part, a linear head."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import jaxseq.nn
from examples.cells.layer_norm_lstm import LAYER_NORM_LSTM
from examples.cells.mgu import MGU
from examples.cells.slstm import SLSTM
from experiments.cells.mingru import MINGRU
from experiments.cells.settings import LAYERS, TAGGED, TEXTS, Settings
from experiments.frame.errors import InputError
from experiments.frame.trainer import Loss
from experiments.tagging.vocabulary import UNKNOWN

CELLS = {
    "rnn": jaxseq.nn.RNN,
    "lstm": jaxseq.nn.LSTM,
    "gru": jaxseq.nn.GRU,
    "mgu": partial(jaxseq.nn.Cell, MGU),
    "layer-norm-lstm": partial(jaxseq.nn.Cell, LAYER_NORM_LSTM),
    "slstm": partial(jaxseq.nn.Cell, SLSTM),
    "mingru": partial(jaxseq.nn.Cell, MINGRU),
}
HEADS = 4  # of an sLSTM, which divide its width


def recurrent(settings: Settings, D: int, H: int, rngs: nnx.Rngs) -> Any:
    """From both sides where each step is tagged."""
    cell, both = settings.cell, settings.task in TAGGED
    return CELLS[cell](
        D, H, num_layers=LAYERS.get(cell, 1), bidirectional=both, rngs=rngs
    )


def weights(module: Any) -> int:
    return sum(w.size for w in jax.tree.leaves(nnx.state(module, nnx.Param)))


def width(settings: Settings, D: int) -> int:
    """Of the state, with which the weights are closest to the budget."""
    step = HEADS if settings.cell == "slstm" else 1
    made = lambda H: recurrent(settings, D, H, nnx.Rngs(0))
    count = lambda n: weights(nnx.eval_shape(lambda: made(n * step)))
    low, high = 1, 2
    while count(high) < settings.budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < settings.budget else (low, middle)
    off, n = min((abs(count(n) / settings.budget - 1), n) for n in (low, high))
    if off > 0.05:
        raise InputError(
            f"--budget {settings.budget}: no width of the cell {settings.cell} comes "
            "within one in twenty of it; try a larger one"
        )
    return n * step


class Network(nnx.Module):
    """Of inputs `(B, T, ...)` a number for each sequence, or scores for each step."""

    def __init__(self, settings: Settings, names: int, classes: int, rngs: nnx.Rngs):
        self.task = settings.task
        D = settings.embedding if names else 2
        self.embed = nnx.Embed(names, D, rngs=rngs) if names else None
        H = width(settings, D)
        self.recurrent = recurrent(settings, D, H, rngs)
        both = 2 if settings.task in TAGGED else 1
        self.head = nnx.Linear(both * H, classes, rngs=rngs)

    def __call__(self, x: Array, state: Any = None, **how: Any) -> tuple[Any, Array]:
        x = x if self.embed is None else self.embed(x)
        state, y = self.recurrent(x, state, **how)
        return state, self.head(y[:, -1] if self.embed is None else y)


def make(settings: Settings, facts: dict[str, Any]) -> Network:
    names, classes = 0, 1
    if settings.task in TEXTS:
        names = classes = len(facts["vocabulary"])
    elif settings.task in TAGGED:
        vocabulary = facts["vocabulary"]
        names = len(vocabulary["words"]) + UNKNOWN + 1
        classes = len(vocabulary["tags"])
    return Network(settings, names, classes, nnx.Rngs(settings.seed))


def start(model: Network, batch: Any) -> Any:
    """The state of zeros of each row of a text."""
    return model.recurrent.zeros(len(batch.tokens))


def loss(model: Network, batch: Any, carry: Any = None) -> Loss:
    """Sums of squared errors, or of negative log-likelihoods in nats."""
    return errors(model, batch, carry)[0]


def errors(model: Network, batch: Any, carry: Any = None) -> tuple[Loss, Array]:
    """The loss, and the sum of what a test counts."""
    if model.task in TEXTS:
        carry = jax.tree.map(lambda c: jnp.where(batch.fresh, 0, c), carry)
        carry, scores = model(jnp.asarray(batch.tokens), carry)
        right, valid = batch.targets, batch.mask
        valid = jnp.ones(right.shape, bool) if valid is None else valid
    elif model.task in TAGGED:
        _, scores = model(jnp.asarray(batch.words), lengths=batch.lengths)
        right = batch.tags
        valid = jnp.arange(right.shape[1]) < batch.lengths[:, None]
    else:
        _, said = model(jnp.asarray(batch.x))
        total = jnp.square(said[:, 0] - batch.y).sum()
        return Loss(total, jnp.asarray(len(batch.y))), total
    nats = optax.softmax_cross_entropy_with_integer_labels(scores, right)
    total, n = jnp.where(valid, nats, 0).sum(), valid.sum()
    hits = jnp.where(valid, scores.argmax(-1) == right, False).sum()
    return Loss(total, n, carry=carry), hits if model.task in TAGGED else total
