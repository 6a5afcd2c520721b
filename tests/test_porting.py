"""The code of docs/porting.md runs, and its tables are what the frameworks have."""

import inspect
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxseq
import jaxseq.convert

os.environ.setdefault("KERAS_BACKEND", "jax")

PAGE = (Path(__file__).parent.parent / "docs" / "porting.md").read_text(
    encoding="utf-8"
)
FIRST, *PARTS = re.split(r"^### ", PAGE, flags=re.MULTILINE)
EXAMPLES = {part.partition("\n")[0]: part for part in PARTS}
(START,) = re.findall(r"```python\n(.*?)```", FIRST, re.DOTALL)
D, H = 3, 4


@pytest.fixture(autouse=True)
def as_a_user_has_it():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


# NumPy warns of Keras's variables
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example(name):
    blocks = re.findall(r"```python\n(.*?)```", EXAMPLES[name], re.DOTALL)
    block = "".join(blocks)
    for module in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE):
        pytest.importorskip(module)
    if "onnx_models" in block:
        pytest.importorskip("jax2onnx")
    names = {}
    exec(START + block, names)
    leaves = jax.tree.leaves(names["network"])
    assert names["y"].shape[:2] == (5, 20) and len(leaves) > 2


def test_every_argument_is_in_the_table():
    table = FIRST.partition("first argument | options |")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        names, first, options = (
            re.findall(r"`(\w+)`", x) for x in line.split("|")[1:4]
        )
        found |= {name: [*first, *options] for name in names}
    made = {n for n in jaxseq.convert.__all__ if re.match("(from|to)_", n)}
    assert set(found) == made
    for name, arguments in found.items():
        parameters = inspect.signature(getattr(jaxseq.convert, name)).parameters
        assert list(parameters) == arguments
        kinds = [p.kind for p in parameters.values()]
        kind = inspect.Parameter
        rest = [kind.KEYWORD_ONLY] * len(kinds[1:])
        assert kinds == [kind.POSITIONAL_OR_KEYWORD, *rest]


def test_every_function_is_in_the_table():
    table = FIRST.partition("\n## ")[0]
    named = {*re.findall(r"`((?:from|to)_\w+)`", table)}
    made = {n for n in jaxseq.convert.__all__ if re.match("(from|to)_", n)}
    assert made <= named
    for name in named:
        assert f"jaxseq.convert.{name}(" in PAGE


def rows(kind):
    """The cells of the table of a kind of cell, by framework, without its gates."""
    table = FIRST.partition(f"| {kind} |")[2].partition("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {name: " ".join(cells) for name, *cells in lines}


def said(kind, framework):
    """Names and shapes of a row of a table."""
    found = {}
    for names, sizes in re.findall(
        r"((?:`[\w./]+`(?:, )?)+) \(([^)]*)\)", rows(kind)[framework]
    ):
        text = re.sub(r"(\d)([DH])", r"\1*\2", sizes)
        shape = eval(f"({text},)", {"D": D, "H": H})
        found |= dict.fromkeys(re.findall(r"`([\w./]+)`", names), shape)
    return found


def by_path(tree, leaf=None):
    pairs = jax.tree.leaves_with_path(tree, is_leaf=leaf)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.shape(a)
        for path, a in pairs
    }


def of_jaxseq(kind):
    params = getattr(jaxseq, kind.lower() + "_init")(jax.random.key(0), D, H)
    return {k: a.shape for k, a in params._asdict().items() if a is not None}


def of_torch(kind):
    torch = pytest.importorskip("torch")
    state = getattr(torch.nn, kind)(D, H).state_dict()
    return {name: tuple(a.shape) for name, a in state.items()}


def of_keras(kind):
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, "SimpleRNN" if kind == "RNN" else kind)(H)
    layer.build((2, 5, D))
    return {w.name: tuple(w.shape) for w in layer.weights}


def of_nnx(kind, name=None):
    nnx = pytest.importorskip("flax.nnx")
    name = name or {"RNN": "SimpleCell"}.get(kind, kind + "Cell")
    cell = getattr(nnx, name)(D, H, rngs=nnx.Rngs(0))
    return by_path(nnx.to_pure_dict(nnx.state(cell, nnx.Param)))


def of_linen(kind):
    nn = pytest.importorskip("flax.linen")
    cell = getattr(nn, {"RNN": "SimpleCell"}.get(kind, kind + "Cell"))(H)
    x = np.ones((2, D), np.float32)
    carry = cell.initialize_carry(jax.random.key(0), x.shape)
    return by_path(cell.init(jax.random.key(0), carry, x)["params"])


def of_haiku(kind):
    hk = pytest.importorskip("haiku")

    @hk.transform
    def run(x):
        core = hk.VanillaRNN(H) if kind == "RNN" else getattr(hk, kind)(H)
        return core(x, core.initial_state(2))

    params = run.init(jax.random.key(0), np.ones((2, D), np.float32))
    found = {}
    for module, arrays in params.items():
        inside = module.partition("/")[2] + "/" if kind == "RNN" else ""
        found |= {inside + name: a.shape for name, a in arrays.items()}
    return found


def of_equinox(kind):
    eqx = pytest.importorskip("equinox")
    cell = getattr(eqx.nn, kind + "Cell")(D, H, key=jax.random.key(0))
    return {k: a.shape for k, a in vars(cell).items() if eqx.is_array(a)}


FRAMEWORKS = {
    "jaxseq": of_jaxseq,
    "PyTorch": of_torch,
    "Keras": of_keras,
    "NNX": of_nnx,
    "NNX, optimized": lambda kind: of_nnx(kind, "OptimizedLSTMCell"),
    "Linen": of_linen,
    "Haiku": of_haiku,
    "Equinox": of_equinox,
}
KINDS = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "simple RNN"}
CASES = [(k, f) for k in KINDS for f in FRAMEWORKS if f in rows(KINDS[k])]


@pytest.mark.parametrize(("kind", "framework"), CASES)
def test_names_and_shapes(kind, framework):
    found = said(KINDS[kind], framework)
    made = FRAMEWORKS[framework](kind)
    optional = {"b_h"} if framework == "jaxseq" else set()
    assert {k: v for k, v in found.items() if k not in optional} == made
