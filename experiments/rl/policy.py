"""The policy: a layer, a memory, and heads for the actions and the value."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

import jaxseq
from experiments.rl.settings import Settings
from jaxseq.linen import ScannedRNN

CELLS = {"gru": jaxseq.GRU, "lstm": jaxseq.LSTM, "rnn": jaxseq.RNN}


class Policy(nn.Module):
    """`(memory, x, resets) -> (memory, logits, values)` of rollouts, time first.

    Without a `cell` it has no memory, and as many layers.
    """

    actions: int
    hidden: int
    cell: jaxseq.Cell | None

    @nn.compact
    def __call__(
        self, memory: Any, x: Array, resets: Array
    ) -> tuple[Any, Array, Array]:
        layer = lambda y: nn.tanh(nn.Dense(self.hidden)(y))
        y = layer(x)
        if self.cell is None:
            y = layer(y)
        else:
            memory, y = ScannedRNN(cell=self.cell)(memory, (y, resets))
        small = nn.initializers.orthogonal(0.01)
        logits = nn.Dense(self.actions, kernel_init=small)(layer(y))
        return memory, logits, nn.Dense(1)(layer(y))[..., 0]

    def zeros(self, batch: int) -> Any:
        """The memory at the start of an episode."""
        if self.cell is None:
            return ()
        zeros = ScannedRNN.initialize_carry(batch, self.hidden, self.cell)
        return jax.tree.map(lambda a: a.astype(float), zeros)


def run(
    policy: Policy, weights: Any, memory: Any, x: Array, resets: Array
) -> tuple[Any, Array, Array]:
    """A call of the policy with these weights."""
    found: Any = policy.apply(weights, memory, x, resets)
    return found


def make(settings: Settings, actions: int) -> Policy:
    if settings.network == "mlp":
        return Policy(actions, settings.hidden, None)
    cell = CELLS[settings.network]
    if settings.span is not None:
        init = partial(open_gates, cell.init, settings.network, settings.span)
        cell = cell._replace(init=init)
    return Policy(actions, settings.hidden, cell)


def open_gates(
    init: Any, network: str, span: int, key: Array, D: int, H: int, **dtype: Any
) -> Any:
    """Weights of gates that keep for 1 to `span` - 1 steps (Tallec, Ollivier, 2018)."""
    of_weights, of_gates = jax.random.split(key)
    weights = init(of_weights, D, H, **dtype)
    steps = jax.random.uniform(of_gates, (H,), minval=1, maxval=span - 1)
    b, zeros = jnp.log(steps), jnp.zeros(H)
    gates = [zeros, b, zeros] if network == "gru" else [-b, b, zeros, zeros]
    return weights._replace(b=jnp.concatenate(gates).astype(weights.b.dtype))
