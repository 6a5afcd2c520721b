"""The recurrent operators of ONNX, and their activations, as jaxseq names them.

https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxseq
from jaxseq._base.check import check

Function = Callable[..., Any]


class Kind(NamedTuple):
    """One of the operators.

    Fields:
        gates: how many gates.
        ours: of each gate in the order of jaxseq, where ONNX has it.
        theirs: of each gate in the order of ONNX, where jaxseq has it.
        activations: the functions of one direction, if none are given.
    """

    gates: int
    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    activations: tuple[Function, ...]


KINDS = {
    "RNN": Kind(1, (0,), (0,), (jnp.tanh,)),
    "LSTM": Kind(4, (0, 2, 3, 1), (0, 3, 1, 2), (jax.nn.sigmoid, jnp.tanh, jnp.tanh)),
    "GRU": Kind(3, (1, 0, 2), (1, 0, 2), (jax.nn.sigmoid, jnp.tanh)),
}

PLAIN = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}
# by the names of `jaxseq.activation`, how many of α and β each one has
NUMBERS = {
    "affine": 2,
    "elu": 1,
    "hard_sigmoid": 2,
    "leaky_relu": 1,
    "relu": 0,
    "scaled_tanh": 2,
    "sigmoid": 0,
    "softplus": 0,
    "softsign": 0,
    "tanh": 0,
    "thresholded_relu": 1,
}
OURS = {name.replace("_", ""): name for name in NUMBERS}
THEIRS = {name: name.title().replace("_", "") for name in NUMBERS}


def blocks(a: Any, order: tuple[int, ...]) -> Any:
    """The gates of an array, which lie along its first axis, in another order."""
    import numpy as np

    each = np.split(a, len(order))
    return np.concatenate([each[i] for i in order])


def functions(
    names: Sequence[str], alpha: Sequence[float], beta: Sequence[float]
) -> list[Function]:
    """The functions of a node's attributes, those of all directions in one list.

    Each takes the next α and β if it has such.
    """
    left, found = (iter(alpha), iter(beta)), []
    for name in names:
        own = OURS.get(name.lower(), "")
        check(own in NUMBERS, "activations", f"names among {[*THEIRS.values()]}", name)
        taken = [next(numbers, None) for numbers in left[: NUMBERS[own]]]
        numbers = dict(zip(("alpha", "beta"), taken, strict=False))
        found.append(PLAIN.get(own) or jaxseq.activation(own, **numbers))
    return found


def attributes(kind: str, each: Sequence[Any]) -> dict[str, Any]:
    """The attributes that say so, or none if these functions need no saying."""
    default = KINDS[kind].activations
    if tuple(each) == default * (len(each) // len(default)):
        return {}
    own = [_named(f) for f in each]
    found = {"activations": [THEIRS[f.name] for f in own]}
    for k, key in enumerate(("alpha", "beta")):
        numbers = [getattr(f, key) for f in own if NUMBERS[f.name] > k]
        if kind == "RNN" and len(numbers) == 1:  # older runtimes read by place
            numbers *= len(own)
        found |= {f"activation_{key}": numbers} if numbers else {}
    return found


def _named(f: Any) -> jaxseq.Activation:
    if isinstance(f, jaxseq.Activation):
        return f
    known = {
        **PLAIN,
        "elu": jax.nn.elu,
        "leaky_relu": jax.nn.leaky_relu,
        "softplus": jax.nn.softplus,
        "softsign": jax.nn.soft_sign,
    }
    found = [name for name, own in known.items() if own is f]
    expected = "functions that ONNX has, such as those of jaxseq.activation"
    check(bool(found), "network.cell", expected, f)
    return jaxseq.activation(found[0])
