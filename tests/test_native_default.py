"""What runs on a CPU where nothing is asked for, and what is said about it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._kernels.cpu import build
from tests.native.python import python

PARAMS = jaxseq.lstm_init(jax.random.key(0), 3, 4, dtype=jnp.float64)


def x(B, T):
    return jnp.asarray(np.random.default_rng(0).standard_normal((B, T, 3)))


def gradient(params, x, **options):
    return jax.grad(lambda p: jaxseq.lstm(p, x, **options)[1].sum())(params)


def is_native(f, *args, **options):
    """Whether a program has runs over time by the engine."""
    return build.TARGET in jax.jit(partial(f, **options)).lower(*args).as_text()


def test_by_default(native_library, monkeypatch):
    assert is_native(jaxseq.lstm, PARAMS, x(2, 5))
    assert is_native(gradient, PARAMS, x(2, 5))
    assert not is_native(jaxseq.lstm, PARAMS, x(2, 5), implementation="loop")
    monkeypatch.setenv(build.SWITCH, "0")
    assert not is_native(jaxseq.lstm, PARAMS, x(2, 5))
    assert not is_native(gradient, PARAMS, x(2, 5))


def test_a_single_step(native_library):
    """Without a gradient, for few rows and wide matrices, or if it is asked for."""
    params = jaxseq.lstm_init(jax.random.key(0), 3, 64, dtype=jnp.float64)
    native = {"implementation": "native"}
    assert is_native(jaxseq.lstm, params, x(32, 1))
    assert not is_native(jaxseq.lstm, params, x(33, 1))
    assert is_native(jaxseq.lstm, params, x(33, 1), **native)
    assert is_native(jaxseq.lstm, params, x(33, 2))
    assert is_native(jaxseq.lstm, params, x(4, 1))
    assert not is_native(jaxseq.lstm, params, x(3, 1))
    assert is_native(jaxseq.lstm, params, x(3, 1), **native)
    assert is_native(jaxseq.lstm, params, x(3, 2))
    assert not is_native(gradient, params, x(20, 1))
    assert is_native(gradient, params, x(20, 1), **native)
    # time first, under vmap
    mapped = jax.vmap(partial(jaxseq.lstm, params), 1)
    assert is_native(mapped, x(1, 33)[0][:, None])
    assert not is_native(mapped, jnp.swapaxes(x(33, 1), 0, 1))


def test_an_exported_program_runs_without_it(native_library):
    run = jax.jit(jaxseq.lstm)
    exported = jax.export.export(run)(PARAMS, x(2, 5))
    of_gradient = jax.export.export(jax.jit(gradient))(PARAMS, x(2, 5))
    for each in exported, of_gradient:
        assert "jaxseq_native" not in each.mlir_module()
    got, want = exported.call(PARAMS, x(2, 5)), run(PARAMS, x(2, 5))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-12), got, want)
    assert is_native(jaxseq.lstm, PARAMS, x(2, 5))
    asked = jax.jit(partial(jaxseq.lstm, implementation="native"))
    with pytest.raises(ValueError, match=r"implementation: .*got an exported program"):
        jax.export.export(asked)(PARAMS, x(2, 5))


def test_first_use_in_several_threads(native_library, monkeypatch):
    """Each looks for the library and registers it."""
    look = build.limit.__wrapped__
    monkeypatch.setattr(build, "limit", look)
    with ThreadPoolExecutor(6) as pool:
        assert [*pool.map(lambda _: look(), range(6))] == [None] * 6
    assert is_native(jaxseq.lstm, PARAMS, x(2, 6))


CODE = """
import jax, jax.numpy as jnp, jaxseq
params = jaxseq.lstm_init(jax.random.key(0), 3, 4)
print(jaxseq.lstm(params, jnp.ones((2, 5, 3)))[1].shape)
"""


def of_a_user(folder, **own):
    """What a new process with these variables prints, and what it says."""
    away = build.CACHE, "XDG_CACHE_HOME", "CXX", build.SWITCH
    kept = {k: v for k, v in os.environ.items() if k not in away}
    kept |= {"HOME": str(folder), "JAX_PLATFORMS": "cpu", **own}
    command = [sys.executable, "-W", "error", "-c", CODE]
    ran = subprocess.run(command, env=kept, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "(2, 5, 4)\n"
    return ran.stderr


def test_nothing_is_said_where_there_is_no_compiler(tmp_path):
    nobody = tmp_path / "bin"
    nobody.mkdir()
    assert of_a_user(tmp_path, CXX="g++-of-nobody") == ""
    assert [*tmp_path.iterdir()] == [nobody]


@pytest.mark.every(2)
@pytest.mark.parametrize("home", ["file/home", "/proc/nobody"])
def test_nothing_is_said_where_no_folder_can_be_written(home, tmp_path):
    (tmp_path / "file").touch()
    script = tmp_path / "cxx"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    assert of_a_user(tmp_path / home, CXX=str(script)) == ""


def test_a_scan_runs_as_it_is(native_library, monkeypatch):
    """Rows in halves, or all maps in the loop, are faster without the engine alone."""
    w = jnp.ones((128, 512)) / 512

    def body(s, x):
        h, c = s
        i, f, g, o = jnp.split(jnp.tanh(x) @ w + h @ w, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    for rows in (32, 256):
        state, xs = (jnp.ones((rows, 128)),) * 2, jnp.ones((3, rows, 128))
        run = partial(jaxseq.scan, body)
        with monkeypatch.context() as patch:
            assert is_native(run, state, xs)
            patch.setenv(build.SWITCH, "0")
            assert not is_native(run, state, xs)
            assert "without a gradient" in jaxseq.explain(body, state, xs)
        assert "without a gradient" not in jaxseq.explain(body, state, xs)


def test_tracing_starts_no_platform():
    """So that JAX can be told of devices, and of other processes, after it."""
    code = """
import jax, jax.numpy as jnp, jaxseq
from jax import ShapeDtypeStruct as Shape
body = lambda h, x: (h := jnp.tanh(x + h @ jnp.ones((128, 128))), h)
run = lambda h, x: jaxseq.scan(body, h, x)
jax.eval_shape(run, Shape((32, 128), float), Shape((5, 32, 128), float))
jax.config.update("jax_num_cpu_devices", 3)
print(jax.device_count())
"""
    assert python("-c", code, JAX_PLATFORMS="cpu").stdout == "3\n"
