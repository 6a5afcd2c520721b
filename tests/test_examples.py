"""The cells of `examples` against their published equations, in float64."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxseq
import jaxseq.nn
from examples.cells.cifg_lstm import CIFG_LSTM
from examples.cells.gru_d import GRU_D
from examples.cells.indrnn import INDRNN
from examples.cells.layer_norm_lstm import LAYER_NORM_LSTM
from examples.cells.mgu import MGU
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU
from examples.cells.slstm import SLSTM
from examples.cells.sru import SRU
from examples.cells.zoneout_lstm import ZONEOUT_LSTM
from tests import reference_cells
from tests.cells import (
    BATCH,
    EVERYTHING,
    LENGTHS,
    RESETS,
    D,
    H,
    T,
    assert_close,
    assert_equations,
    assert_step,
    expected,
    run,
    run_and_gradients,
    weighted_sum,
)
from tests.models import assert_second_derivatives, drawn

EXAMPLES = Path(__file__).parent.parent / "examples"
OPTIONS = {
    "plain": {},
    "everything": EVERYTHING,
    "scan": {"implementation": "scan", **EVERYTHING},
    "remat": {"remat": 2, **EVERYTHING},
}


class Example(NamedTuple):
    sequence: Callable
    step: Callable
    init: Callable  # (key, D, H)
    zeros: Callable
    reference: Callable  # of one sequence, in NumPy
    inputs: Callable  # (rng, shape) -> x
    D: int


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal((*shape, D))


def masked(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Values, which of them are observed, and how long ago they were."""
    m = rng.integers(0, 2, (*shape, D)).astype(float)
    return rng.standard_normal(m.shape), m, rng.uniform(0, 2, m.shape)


def wide(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal((*shape, H))


def dropped(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    d_c, d_h = rng.uniform(0, 1, (2, *shape, H))
    return rng.standard_normal((*shape, D)), np.round(d_c), d_h


def example(
    cell: jaxseq.Cell,
    equations: Callable,
    *,
    inputs: Callable = normal,
    D: int = D,
    **options: Any,
) -> Example:
    return Example(
        partial(jaxseq.cell, cell.update),
        partial(jaxseq.cell_step, cell.update),
        partial(cell.init, **options),
        cell.zeros,
        reference_cells.over_time(equations),
        inputs,
        D,
    )


CELLS = {
    "cifg_lstm": example(CIFG_LSTM, reference_cells.cifg_lstm),
    "gru_d": example(GRU_D, reference_cells.gru_d, inputs=masked),
    "indrnn": example(INDRNN, reference_cells.indrnn),
    "layer_norm_lstm": example(LAYER_NORM_LSTM, reference_cells.layer_norm_lstm),
    "mgu": example(MGU, reference_cells.mgu),
    "multiplicative_lstm": example(
        MULTIPLICATIVE_LSTM, reference_cells.multiplicative_lstm
    ),
    "peephole_lstm": example(PEEPHOLE_LSTM, reference_cells.peephole_lstm),
    "projected_lstm": example(PROJECTED_LSTM, reference_cells.projected_lstm, n_c=5),
    "reset_before_gru": example(RESET_BEFORE_GRU, reference_cells.reset_before_gru),
    "slstm": example(SLSTM, reference_cells.slstm, N=2),
    "sru": example(SRU, reference_cells.sru, inputs=wide, D=H),
    "zoneout_lstm": example(ZONEOUT_LSTM, reference_cells.zoneout_lstm, inputs=dropped),
}
every_example = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())


def random_problem(cell: Example, shape: tuple[int, ...] = (*BATCH, T)) -> Any:
    """`(params, x, state)` as NumPy arrays, the state positive as a normalizer is."""
    rng = np.random.default_rng(7)
    init = lambda key: cell.init(key, cell.D, H, dtype=jnp.float64)
    params = drawn(init, seed=0)
    zeros = jax.eval_shape(lambda: cell.zeros(params, shape[:-1]))
    state = jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape), zeros)
    return params, cell.inputs(rng, shape), state


@pytest.mark.every(7)
@every_example
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_matches_equations_and_gradients_their_finite_differences(cell, options):
    assert_equations(cell, random_problem(cell), **options)


@every_example
def test_without_gradients(cell):
    problem = random_problem(cell)
    got = run(cell, *problem, **EVERYTHING)
    assert_close(got, expected(cell, *problem, **EVERYTHING))


@every_example
def test_one_step(cell):
    assert_step(cell, *random_problem(cell, (3, 1)))


# a chain of products; weights in `extra`; no input map; heads; no recurrent product
@pytest.mark.every(5)
@pytest.mark.parametrize(
    "name", ["reset_before_gru", "peephole_lstm", "gru_d", "slstm", "sru"]
)
def test_second_derivatives(name):
    cell = CELLS[name]
    params, x, state = random_problem(cell, (2, 2))
    loss = lambda *problem: weighted_sum(cell.sequence(*problem))
    assert_second_derivatives(loss, (params, x, state))


@pytest.mark.every(2)
@every_example
def test_padding_reaches_neither_outputs_nor_gradients(cell):
    params, x, state = random_problem(cell)
    padding = (np.arange(T) >= LENGTHS[..., None])[..., None]
    state = jax.tree.map(np.zeros_like, state)

    def with_junk(junk):
        filled = jax.tree.map(lambda a: np.where(padding, junk, a), x)
        return run_and_gradients(cell, params, filled, state, **EVERYTHING)

    chex.assert_trees_all_equal(with_junk(np.nan), with_junk(0.0))


@every_example
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_initial_weights_and_zeros(cell, dtype):
    """Traced only: the shapes and dtypes are what is asked here."""
    _, x, state = random_problem(cell)

    def all_of_it(key, x):
        params = cell.init(key, cell.D, H, dtype=dtype)
        zeros = cell.zeros(params, BATCH)
        return params, zeros, cell.sequence(params, x, zeros)

    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype), x)
    params, zeros, (end, y) = jax.eval_shape(all_of_it, jax.random.key(0), x)
    assert {w.dtype for w in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    shapes = lambda tree: jax.tree.map(lambda a: a.shape, tree)
    assert shapes(zeros) == shapes(end) == shapes(state)
    assert {s.dtype for s in jax.tree.leaves((zeros, end))} == {jnp.dtype("float32")}
    assert (y.shape, y.dtype) == ((*BATCH, T, H), dtype)


@every_example
def test_no_two_initial_weights_are_one_array(cell):
    """A buffer can be donated once, as an update of training does."""
    weights = jax.tree.leaves(cell.init(jax.random.key(0), cell.D, H))
    assert len({id(w) for w in weights}) == len(weights)


def test_each_file_is_tested():
    files = {path.stem for path in (EXAMPLES / "cells").glob("*.py")} - {"__init__"}
    assert files == set(CELLS)


def test_the_width_of_a_highway_is_checked():
    with pytest.raises(ValueError, match="H must be 3, the width of the highway"):
        SRU.init(jax.random.key(0), 3, 4)


def test_readme_runs_and_names_each_cell():
    readme = (EXAMPLES / "README.md").read_text()
    assert set(re.findall(r"\]\(cells/(\w+)\.py\)", readme)) == set(CELLS)
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    with jax.enable_x64(False):  # as a user has it
        exec(block, names)
    assert names["y"].shape == (5, 20, 8)


@pytest.mark.parametrize("cell", [PEEPHOLE_LSTM, PROJECTED_LSTM, RESET_BEFORE_GRU])
def test_a_module_is_the_layers_of_the_function(cell):
    module = jaxseq.nn.Cell(
        cell, D, H, num_layers=2, bidirectional=True, param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    rng = np.random.default_rng(3)
    x, mask = rng.standard_normal((*BATCH, T, D)), rng.random((*BATCH, T)) < 0.7
    options = {"mask": mask, "resets": RESETS}

    def layer(weights: Any, x: Any, reverse: bool) -> Any:
        zeros = cell.zeros(weights, BATCH)
        rows = {"reverse": reverse, **options}
        return jaxseq.cell(cell.update, weights, x, zeros, **rows)

    @nnx.jit
    def both(module, x):
        ends, want = [], x
        for pair in module.params:
            end, ys = zip(*(layer(pair[d], want, d == 1) for d in (0, 1)), strict=True)
            ends.append(end)
            want = jnp.concatenate(ys, -1)
        return module(x, **options), (tuple(ends), want)

    got, want = both(module, x)
    assert_close(got, want)
    leaves = jax.tree.leaves(nnx.state(module, nnx.Param))
    expected_leaves = jax.tree.leaves(module.params[0][0])
    assert len(leaves) == 4 * len(expected_leaves)


def test_a_start_reaches_each_layer_of_a_module():
    module = jaxseq.nn.LSTM(
        D, H, num_layers=2, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    rng = np.random.default_rng(4)
    x = rng.standard_normal((*BATCH, T, D))
    start = tuple(jaxseq.LSTMState(*rng.standard_normal((2, H))) for _ in range(2))
    first = np.zeros((*BATCH, T), bool)
    first[..., 2] = True

    @nnx.jit
    def both(module, x, start):
        whole = module(x, resets=first, start=start)
        return (
            whole,
            module(x[..., :2, :], start=start),
            module(x[..., 2:, :], start=start),
        )

    (end, y), (_, y_1), (end_2, y_2) = both(module, x, start)
    assert_close((end, y), (end_2, jnp.concatenate([y_1, y_2], -2)))


@pytest.mark.parametrize("attention", [None, "bahdanau", "luong"])
def test_an_encoder_decoder_of_ones_own_cells(attention):
    """Greedy decoding, step by step, is the run over what it wrote."""
    cell = PROJECTED_LSTM
    params = jaxseq.seq2seq_init(
        jax.random.key(0), source_vocab=7, target_vocab=6, embed_features=5,
        hidden_features=H, cell=cell, num_layers=2, attention=attention,
        feed=attention == "luong", dtype=jnp.float64,
    )  # fmt: skip
    source = np.random.default_rng(5).integers(0, 7, (3, T))

    @jax.jit
    def written(params):
        state = jaxseq.seq2seq_encode(
            params, source, cell=cell, source_lengths=np.array([5, 2, 1])
        )
        step = partial(jaxseq.seq2seq_decode_step, params, cell=cell)
        found = jaxseq.greedy(step, state, jnp.zeros(3, int), max_length=4, end=None)
        inputs = jnp.concatenate(
            [jnp.zeros((3, 1), jnp.int32), found.tokens[:, :-1]], 1
        )
        _, logits, _ = jaxseq.seq2seq_decode(params, state, inputs, cell=cell)
        return found, logits

    found, logits = written(params)
    np.testing.assert_array_equal(found.tokens, logits.argmax(-1))
    scores = jax.nn.log_softmax(logits).max(-1).sum(-1)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^cell: expected the Cell of weights"):
        jaxseq.seq2seq_encode(params, source)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_a_module_of_a_built_in_cell(name):
    """It is the module of that name."""
    make = lambda kind, *cell: kind(*cell, D, H, rngs=nnx.Rngs(0))
    one = make(jaxseq.nn.Cell, getattr(jaxseq, name))
    other = make(getattr(jaxseq.nn, name))
    x = jax.random.normal(jax.random.key(0), (2, T, D), jnp.float32)
    np.testing.assert_array_equal(one(x)[1], other(x)[1])


def test_a_module_with_weights_and_inputs_that_are_no_floats():
    def update(z_x, h, w_h, extra):
        on, z = z_x
        return jnp.where(on, jnp.tanh(z + w_h(h))[extra["order"]], h)

    def init(key, D, H, *, dtype):
        order = jnp.arange(H)[::-1]
        params = jaxseq.cell_init(
            key, D, H, (H, H), extra={"order": order}, dtype=dtype
        )
        return params._replace(w_x=(None, params.w_x), b=(None, params.b))

    zeros = lambda params, batch=(): jaxseq.cell_zeros(H, batch, dtype=params.w_h.dtype)
    cell = jaxseq.Cell(update, init, zeros)
    module = jaxseq.nn.Cell(cell, D, H, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, T, D), jnp.float32)
    on = jax.random.bernoulli(jax.random.key(1), 0.5, (2, T, 1))
    loss = lambda module: module((on, x))[1].sum()
    gradients = jax.tree.leaves(nnx.grad(loss)(module))
    assert len(gradients) == 3 and all(jnp.abs(g).max() > 0 for g in gradients)
