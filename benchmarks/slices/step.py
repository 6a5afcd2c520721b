"""A training step of the language model of `experiments`, over the chips of a mesh."""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.slices.options import Sizes
from experiments.frame.trainer import State, make_optimizer
from experiments.language_model import model as network
from experiments.language_model.data import Batch
from experiments.language_model.settings import Settings

VOCABULARY = 256


def training_step(
    sizes: Sizes, mesh: Any, dtype: Any = jnp.bfloat16
) -> tuple[Any, tuple[Any, ...]]:
    """The step, and the shapes of its arguments.

    Weights and their updates are float32; the recurrent layers compute in `dtype`.
    """
    rows = sizes.rows * mesh.size
    settings = Settings(
        layers=sizes.layers, hidden=sizes.hidden, embedding=sizes.embedding,
        batch=rows, window=sizes.window,
    )  # fmt: skip

    def make() -> network.LanguageModel:
        model = network.LanguageModel(settings, VOCABULARY, nnx.Rngs(0))
        model.recurrent.dtype = dtype
        return model

    graph, weights, rest = nnx.split(nnx.eval_shape(make), nnx.Param, ...)
    optimizer = make_optimizer(settings)
    state = State(weights, jax.eval_shape(optimizer.init, weights))
    tokens: Any = jax.ShapeDtypeStruct((rows, sizes.window), jnp.int32)
    zeros = lambda *parts: nnx.merge(graph, *parts).recurrent.zeros(rows)
    carry = jax.eval_shape(zeros, weights, rest)

    def step(state: State, carry: Any, batch: Batch, key: Any, rest: Any) -> Any:
        def mean(weights: Any) -> tuple[Any, Any]:
            model = nnx.merge(graph, weights, rest, copy=True)
            model.train()
            nnx.reseed(model, default=key)
            found = network.loss(model, batch, carry)
            return found.total / found.n, found.carry

        gradient = jax.value_and_grad(mean, has_aux=True)
        (value, new), grads = gradient(state.weights)
        updates, moments = optimizer.update(grads, state.optimizer, state.weights)
        state = State(optax.apply_updates(state.weights, updates), moments)
        return state, new, value

    key = jax.eval_shape(lambda: jax.random.key(0))
    fresh = jax.ShapeDtypeStruct((), jnp.bool_)
    return step, (state, carry, Batch(tokens, tokens, fresh), key, rest)


def placed(mesh: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What has a row for each of the batch over all chips, the rest whole on each."""

    def put(spec: Any) -> Any:
        sharding = NamedSharding(mesh, spec)
        return lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)

    state, carry, batch, *others = args
    whole, split = put(PartitionSpec()), put(PartitionSpec("batch"))
    of_batch = lambda a: split(a) if a.ndim else whole(a)
    return (
        jax.tree.map(whole, state),
        *jax.tree.map(of_batch, (carry, batch)),
        *jax.tree.map(whole, tuple(others)),
    )


def bytes_of(args: Any) -> int:
    """Of a chip, without what the layout of the chip adds."""
    size = lambda a: prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize
    return sum(size(a) for a in jax.tree.leaves(args))
