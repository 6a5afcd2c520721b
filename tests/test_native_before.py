"""The native backward pass reads the state before each step from the outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._engine.types import Before
from jaxseq._kernels.cpu import back
from tests.native.problems import normal, random_weights

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture
def read(monkeypatch):
    """For each native backward pass, which parts of the state it read from outputs."""
    found, real = [], back.backward

    def spy(devices, spec, weights, x, saved, *others):
        found.append([isinstance(a, Before) for a in saved.state])
        return real(devices, spec, weights, x, saved, *others)

    monkeypatch.setattr(back, "backward", spy)
    return found


def gradients(params, x, h, **options):
    def run(params, x, h):
        return jaxseq.gru(params, x, h, **{"implementation": "native", **options})

    out, pull = jax.vjp(run, params, x, h)
    return out, pull(jax.tree.map(jnp.cos, out))


# rows as they lie, and copied; in one block and in several; few rows, in pieces
@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("B", "T", "H"), [(3, 5, 16), (3, 5, 13), (70, 4, 8), (5, 1, 8), (1, 70, 256)]
)
@pytest.mark.parametrize("reverse", [False, True])
def test_it_is_the_same_as_from_an_array(B, T, H, reverse, read):
    params = random_weights(jaxseq.gru_init, 3, H)
    args = params, normal(1, B, T, 3), normal(2, B, H)
    got = jax.jit(lambda *args: gradients(*args, reverse=reverse))(*args)
    assert read == [[True]]
    lengths = jnp.full(B, T)  # all steps are valid, which the program does not know
    want = jax.jit(
        lambda lengths, *args: gradients(*args, reverse=reverse, lengths=lengths)
    )(lengths, *args)
    assert read == [[True], [False]]
    jax.tree.map(np.testing.assert_array_equal, got, want)
    loop = gradients(*args, reverse=reverse, implementation="loop")
    close = lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-12)
    jax.tree.map(close, got, loop)


def test_nothing_of_the_size_of_the_outputs_is_moved(read):
    B, T, H = 4, 20, 32
    params = jaxseq.gru_init(jax.random.key(0), H, H, dtype=jnp.float32)
    ones = lambda *shape: jnp.ones(shape, jnp.float32)
    args = params, ones(B, T, H), ones(B, H)
    text = jax.jit(gradients).lower(*args).compile().as_text() or ""
    assert read == [[True]]
    shapes = [f"f32[{T},{B},{H}]", f"f32[{B},{T},{H}]"]
    moved = [
        line
        for line in text.splitlines()
        for name in ("concatenate", "transpose", "copy", "pad")
        for shape in shapes
        if shape in line and f" {name}(" in line
    ]
    assert shapes[1] in text
    assert not moved


@pytest.mark.parametrize("mapped", ["x, h", "x", "h", "params, x, h"])
def test_rows_of_vmap_and_members(mapped, read):
    params = random_weights(jaxseq.gru_init, 3, 8)
    one = {"params": params, "x": normal(1, 4, 5, 3), "h": normal(2, 4, 8)}
    two = jax.tree.map(lambda a: jnp.stack([a, jnp.cos(a)]), one)
    names = mapped.split(", ")
    args = [(two if name in names else one)[name] for name in one]
    axes = [0 if name in names else None for name in one]
    got = jax.jit(jax.vmap(gradients, axes))(*args)
    assert read
    assert all(map(all, read))
    loop = jax.vmap(lambda *args: gradients(*args, implementation="loop"), axes)
    close = lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-12)
    jax.tree.map(close, got, loop(*args))
