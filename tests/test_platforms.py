"""What is lowered for a platform has the path of that platform, wherever it is done."""

import subprocess
import sys
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._kernels import call
from tests.cells import CELLS, every_cell

B, T, D, H = 4, 9, 3, 128
KERNEL, CALL = "tpu_custom_call", 'inlineable = "false"'


def problem(cell, H=H, dtype=jnp.float32):
    return cell.init(jax.random.key(0), D, H, dtype=dtype), jnp.ones((B, T, D), dtype)


def gradient(cell, **options):
    def loss(params, x):
        _, y = cell.sequence(params, x, **options)
        return y.astype(jnp.float32).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1)))


def count(f, args, *platforms):
    module = jax.export.export(f, platforms=platforms)(*args).mlir_module()
    return module.count(KERNEL), module.count(CALL)


@every_cell
def test_each_platform_gets_its_path(cell):
    args = problem(cell)
    forward = jax.jit(cell.sequence)
    assert count(forward, args, "tpu") == (1, 0)
    assert count(gradient(cell), args, "tpu") == (2, 0)
    kernels, calls = count(gradient(cell), args, "cpu")
    assert kernels == 0 and calls > 0
    assert count(gradient(cell), args, "cuda") == (0, 0)


def test_one_module_for_several_platforms():
    args = problem(CELLS["lstm"])
    kernels, calls = count(gradient(CELLS["lstm"]), args, "cpu", "tpu", "cuda")
    assert kernels == 2 and calls > 0


def test_options_reach_the_kernel():
    options = {
        "lengths": np.array([9, 0, 3, 1]),
        "resets": np.eye(B, T, dtype=bool),
        "reverse": True,
    }
    args = problem(CELLS["gru"], dtype=jnp.bfloat16)
    assert count(gradient(CELLS["gru"], **options), args, "tpu") == (2, 0)
    # a piece runs forward in the forward pass, then forward and back
    assert count(gradient(CELLS["gru"], remat=4), args, "tpu")[0] >= 3


@pytest.mark.parametrize("H, dtype", [(100, "float32"), (128, "float16")])
def test_what_a_kernel_does_not_take_is_run_without(H, dtype):
    cell = CELLS["lstm"]
    args = problem(cell, H, jnp.dtype(dtype))
    assert count(gradient(cell), args, "tpu") == (0, 0)
    named = "not a multiple of 128" if H == 100 else "float16"
    with pytest.raises(ValueError, match=rf"implementation: .*{named}"):
        cell.sequence(*args, implementation="pallas")


def test_pallas_is_for_tpus():
    args = problem(CELLS["lstm"])
    run = partial(jaxseq.lstm, implementation="pallas")
    assert count(jax.jit(run), args, "tpu") == (1, 0)
    with pytest.raises(ValueError, match=r"implementation: .* got 'pallas' on a cpu"):
        run(*args)
    with pytest.raises(ValueError, match=r"implementation: .* got 'pallas' on a cuda"):
        count(jax.jit(run), args, "cuda")


def test_pallas_is_not_imported_where_it_does_not_run():
    """Nor traced: a third of a second of every start, and more for each function."""
    program = """
import sys, jax, jax.numpy as jnp, jaxseq
params = jaxseq.lstm_init(jax.random.key(0), 3, 128)
jax.grad(lambda p: jaxseq.lstm(p, jnp.ones((2, 4, 3)))[1].sum())(params)
assert "jax.experimental.pallas" not in sys.modules
jax.export.export(jax.jit(jaxseq.lstm), platforms=["tpu"])(params, jnp.ones((2, 4, 3)))
assert "jax.experimental.pallas" in sys.modules
"""
    command = [sys.executable, "-c", f"import jax.export{program}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_the_whole_function_on_kernels(name, monkeypatch):
    """The public function and its gradient, the kernels interpreted."""
    monkeypatch.setattr(call, "INTERPRET", True)
    cell = CELLS[name]
    args = problem(cell)
    options = {"lengths": np.array([9, 0, 3, 5]), "resets": np.eye(B, T, dtype=bool)}

    def run(implementation):
        def loss(params, x):
            end, y = cell.sequence(params, x, implementation=implementation, **options)
            return sum(jnp.sum(a**2) for a in jax.tree.leaves((end, y)))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*args)

    got, want = run("pallas"), run("scan")
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
