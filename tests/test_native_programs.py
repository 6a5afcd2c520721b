"""The native kernels in programs that are exported, kept, or donated to."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import checkpoint_policies as policies
from jax._src.interpreters import mlir

import jaxseq
from jaxseq._kernels.cpu import build
from tests.cells import assert_close
from tests.native.python import python

pytestmark = pytest.mark.usefixtures("native_library")

PARAMS = jaxseq.lstm_init(jax.random.key(0), 3, 8, dtype=jnp.float64)
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6, 3)))
LENGTHS = jnp.asarray([6, 2, 0, 5])


def layer(params, x, name=None):
    return jaxseq.lstm(params, x, lengths=LENGTHS, implementation=name)[1]


def loss(params, x, name=None):
    return jnp.sin(layer(params, x, name)).sum()


def both(params, x, name=None):
    return layer(params, x, name), jax.grad(loss, (0, 1))(params, x, name)


@pytest.fixture(scope="module")
def want():
    return jax.jit(lambda params, x: both(params, x, "scan"))(PARAMS, X)


def is_native(text):
    return build.TARGET in text


@pytest.mark.parametrize("platforms", [("cpu",), ("cpu", "tpu")])
def test_an_export_runs_without_jaxseq(platforms, want):
    exported = jax.export.export(jax.jit(both), platforms=platforms)(PARAMS, X)
    assert not is_native(exported.mlir_module())
    exported = jax.export.deserialize(exported.serialize())
    assert_close(exported.call(PARAMS, X), want)


def test_an_export_of_the_engine_is_refused():
    run = jax.jit(lambda x: layer(PARAMS, x, "native"))
    with pytest.raises(ValueError, match=r"implementation: .*exported"):
        jax.export.export(run)(X)


def test_lowered_for_other_platforms():
    traced = jax.jit(both).trace(PARAMS, X)
    text = lambda *names: traced.lower(lowering_platforms=names).as_text()
    assert is_native(text("cpu")) and is_native(text("cpu", "tpu"))
    assert not is_native(text("tpu")) and not is_native(text("cuda"))


def test_compiled_ahead(want):
    compiled = jax.jit(both).lower(PARAMS, X).compile()
    assert is_native(compiled.as_text())
    assert_close(compiled(PARAMS, X), want)


@pytest.mark.every(3)
@pytest.mark.parametrize(
    "policy",
    [
        None,
        policies.everything_saveable,
        policies.dots_saveable,
        policies.save_only_these_names("y"),
    ],
)
def test_checkpoint(policy, want):
    remat = jax.jit(jax.grad(jax.checkpoint(loss, policy=policy), (0, 1)))
    assert_close(remat(PARAMS, X), want[1])


def test_linearize(want):
    d = jax.tree.map(jnp.cos, (PARAMS, X))
    value, linear = jax.linearize(loss, PARAMS, X)
    parts = jax.tree.map(lambda a, b: (a * b).sum(), want[1], d)
    assert_close(linear(*d), sum(jax.tree.leaves(parts)))
    assert_close(value, jnp.sin(want[0]).sum())
    assert_close(jax.linear_transpose(linear, PARAMS, X)(1.0), want[1])


def test_what_was_saved_is_read_again(want):
    """Though the gradient of z takes the place of z where that is free."""
    y, back = jax.vjp(layer, PARAMS, X)
    for pull in (back, back, jax.jit(back), back):
        assert_close(pull(jnp.cos(y)), want[1])


@pytest.mark.every(2)
@pytest.mark.parametrize("numbers", [(0,), (1,), (0, 1)])
def test_donated_arguments(numbers, want, recwarn):
    given = jax.tree.map(jnp.copy, (PARAMS, X))
    assert_close(jax.jit(both, donate_argnums=numbers)(*given), want)
    for i, part in enumerate(given):
        leaves = jax.tree.leaves(part)
        assert all(a.is_deleted() for a in leaves) == (i in numbers)
    # of weights and inputs that have no gradients there is nothing to write to
    assert not [w for w in recwarn if "donated" not in str(w.message)]


def test_a_donated_state():
    step = lambda state, name=None: jaxseq.lstm(PARAMS, X, state, implementation=name)
    native, scan = jax.jit(step, donate_argnums=0), jax.jit(lambda s: step(s, "scan"))
    state = jax.tree.map(lambda a: a + 0.5, jaxseq.lstm_zeros(PARAMS, 4))
    for _ in range(3):
        expected, old = scan(state), state
        state, y = native(state)
        assert_close((state, y), expected)
        assert all(a.is_deleted() for a in jax.tree.leaves(old))


def test_a_callback_behind(want):
    seen = []

    def run(params, x):
        y = layer(params, x)
        jax.debug.callback(seen.append, y)
        return y

    assert_close(jax.jit(run)(PARAMS, X), want[0])
    jax.effects_barrier()
    assert_close(seen, [want[0]])


def test_without_jit(want):
    with jax.disable_jit():
        assert_close(both(PARAMS, X), want)
    assert_close(both(PARAMS, X), want)


def test_at_compile_time(want, monkeypatch):
    # a program is lowered while another one is, each with a context of its own
    own = getattr(mlir.make_ir_context, "__wrapped__", mlir.make_ir_context)
    monkeypatch.setattr(mlir, "make_ir_context", own)

    def run(x):
        with jax.ensure_compile_time_eval():
            known = both(PARAMS, X)
        return jax.tree.map(lambda a: a + 0 * x.sum(), known)

    assert_close(jax.jit(run)(X), want)
    assert jax.eval_shape(both, PARAMS, X)[0].shape == (4, 6, 8)


def test_in_control_flow(want):
    def run(params, x):
        there = jax.lax.cond(x[0, 0, 0] > 9, jnp.zeros_like, lambda _: layer(params, x),
                             want[0])  # fmt: skip
        again = jax.lax.scan(lambda c, _: (c, layer(params, x)), 0, None, 2)[1]
        return there, again[1]

    assert_close(jax.jit(run)(PARAMS, X), (want[0], want[0]))


def said(code, *args, **more):
    """What code prints, in a process that compiles as those of users do."""
    return python("-c", code, *args, XLA_FLAGS="", **more).stdout.split()


CACHED = """
import jax, jax.numpy as jnp, jaxseq
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
params = jaxseq.gru_init(jax.random.key(0), 3, 8)
x = jnp.ones((2, 3, 3))
hits.clear()
run = jax.jit(lambda params, x: jaxseq.gru(params, x, implementation="native")[1].sum())
print(float(run(params, x)), any(name.endswith("/cache_hits") for name in hits))
"""


def test_the_compilation_cache_of_another_process(tmp_path):
    """What is read from it has the engine, which is there before it is read."""
    more = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "",
    }
    (first, new), (second, old) = (said(CACHED, **more) for _ in range(2))
    assert first == second and (new, old) == ("False", "True")


SERIALIZED = """
import pickle, sys
import jax
from jax.experimental import serialize_executable
with open(sys.argv[1], "rb") as file:
    parts, args = pickle.load(file)
if sys.argv[2] == "loaded":
    import jaxseq
    assert jaxseq.native_available()
try:
    print(serialize_executable.deserialize_and_load(*parts)(*args))
except Exception as error:
    print(error)
"""
WRITTEN = """
import pickle, sys
import jax, numpy as np, jaxseq
from jax.experimental import serialize_executable
params = jaxseq.gru_init(jax.random.key(0), 3, 8)
run = lambda x: jaxseq.gru(params, x, implementation="native")[1].sum()
x = np.ones((2, 3, 3), np.float32)
compiled = jax.jit(run).lower(x).compile()
with open(sys.argv[1], "wb") as file:
    pickle.dump((serialize_executable.serialize(compiled), (x,)), file)
print(compiled(x))
"""


def test_a_serialized_executable_without_the_engine(tmp_path):
    """It is an error of JAX, and no crash; with the engine it runs."""
    written = said(WRITTEN, tmp_path / "run")
    assert said(SERIALIZED, tmp_path / "run", "loaded") == written
    error = said(SERIALIZED, tmp_path / "run", "missing")
    assert "registered" in error and build.TARGET in " ".join(error)
