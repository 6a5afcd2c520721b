"""The training of `ppo` with a module over rollouts: a copied one, and that of jaxseq.

PureJaxRL, JaxMARL, XLand-MiniGrid and Craftax_Baselines each have a module
`ScannedRNN`: a Linen GRU in `nn.scan`, whose carry is zeroed where an episode has
ended. It is written again here from that description. `jaxseq.linen.ScannedRNN` is
called in the same way. Both have the weights of Flax's cell, so that their trainings
can be compared; those of jaxseq's are put together from them at each call.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxseq
import jaxseq.linen
from benchmarks.real import ppo
from benchmarks.real.training import Sizes, Training


class Copied(nn.Module):
    features: int
    scan: Any
    dtype: Any

    @partial(nn.scan, variable_broadcast="params", split_rngs={"params": False})
    @nn.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        x, ended = inputs
        carry = jnp.where(ended[:, None], jnp.zeros_like(carry), carry)
        kind = {"dtype": self.dtype, "param_dtype": self.dtype}
        return nn.GRUCell(self.features, **kind)(carry, x)


class Ours(nn.Module):
    features: int
    scan: Any
    dtype: Any

    @nn.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        kind = {"dtype": self.dtype, "param_dtype": self.dtype}
        cell = nn.GRUCell(self.features, **kind, parent=None)
        init = lambda key: cell.init(key, carry, inputs[0][0])["params"]
        variables = {"params": {"weights": (gru_of(self.param("GRUCell_0", init)),)}}
        memory = jaxseq.linen.ScannedRNN(self.features, dtype=self.dtype, parent=None)
        return memory.apply(variables, carry, inputs)


def gru_of(cell: Any) -> jaxseq.GRUParams:
    """The weights of Flax's cell side by side."""
    beside = lambda kind, part: jnp.hstack([cell[kind + gate][part] for gate in "rzn"])
    w_x, w_h, b = beside("i", "kernel"), beside("h", "kernel"), beside("i", "bias")
    return jaxseq.GRUParams(w_x, w_h, b, cell["hn"]["bias"])


def training(sizes: Sizes, scan: Any, dtype: Any = jnp.float32) -> Training:
    """With the copied module for `lax.scan`, else jaxseq's from the same weights."""
    copied = ppo.training(sizes, scan, dtype, Copied)
    if scan is jax.lax.scan:
        return copied
    return ppo.training(sizes, scan, dtype, Ours)._replace(state=copied.state)
