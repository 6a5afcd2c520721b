"""What users meet at the edges of the native CPU engine."""

import ctypes
import fcntl
import logging
import shutil
from functools import partial
from pathlib import Path
from threading import Thread

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxseq
from jaxseq._kernels.cpu import build, compilers

B, T, D, H = 3, 5, 4, 6
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, D)))


@pytest.fixture
def said(caplog):
    """What the logger says which code runs, since it was asked last."""
    caplog.set_level(logging.DEBUG, "jaxseq")

    def lines():
        found = [r.getMessage() for r in caplog.records if r.levelname == "DEBUG"]
        caplog.clear()
        return found

    return lines


def test_the_log_says_what_runs(native_library, said, monkeypatch):
    params = jaxseq.lstm_init(jax.random.key(0), D, H, dtype=jnp.float64)
    run = lambda params, x: jaxseq.lstm(params, x)[1].sum()
    jax.jit(run).lower(params, X)
    by = "{} of LSTMUpdate: by the native CPU engine"
    assert said() == [by.format("forward")]
    jax.jit(jax.grad(run)).lower(params, X)
    assert said() == [by.format("forward"), by.format("backward")]
    monkeypatch.setenv(build.SWITCH, "0")
    jax.jit(lambda params: run(params, X)).lower(params)
    (line,) = said()
    assert line.endswith("not by the native CPU engine: JAXSEQ_NATIVE is 0")


def test_the_log_says_why_not(native_library, said):
    def ranked(z_x, h, w_h, _):
        return jnp.sort(jnp.tanh(z_x + w_h(h)))

    params = jaxseq.cell_init(jax.random.key(0), D, H, (H, H), dtype=jnp.float64)
    run = lambda update, x: jaxseq.cell(update, params, x, zeros=H)[1].sum()
    jax.jit(jax.grad(partial(run, ranked))).lower(X)
    forward, backward = said()
    assert (
        forward
        == "forward of ranked: not by the native CPU engine: the kernel has no sort"
    )
    assert backward.startswith("backward of ranked: not by the native CPU engine: ")
    jaxseq.scan(lambda h, x: (0.5 * h + x, h), X[0], X)
    text = "body: by lax.scan: no product with a fixed matrix reads the state"
    assert text in said()


@pytest.mark.parametrize("implementation", [None, "loop", "scan"])
def test_ranks_are_not_promoted(implementation):
    """An option of JAX, under which no axis is added by itself."""
    params = jaxseq.gru_init(jax.random.key(0), D, H, dtype=jnp.float64)
    given: dict = {"lengths": jnp.full(B, T - 1), "resets": jnp.zeros((B, T), bool)}

    def run(params, **options):
        options["implementation"] = implementation
        return jaxseq.gru(params, X, **options)[1].sum()

    with jax.numpy_rank_promotion("raise"):
        for options in {}, given, {"remat": 2}:
            jax.jit(jax.value_and_grad(partial(run, **options))).lower(params)
        jax.jit(run).lower(params)


@pytest.mark.parametrize("implementation", [None, "loop", "scan"])
def test_a_mesh_that_is_not_set(implementation):
    """Arrays lie on an explicit mesh, as `jax.make_mesh` makes it, and no more."""
    mesh = jax.make_mesh((2,), ("a",), axis_types=(AxisType.Explicit,))
    params = jaxseq.gru_init(jax.random.key(0), D, H, dtype=jnp.float64)

    def loss(params, x):
        y = jaxseq.gru(params, x, implementation=implementation)[1]
        return jnp.sum(y**2), y

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    whole, rows = (NamedSharding(mesh, PartitionSpec(*a)) for a in ((), ("a",)))
    got = run(jax.device_put(params, whole), jax.device_put(X[:2], rows))
    assert got[0][1].sharding.is_equivalent_to(rows, 3)
    close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
    jax.tree.map(close, got, run(params, X[:2]))


def test_an_executable_names_its_library(monkeypatch, tmp_path):
    """So that programs in other instructions are refused, not run."""
    own = lambda: build._hash(build._sources())[:8]
    names = build.TARGET, build.GRADIENTS, build.MEMBERS
    assert all(name.endswith(f"_{own()}") for name in names)
    other = shutil.copytree(compilers.SOURCES, tmp_path / "src")
    ops = other / "ops.h"
    ops.write_text(ops.read_text() + "\n")
    monkeypatch.setattr(compilers, "SOURCES", other)
    assert not build.TARGET.endswith(own())


@pytest.mark.parametrize("word", ["0", "false", "False", "no", "OFF"])
def test_words_that_turn_it_off(word, monkeypatch):
    monkeypatch.setenv(build.SWITCH, word)
    assert not jaxseq.native_available()
    assert build.why_not() == "JAXSEQ_NATIVE is 0"


def test_a_folder_in_the_home_folder(monkeypatch, tmp_path):
    """Where no shell has put the home folder in the place of `~`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(build.CACHE, "~/built")
    assert build.cached().parent == tmp_path / "built"
    monkeypatch.delenv(build.CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", "~/all")
    assert build.cached().parent == tmp_path / "all" / "jaxseq"


def test_who_waits_for_a_build_says_so(tmp_path, caplog):
    path, done = tmp_path / "lock", []

    def wait():
        with build._locked(path):
            done.append(True)

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = Thread(target=wait)
        thread.start()
        while not caplog.records:
            thread.join(0.01)
            assert thread.is_alive()
        assert not done
    thread.join()
    assert done
    assert "another process builds its native CPU engine" in caplog.text


def test_a_failure_ends_what_other_compilers_have_started(monkeypatch, tmp_path):
    """A driver such as g++ starts the compiler itself as a process of its own."""
    script = tmp_path / "cxx"
    script.write_text("""#!/bin/sh
cd "$(dirname "$0")"
case "$*" in
  *module.cc*) until [ -e started ]; do sleep 0.05; done; exit 3;;
esac
(touch started; sleep 5; touch survived)
exit 0
""")
    script.chmod(0o755)
    monkeypatch.setattr(build, "PACKAGED", tmp_path / "none.so")
    monkeypatch.setenv(build.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(OSError, match=r"failed \(3\)"):
        build.built(build.cached())
    assert (tmp_path / "started").exists() and not (tmp_path / "survived").exists()


def test_a_folder_from_which_nothing_may_run(monkeypatch):
    def refused(path):
        raise OSError(f"{path}: failed to map segment from shared object")

    monkeypatch.setattr(build, "damage", lambda path: None)
    monkeypatch.setattr(ctypes, "CDLL", refused)
    said = build._registered(Path("native.so"))
    assert said is not None and said.endswith(
        "set JAXSEQ_CACHE to a folder from which programs may run"
    )
