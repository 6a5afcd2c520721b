"""Pointwise functions by name, with the two numbers that ONNX gives some of them."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid

from jaxseq._base.check import check_choice
from jaxseq._cells.check import known_number

Function = Callable[[Array, float, float], Array]

# the function of (x, α, β), and what α and β are if they are not given
ACTIVATIONS: dict[str, tuple[Function, float, float]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "elu": (lambda x, a, _: jax.nn.elu(x, a), 1.0, 0.0),
    "hard_sigmoid": (lambda x, a, b: jnp.clip(a * x + b, 0, 1), 0.2, 0.5),
    "leaky_relu": (lambda x, a, _: jax.nn.leaky_relu(x, a), 0.01, 0.0),
    "relu": (lambda x, *_: jax.nn.relu(x), 0.0, 0.0),
    "scaled_tanh": (lambda x, a, b: a * jnp.tanh(b * x), 1.0, 1.0),
    "sigmoid": (lambda x, *_: sigmoid(x), 0.0, 0.0),
    "softplus": (lambda x, *_: jax.nn.softplus(x), 0.0, 0.0),
    "softsign": (lambda x, *_: jax.nn.soft_sign(x), 0.0, 0.0),
    "tanh": (lambda x, *_: jnp.tanh(x), 0.0, 0.0),
    "thresholded_relu": (lambda x, a, _: jnp.where(x > a, x, 0), 1.0, 0.0),
}


@dataclass(frozen=True)
class Activation:
    """A pointwise function; two of the same name and numbers are equal.

    Fields:
        name: one of those that `activation` takes.
        alpha: its first number; without meaning for those that have none.
        beta: its second.
    """

    name: str
    alpha: float
    beta: float

    def __call__(self, x: Array) -> Array:
        function, *_ = ACTIVATIONS[self.name]
        return function(x, self.alpha, self.beta)


def activation(
    name: str, *, alpha: float | None = None, beta: float | None = None
) -> Activation:
    """A pointwise function by its name, for the gates of a cell.

    Args:
        name: "affine" α x + β, "elu" x or α (exp(x) - 1) below 0, "hard_sigmoid"
            α x + β within 0 and 1, "leaky_relu" x or α x below 0, "relu",
            "scaled_tanh" α tanh(β x), "sigmoid", "softplus", "softsign" x / (1 + |x|),
            "tanh", or "thresholded_relu" x above α, else 0.
        alpha: α; where None 1, but 0.2 for "hard_sigmoid" and 0.01 for "leaky_relu".
        beta: β; where None 0, but 0.5 for "hard_sigmoid" and 1 for "scaled_tanh".

    Returns:
        An `Activation`, a function of an array. Two of the same name and numbers are
        equal, so a cell that is made of them again compiles nothing.

    Raises:
        ValueError: if `name` is none of these, or a number is not finite or is traced.

    The functions and their numbers are those of the recurrent operators of ONNX,
    https://onnx.ai/onnx/operators/onnx__LSTM.html.

    Example:
        >>> hard_sigmoid = jaxseq.activation("hard_sigmoid")
        >>> hard_sigmoid(jnp.array([-4.0, 0.0, 1.0])).tolist()
        [0.0, 0.5, 0.699999988079071]
    """
    check_choice(name, "name", tuple(ACTIVATIONS))
    _, a, b = ACTIVATIONS[name]
    finite = lambda n: abs(n) < float("inf")
    number = lambda n, of: known_number(n, of, "a finite number", finite)
    a = a if alpha is None else number(alpha, "alpha")
    b = b if beta is None else number(beta, "beta")
    return Activation(name, a, b)
