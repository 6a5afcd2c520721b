"""Exported functions run in a process without jaxseq, and give what they give here."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq.convert import Network

PAGE = Path(__file__).parent.parent / "docs" / "serving.md"
ALONE = "import sys; sys.modules.update({'jaxseq': None, 'flax': None})\n"
B, T, D, H = 3, 5, 2, 4
Symbols = {"b": B, "t": T}


def run_alone(code, folder):
    """Runs code in an empty folder, where nothing but JAX and NumPy is to be had."""
    start = f"from pathlib import Path\nfolder = Path({str(folder)!r})\n"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-I", "-c", ALONE + start + code]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )


def mgu(z_x, h, w_h, _):
    x_f, x_n = jnp.split(z_x, 2)
    f = jax.nn.sigmoid(x_f + w_h["f"](h))
    return (1 - f) * h + f * jnp.tanh(x_n + w_h["n"](f * h))


class Case(NamedTuple):
    """A function `(weights, *args)` with arguments whose axes have these names."""

    run: Any
    weights: Any
    axes: tuple[tuple[Any, ...], ...]


def drawn(cell, key=0):
    return cell.init(jax.random.key(key), D, H)


def own():
    return jaxseq.cell_init(jax.random.key(0), D, 2 * H, {"f": (H, H), "n": (H, H)})


def lstm_step(params, h, c, x):
    state, y = jaxseq.lstm_step(params, jaxseq.LSTMState(h, c), x)
    return tuple(state), y


def lstm(params, h, c, x, lengths):
    state, y = jaxseq.lstm(params, x, jaxseq.LSTMState(h, c), lengths=lengths)
    return tuple(state), y


def gru(params, h, x, lengths):
    return jaxseq.gru(params, x, h, lengths=lengths)


def cell(params, h, x, lengths):
    return jaxseq.cell(mgu, params, x, h, lengths=lengths)


def network(network, x, lengths):
    state, y = network(x, lengths=lengths)
    return jax.tree.leaves(state), y


def layers():
    above = [jaxseq.LSTM.init(jax.random.key(k), 2 * H, H) for k in (2, 3)]
    pairs = (drawn(jaxseq.LSTM), drawn(jaxseq.LSTM, 1)), tuple(above)
    return Network(pairs, jaxseq.LSTM)


ROW, STATE, SEQUENCE, LENGTHS = ("b", D), ("b", H), ("b", "t", D), ("b",)
CASES = {
    "lstm_step": Case(lstm_step, drawn(jaxseq.LSTM), (STATE, STATE, ROW)),
    "lstm": Case(lstm, drawn(jaxseq.LSTM), (STATE, STATE, SEQUENCE, LENGTHS)),
    "gru_step": Case(jaxseq.gru_step, drawn(jaxseq.GRU), (STATE, ROW)),
    "gru": Case(gru, drawn(jaxseq.GRU), (STATE, SEQUENCE, LENGTHS)),
    "cell_step": Case(partial(jaxseq.cell_step, mgu), own(), (STATE, ROW)),
    "cell": Case(cell, own(), (STATE, SEQUENCE, LENGTHS)),
    "network": Case(network, layers(), (SEQUENCE, LENGTHS)),
}
NAMES = [f"{name}-{kind}" for name in CASES for kind in ("argument", "constant")]


def prepared(name):
    """The function to export, its arguments, and which axes of them are open."""
    name, kind = name.split("-")
    case, rng = CASES[name], np.random.default_rng(0)
    weights, structure = jax.tree.flatten(case.weights)
    run = lambda weights, *args: case.run(structure.unflatten(weights), *args)
    sizes = [tuple(Symbols.get(n, n) for n in axes) for axes in case.axes]
    args = [
        np.array([T, 0, 2], np.int32)
        if shape == (B,)
        else np.float32(rng.normal(size=shape))
        for shape in sizes
    ]
    if kind == "constant":
        return partial(run, weights), args, list(case.axes)
    return run, [weights, *args], [[w.shape for w in weights], *case.axes]


def export(name):
    run, args, axes = prepared(name)
    symbols = dict(zip("bt", jax.export.symbolic_shape("b, t"), strict=True))

    def symbolic(a, axes):
        shape = tuple(symbols.get(n, n) for n in axes)
        return jax.ShapeDtypeStruct(shape, a.dtype)

    shapes = jax.tree.map(symbolic, args, axes)
    exported = jax.export.export(jax.jit(run))(*shapes)
    return exported.serialize(vjp_order=int(name.endswith("argument")))


READ = """
import jax, jax.export
import numpy as np
for path in folder.glob("*.jax"):
    served = jax.export.deserialize(path.read_bytes())
    with np.load(path.with_suffix(".npz")) as file:
        args = [file[name] for name in file.files]
    positional, _ = jax.tree.unflatten(served.in_tree, args)
    found = jax.tree.leaves(jax.jit(served.call)(*positional))
    if served.has_vjp():
        ones = map(np.ones_like, found)
        found += jax.jit(served.vjp().call)(*args, *ones)
    np.savez(path.with_suffix(".found.npz"), *found)
assert sys.modules["jaxseq"] is None
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What a process without jaxseq makes of each file."""
    folder = tmp_path_factory.mktemp("served")
    with jax.enable_x64(False):
        for name in NAMES:
            (folder / f"{name}.jax").write_bytes(export(name))
            leaves = jax.tree.leaves(prepared(name)[1])
            np.savez(folder / f"{name}.npz", *leaves)
    ran = run_alone(READ, folder)
    assert ran.returncode == 0, ran.stderr

    def read(name):
        with np.load(folder / f"{name}.found.npz") as file:
            return [file[key] for key in file.files]

    return {name: read(name) for name in NAMES}


@pytest.mark.every(3)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_those_of_this_process(served, name):
    run, args, _ = prepared(name)
    with jax.enable_x64(False):
        want, vjp = jax.jit(partial(jax.vjp, run))(*args)
        if name.endswith("argument"):
            want = want, vjp(jax.tree.map(jnp.ones_like, want))
    want = [a for a in jax.tree.leaves(want) if a.dtype == np.float32]
    got = [a for a in served[name] if a.dtype == np.float32]
    assert len(got) == len(want) > 1
    for a, b in zip(got, want, strict=True):
        assert np.abs(a).max() > 0
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def test_named_tuples_are_for_processes_that_have_jaxseq(tmp_path):
    exported = jax.export.export(jax.jit(jaxseq.lstm_zeros))(drawn(jaxseq.LSTM))
    (tmp_path / "zeros.jax").write_bytes(exported.serialize())
    code = (
        "import jax.export\njax.export.deserialize((folder / 'zeros.jax').read_bytes())"
    )
    ran = run_alone(code, tmp_path)
    (message,) = re.findall(r'"(Cannot\s.*?)"', PAGE.read_text(encoding="utf-8"))
    assert ran.returncode == 1 and " ".join(message.split()) in ran.stderr


def test_the_page_runs_in_two_processes():
    """Its blocks to save here, and those to run in a process without jaxseq."""
    text = PAGE.read_text(encoding="utf-8")
    save, run, *more = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    here: dict[str, Any] = {"np": np}
    with jax.enable_x64(False):
        for block in (save, more[0]):
            exec(block, here)
        _, want = here["network"](np.ones((2, 5, 3), np.float32))
    write = "\nnp.save(folder / 'y.npy', y)"
    for block in (run, more[1] + write):
        ran = run_alone(block, here["folder"])
        assert ran.returncode == 0, ran.stderr
    got = np.load(here["folder"] / "y.npy")
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=1e-6)
    assert not got[1, 2:].any()
