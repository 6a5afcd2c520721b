"""Training: truncated backpropagation with the state carried over, resumable."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.language_model import data
from experiments.language_model.model import LanguageModel, nats
from experiments.language_model.settings import Settings
from experiments.training import make_optimizer


def make_model(settings: Settings, vocabulary: int) -> LanguageModel:
    return LanguageModel(
        vocabulary,
        cell=settings.cell,
        layers=settings.layers,
        hidden=settings.hidden,
        embedding=settings.embedding,
        dropout=settings.dropout,
        rngs=nnx.Rngs(settings.seed),
    )


class State(NamedTuple):
    """What a run carries from step to step, and a checkpoint holds."""

    weights: Any
    optimizer: Any
    carry: Any  # of the recurrent layers, for each stream of the batch


class Parts(NamedTuple):
    """A model taken apart, and the state that a run starts from."""

    graph: Any
    rest: Any
    state: State

    def model(self, weights: Any) -> LanguageModel:
        model = nnx.merge(self.graph, weights, self.rest, copy=True)
        model.eval()
        return model


def make_parts(settings: Settings, vocabulary: int) -> Parts:
    model = make_model(settings, vocabulary)
    graph, weights, rest = nnx.split(model, nnx.Param, ...)
    # a run over no step returns the state of zeros
    carry, _ = model(jnp.zeros((settings.batch, 0), jnp.int32))
    return Parts(
        graph, rest, State(weights, make_optimizer(settings).init(weights), carry)
    )


class Trainer:
    """A run: its state and its one compiled step."""

    def __init__(self, settings: Settings, text: data.Text):
        self.settings = settings
        self.unit, self.per_step = "char", settings.batch * settings.window
        self.held_out = text.held_out
        self.windows = data.Windows(
            text.train, settings.batch, settings.window, settings.seed
        )
        self.parts = make_parts(settings, len(text.vocabulary))
        self.state, self.step = self.parts.state, 0
        self.update = jax.jit(partial(update, make_optimizer(settings), self.parts))

    @property
    def model(self) -> LanguageModel:
        return self.parts.model(self.state.weights)

    def advance(self) -> jax.Array:
        """Does one step and returns its loss in nats per character."""
        tokens, targets, fresh = self.windows.at(self.step)
        carry = self.parts.state.carry if fresh else self.state.carry
        key = jax.random.fold_in(jax.random.key(self.settings.seed), self.step)
        state = self.state._replace(carry=carry)
        self.state, loss = self.update(state, tokens, targets, key)
        self.step += 1
        return loss

    def evaluate(self) -> float:
        return evaluate(self.model, self.held_out)


def update(
    optimizer: optax.GradientTransformation,
    parts: Parts,
    state: State,
    tokens: Any,
    targets: Any,
    key: Any,
) -> tuple[State, Any]:
    """One step of truncated backpropagation: no gradient goes into the carry."""

    def loss(weights: Any) -> tuple[Any, Any]:
        model = nnx.merge(parts.graph, weights, parts.rest, copy=True)
        nnx.reseed(model, default=key)
        carry, logits = model(tokens, state.carry)
        return nats(logits, targets).mean(), carry

    (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(state.weights)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    return State(weights, optimizer_state, carry), value


@nnx.jit
def window_nats(model: Any, state: Any, tokens: Any, targets: Any, mask: Any) -> Any:
    state, logits = model(tokens, state)
    return state, (nats(logits, targets) * mask).sum()


def evaluate(model: LanguageModel, tokens: np.ndarray) -> float:
    """Nats per character over all of `tokens` but the first, in 16 streams."""
    streams, window = min(16, len(tokens) - 1), 128
    n = -(-(len(tokens) - 1) // streams)  # steps of a stream, the last padded
    n = -(-n // window) * window if n > window else n
    padded = np.zeros(streams * n + 1, np.int32)
    padded[: len(tokens)] = tokens
    shape = lambda a: a.reshape(streams, n)
    inputs, targets = shape(padded[:-1]), shape(padded[1:])
    mask = shape(np.arange(streams * n) < len(tokens) - 1).astype(np.float32)
    state, total = None, 0.0
    for start in range(0, n, window):
        at = np.s_[:, start : start + window]
        state, part = window_nats(model, state, inputs[at], targets[at], mask[at])
        total += float(part)
    return total / (len(tokens) - 1)
