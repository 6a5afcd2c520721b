"""Training with teacher forcing: one compiled step for each shape of batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxseq
from experiments.training import make_optimizer
from experiments.translation import batches
from experiments.translation.corpus import Corpus
from experiments.translation.model import Model, make_model
from experiments.translation.settings import Settings


class State(NamedTuple):
    weights: Any
    optimizer: Any


def make_state(model: Model, settings: Settings) -> State:
    weights = model.init(jax.random.key(settings.seed))
    return State(weights, make_optimizer(settings).init(weights))


class Trainer:
    """A run: its state and its compiled steps."""

    unit = "token"

    def __init__(self, settings: Settings, corpus: Corpus):
        self.settings, self.per_step = settings, settings.tokens
        self.model = make_model(settings, *map(len, corpus.vocabularies))
        self.batches = batches.training(corpus.train, settings.tokens, settings.seed)
        self.shapes = len(
            batches.grouped(corpus.train, settings.tokens, batches.BOUNDS)
        )
        self.held_out = batches.once(corpus.validation, settings.tokens)
        optimizer = make_optimizer(settings)
        self.state, self.step = make_state(self.model, settings), 0

        def update(state: State, batch: batches.Batch, key: Any) -> Any:
            how = {"dropout": settings.dropout, "key": key}

            def loss(weights: Any) -> tuple[Any, Any]:
                logits = logits_of(self.model, weights, batch, **how)
                smoothed = mean_nats(logits, batch, settings.label_smoothing)
                return smoothed, mean_nats(logits, batch)

            grads, nats = jax.grad(loss, has_aux=True)(state.weights)
            updates, rest = optimizer.update(grads, state.optimizer, state.weights)
            return State(optax.apply_updates(state.weights, updates), rest), nats

        self.update = jax.jit(update, donate_argnums=0)
        self.sums = jax.jit(lambda weights, batch: sums(self.model, weights, batch))

    def advance(self) -> jax.Array:
        """Does one step and returns its loss in nats per token."""
        key = jax.random.fold_in(jax.random.key(self.settings.seed), self.step)
        batch = self.batches[self.step]
        self.state, loss = self.update(self.state, batch, key)
        self.step += 1
        return loss

    def evaluate(self) -> float:
        return mean_loss(self.sums, self.state.weights, self.held_out)


def logits_of(model: Model, weights: Any, batch: Any, **how: Any) -> jax.Array:
    sources = batch.sources, batch.lengths
    return model.forward(weights, *sources, batch.inputs, **how)[0]


def mean_nats(logits: jax.Array, batch: Any, smoothing: float = 0.0) -> jax.Array:
    losses = jaxseq.cross_entropy(
        logits,
        batch.targets,
        lengths=batch.target_lengths,
        label_smoothing=smoothing,
    )
    return losses.sum() / batch.target_lengths.sum()


def sums(model: Model, weights: Any, batch: batches.Batch) -> tuple[Any, Any]:
    """Nats of all targets of a batch, and how many they are."""
    n = batch.target_lengths.sum()
    return mean_nats(logits_of(model, weights, batch), batch) * n, n


def mean_loss(compiled: Any, weights: Any, parts: list) -> float:
    """Nats per token over all batches; `compiled` is `sums` of the model."""
    parts = [compiled(weights, batch) for batch, _ in parts]
    total, n = (float(jnp.stack(a).sum()) for a in zip(*parts, strict=True))
    return total / n
