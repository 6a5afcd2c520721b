"""The cells under test, each with its equations, and random problems for them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests import reference

# float64; chex's own default is rtol=1e-6
assert_close = partial(chex.assert_trees_all_close, rtol=0, atol=1e-12)

# a small batch with an empty sequence, a whole one, and resets at some steps
BATCH, T, D, H = (2, 2), 5, 3, 4
LENGTHS = np.array([[0, 5], [4, 3]])
RESETS = np.random.default_rng(5).random((*BATCH, T)) < 0.3
RESETS[1] = [[True, False, True, True, False], [False, True, False, False, True]]
EVERYTHING = {"lengths": LENGTHS, "resets": RESETS, "reverse": True}


class Cell(NamedTuple):
    sequence: Callable
    step: Callable
    init: Callable
    zeros: Callable
    reference: Callable  # of one sequence, in NumPy
    params: type
    gates: int


RNN = Cell(
    jaxseq.rnn,
    jaxseq.rnn_step,
    jaxseq.rnn_init,
    jaxseq.rnn_zeros,
    reference.rnn,
    jaxseq.RNNParams,
    1,
)
CELLS = {
    "rnn": RNN,
    "rnn_relu": RNN._replace(
        sequence=partial(jaxseq.rnn, activation=jax.nn.relu),
        step=partial(jaxseq.rnn_step, activation=jax.nn.relu),
        reference=partial(reference.rnn, activation=reference.relu),
    ),
    "lstm": Cell(
        jaxseq.lstm,
        jaxseq.lstm_step,
        jaxseq.lstm_init,
        jaxseq.lstm_zeros,
        reference.lstm,
        jaxseq.LSTMParams,
        4,
    ),
    "gru": Cell(
        jaxseq.gru,
        jaxseq.gru_step,
        jaxseq.gru_init,
        jaxseq.gru_zeros,
        reference.gru,
        jaxseq.GRUParams,
        3,
    ),
}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
both_directions = pytest.mark.parametrize("reverse", [False, True])

compiled = partial(
    jax.jit, static_argnames=("cell", "reverse", "implementation", "remat")
)


@compiled
def run(cell: Cell, params: Any, x: Any, state: Any = None, **options: Any) -> Any:
    """`cell.sequence`, compiled once for all tests of a shape and options."""
    return cell.sequence(params, x, state, **options)


@compiled
def run_and_gradients(
    cell: Cell, params: Any, x: Any, state: Any = None, **options: Any
) -> tuple[Any, Any]:
    """What `cell.sequence` returns under `jax.grad`, and the gradients.

    They are those of `weighted_sum` by `(params, x, state)`.
    """

    def loss(problem):
        outputs = cell.sequence(*problem, **options)
        return weighted_sum(outputs), outputs

    gradients, outputs = jax.grad(loss, has_aux=True)((params, x, state))
    return outputs, gradients


def random_params(cell: Cell, rng: np.random.Generator, D: int, H: int) -> Any:
    """Weights in which nothing is zero or equal, as NumPy arrays; no second bias."""
    Z = cell.gates * H
    shapes = {"w_x": (D, Z), "w_h": (H, Z), "b": (Z,), "b_hn": (H,)}
    names = [n for n in cell.params._fields if n not in cell.params._field_defaults]
    weights = (rng.standard_normal(shapes[name]) for name in names)
    # small enough for relu not to grow without bound
    return cell.params(*(w / np.sqrt(len(w)) if w.ndim == 2 else w for w in weights))


def random_state(cell: Cell, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    if cell.params is jaxseq.LSTMParams:
        h, c = rng.uniform(-1, 1, (2, *shape))
        return jaxseq.LSTMState(h, c)
    return rng.uniform(-1, 1, shape)


def random_problem(
    cell: Cell, *, batch: tuple[int, ...] = (), T: int, D: int, H: int, seed: int = 0
) -> tuple[Any, Any, Any]:
    """Returns `(params, x, state)` as NumPy arrays."""
    rng = np.random.default_rng(seed)
    params = random_params(cell, rng, D, H)
    x = rng.standard_normal((*batch, T, D))
    return params, x, random_state(cell, rng, (*batch, H))


def expected(
    cell: Any,
    params: Any,
    x: Any,
    state: Any,
    *,
    lengths: np.ndarray | None = None,
    resets: np.ndarray | None = None,
    start: Any = None,
    reverse: bool = False,
) -> tuple[Any, np.ndarray]:
    """What `cell.sequence` must return, one sequence of the batch after the other."""
    *batch, T, _ = jax.tree.leaves(x)[0].shape
    H = jax.tree.leaves(state)[0].shape[-1]
    y = np.zeros((*batch, T, H))
    end = jax.tree.map(np.array, state)
    for i in np.ndindex(*batch):
        end_i, y[i] = reference.sequence(
            cell.reference,
            params,
            row(state, i),
            steps_of(x, i),
            None if lengths is None else lengths[i],
            None if resets is None else resets[i],
            reverse,
            None if start is None else row(start, i),
        )
        for whole, part in zip(
            jax.tree.leaves(end), jax.tree.leaves(end_i), strict=True
        ):
            whole[i] = part
    return end, y


def row(state: Any, i: tuple[int, ...]) -> Any:
    return tuple(s[i] for s in state) if isinstance(state, tuple) else state[i]


def steps_of(x: Any, i: tuple[int, ...]) -> Any:
    """Sequence `i` of the batch; of a tuple of arrays, a list of tuples."""
    return list(zip(*(a[i] for a in x), strict=True)) if isinstance(x, tuple) else x[i]


def weighted_sum(tree: Any, seed: int = 1) -> Any:
    """A scalar that depends on every value of a result, each with its own weight."""
    rng = np.random.default_rng(seed)
    return sum(
        (leaf * rng.standard_normal(leaf.shape)).sum() for leaf in jax.tree.leaves(tree)
    )


def assert_slopes(cell: Any, problem: Any, gradients: Any, **options: Any) -> None:
    """Compares gradients of `weighted_sum` with differences of the equations."""
    leaves, structure = jax.tree.flatten(problem)
    rng = np.random.default_rng(3)
    for k, grad in enumerate(jax.tree.leaves(gradients)):
        direction = rng.standard_normal(grad.shape)

        def along(step, k=k, direction=direction):
            moved = [*leaves[:k], leaves[k] + step * direction, *leaves[k + 1 :]]
            problem = structure.unflatten(moved)
            return weighted_sum(expected(cell, *problem, **options))

        eps = 1e-4  # fourth order: the error is about eps^4 and 1e-16 / eps
        numerical = (
            8 * (along(eps) - along(-eps)) - (along(2 * eps) - along(-2 * eps))
        ) / (12 * eps)
        np.testing.assert_allclose((grad * direction).sum(), numerical, atol=1e-9)


def assert_equations(cell: Any, problem: Any, **options: Any) -> None:
    """Compares values with the equations, and gradients with their differences."""
    outputs, gradients = run_and_gradients(cell, *problem, **options)
    masks = {k: v for k, v in options.items() if k in EVERYTHING}
    assert_close(outputs, expected(cell, *problem, **masks))
    assert_slopes(cell, problem, gradients, **masks)


def assert_step(cell: Any, params: Any, x: Any, state: Any) -> None:
    """Compares one step with the equations, of `x` `(..., 1, D)`."""
    x_1 = jax.tree.map(lambda a: a[..., 0, :], x)
    end, y = jax.jit(cell.step)(params, state, x_1)
    assert_close((end, y[..., None, :]), expected(cell, params, x, state))


def to_jax(tree: Any, dtype: Any = jnp.float64) -> Any:
    # converted by NumPy, which compiles nothing
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a, dtype)), tree)
