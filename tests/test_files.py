"""Weights in files: there and back, and as others read and write them."""

import itertools
import json
import os
import socket
import subprocess
import sys
from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import jaxseq
import jaxseq.nn
from jaxseq.convert import Network, from_torch
from tests.calls import CALLS

KEY = jax.random.key(0)
D, H = 3, 4


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def assert_same(got, want, arrays=jax.Array):
    """Of the same types throughout, and the same bits."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(a, arrays) and (a.shape, a.dtype) == (b.shape, b.dtype)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = map(jax.random.key_data, (a, b))
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


CELLS = {
    "RNN": jaxseq.RNN,
    "LSTM": jaxseq.LSTM,
    "GRU": jaxseq.GRU,
    "relu": jaxseq.rnn_cell(activation=jax.nn.relu, clip=2.0),
    "elu": jaxseq.rnn_cell(activation=jaxseq.activation("elu", alpha=0.3)),
    "peepholes": jaxseq.lstm_cell(peepholes=True, clip=3.0, coupled=True),
    "layer norm": jaxseq.lstm_cell(layer_norm=True, gate=jax.nn.relu),
    "projection": jaxseq.lstm_cell(cells=6),
    "reset before": jaxseq.gru_cell(reset_after=False, heads=2),
}


def networks():
    for name, cell in CELLS.items():
        first, second = (cell.init(KEY, D, H), cell.init(KEY, D, H))
        yield name, Network((first, cell.init(KEY, H, H)), cell, reverse=True)
        yield f"{name}, both", Network(((first, second),), (cell, cell), merge=None)


TREES = {
    "tuples": (jnp.ones(2), (), (jnp.zeros(()),)),
    "lists": [[jnp.ones(2)], []],
    "dicts": {"b": {}, "a": {3: jnp.ones(1), -1: None}},
    "names": {"": jnp.ones(1), "é 世": jnp.zeros(1), "a": {"": jnp.ones(2)}},
    "an array": jnp.arange(3),
    "None": None,
    "keys": [KEY, jax.random.split(jax.random.key(1, impl="rbg"), (2, 3))],
    "no layout": jaxseq.NormLayout(True, 1e-12),
    **dict(networks()),
}


@pytest.mark.parametrize("name", TREES)
def test_what_was_saved_comes_back(name, path):
    jaxseq.save(path, TREES[name])
    assert_same(jaxseq.load(path), TREES[name])
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), TREES[name])
    if like is not None:
        assert_same(jaxseq.load(path, like), TREES[name])


@pytest.mark.parametrize("name", CALLS)
def test_what_public_functions_take_comes_back(name, path):
    """Weights and states of each public type."""
    args = CALLS[name].args(2, 3)
    jaxseq.save(path, args)
    assert_same(jaxseq.load(path), args)


def test_every_public_tuple_is_known(path):
    """But for those of functions."""
    public = [getattr(jaxseq, name) for name in jaxseq.__all__]
    tuples = [a for a in public if isinstance(a, type) and hasattr(a, "_fields")]
    assert len(tuples) > 25
    for kind in set(tuples) - {jaxseq.Cell, jaxseq.NormLayout}:
        tree = kind(*(jnp.full(1, i) for i, _ in enumerate(kind._fields)))
        jaxseq.save(path, tree)
        assert_same(jaxseq.load(path), tree)


HELD = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "complex64", "bool",
    *(f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", HELD)
def test_dtypes(dtype, path):
    """Every bit, of NaN too, in arrays of no, some and many axes."""
    dtype = jnp.dtype(dtype)
    rng = np.random.default_rng(0)

    def drawn(*shape):
        n = int(np.prod(shape)) * dtype.itemsize
        data = rng.integers(0, 2 if dtype.kind == "b" else 256, n, np.uint8)
        return data.view(dtype).reshape(shape)

    shapes = (), (1,), (3, 5), (0,), (2, 0, 3), (1, 1, 2, 1, 1, 3)
    arrays = {str(shape): drawn(*shape) for shape in shapes}
    jaxseq.save(path, arrays)
    assert_same(jaxseq.load(path), arrays)
    assert_same(jaxseq.load_arrays(path), arrays, np.ndarray)
    with safetensors.safe_open(path, "np") as file:
        if dtype.name in [a for a in HELD if "8_" not in a]:  # NumPy has no others
            found = {name: file.get_tensor(name) for name in file.keys()}
            assert_same(found, arrays, np.ndarray)


@pytest.mark.parametrize(
    "dtype", ["int4", "float8_e4m3", "float4_e2m1fn", "complex128"]
)
def test_dtypes_that_the_format_has_not(dtype, path):
    message = rf"weights\.a: expected a dtype among bool, .*, got {dtype}"
    with pytest.raises(ValueError, match=message):
        jaxseq.save(path, {"a": jnp.zeros(2, dtype)})
    assert not path.exists()


def test_arrays_of_numpy(path):
    """In any order of axes and bytes, and scalars."""
    a = np.arange(12.0).reshape(3, 4)
    odd = {"t": a.T, "s": a[::2, ::-1], "big": a.astype(">f8"), "one": np.float32(2)}
    jaxseq.save(path, odd)
    want = {
        k: np.asarray(b, np.dtype(b.dtype).newbyteorder("=")) for k, b in odd.items()
    }
    assert_same(jaxseq.load(path), want)


def test_names_and_texts(path):
    params = jaxseq.lstm_init(KEY, D, H)
    jaxseq.save(path, {"layers": (params, params)})
    with safetensors.safe_open(path, "np") as file:
        texts, names = file.metadata(), sorted(file.keys())
    fields = "b", "w_h", "w_x"
    assert names == [f"layers.{i}.{name}" for i in (0, 1) for name in fields]
    assert texts["format"] == "flax" and texts["jaxseq"] == jaxseq.__version__
    assert all(key == "format" or key.startswith("jaxseq") for key in texts)


def test_the_same_weights_make_the_same_bytes(path):
    tree = TREES["LSTM"], {"b": jnp.ones(3, jnp.int8), "a": jnp.ones(2), "k": KEY}
    found = set()
    for order in itertools.permutations(tree[1]):
        jaxseq.save(path, (tree[0], {key: tree[1][key] for key in order}))
        found.add(path.read_bytes())
    assert len(found) == 1
    (data,) = found
    n = int.from_bytes(data[:8], "little")
    assert n % 8 == 0  # so that the arrays lie at multiples of their width
    header = json.loads(data[8 : 8 + n])
    starts = {k: a["data_offsets"][0] for k, a in header.items() if "data_offsets" in a}
    width = {name: a.itemsize for name, a in jaxseq.load_arrays(path).items()}
    assert all(starts[name] % width[name] == 0 for name in starts)


def test_shared_arrays_are_written_apart(path):
    a = jnp.ones(3)
    jaxseq.save(path, [a, a])
    found = jaxseq.load(path)
    assert_same(found, [a, a])
    assert found[0].unsafe_buffer_pointer() != found[1].unsafe_buffer_pointer()


# what others write and read


def test_files_of_the_formats_own_library(path):
    rng = np.random.default_rng(0)
    arrays = {"a.b": rng.standard_normal((3, 4)), "c": np.float32(3), "": np.zeros(0)}
    arrays = {name: np.asarray(a) for name, a in arrays.items()}
    for texts in (None, {}, {"format": "pt", "other": "text"}):
        safetensors.numpy.save_file(arrays, path, texts)
        assert_same(jaxseq.load_arrays(path), arrays, np.ndarray)
        named = {"a": {"b": arrays["a.b"]}, "c": arrays["c"], "": arrays[""]}
        assert_same(jaxseq.load(path, named), named)
        message = "weights.safetensors: expected weights of jaxseq's types, or `like`"
        with pytest.raises(ValueError, match=f"{message}, got a file of another"):
            jaxseq.load(path)


def test_weights_of_pytorch(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    how = {"bidirectional": True, "batch_first": True, "dtype": torch.float64}
    module = torch.nn.LSTM(D, H, num_layers=2, **how)
    save_file({f"rnn.{k}": a for k, a in module.state_dict().items()}, path)
    network = from_torch(jaxseq.load_arrays(path), prefix="rnn")
    x = np.random.default_rng(0).standard_normal((2, 5, D))
    want, _ = module(torch.from_numpy(x))
    np.testing.assert_allclose(network(x)[1], want.detach(), rtol=0, atol=1e-12)
    jaxseq.save(path, network)
    assert_same(jaxseq.load(path), network)
    found = load_file(path)
    want = network.layers[1][0].w_x
    assert np.array_equal(found["layers.1.0.w_x"].numpy(), want)
    half = {
        "a": torch.arange(3).to(torch.bfloat16),
        "b": torch.ones(2, dtype=torch.bool),
    }
    save_file(half | {"f": torch.ones(2).to(torch.float8_e4m3fn)}, path)
    found = jaxseq.load_arrays(path)
    assert found["a"].tolist() == [0, 1, 2] and found["a"].dtype == jnp.bfloat16
    assert found["f"].dtype == jnp.float8_e4m3fn and found["b"].all()


# modules of Flax


def modules(seed=0):
    how = {"rngs": nnx.Rngs(seed)}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1, "source_vocab": 5}
    return {
        "LSTM": jaxseq.nn.LSTM(D, H, num_layers=2, dropout=0.5, **how),
        "GRU": jaxseq.nn.GRU(D, H, bidirectional=True, **how),
        "CRF": jaxseq.nn.CRF(D, **how),
        "Transformer": jaxseq.nn.Transformer(
            features=4, num_heads=2, ff_features=4, **layers, **how
        ),
    }


@pytest.mark.parametrize("name", modules())
def test_modules(name, path):
    module, other = modules()[name], modules(1)[name]
    jaxseq.save(path, module)
    found = jaxseq.load(path, other)
    assert type(found) is type(module)
    assert_same(nnx.state(found), nnx.state(module))
    shapes = nnx.eval_shape(lambda: modules()[name])
    assert_same(nnx.state(jaxseq.load(path, shapes)), nnx.state(module))
    with pytest.raises(ValueError, match=f"or `like`, got a {name}"):
        jaxseq.load(path)
    jaxseq.save(path, nnx.state(module, nnx.Param))
    nnx.update(other, jaxseq.load(path, nnx.state(other, nnx.Param)))
    assert_same(nnx.state(other, nnx.Param), nnx.state(module, nnx.Param))
    names = list(jaxseq.load_arrays(path))
    assert all(name.startswith("weights") and "value" not in name for name in names)
    jaxseq.save(path, module.params)
    assert_same(jaxseq.load(path), module.params)


class Own(NamedTuple):
    w_x: jax.Array
    value: jax.Array


@pytest.mark.parametrize(
    "tree",
    [
        Own(jnp.ones(2), jnp.zeros(3)),
        {"a": Own(jnp.ones(2), jnp.zeros(3))},
        OrderedDict(b=jnp.ones(2), a=jnp.zeros(1)),
        {(1, 2): jnp.ones(2)},
        Network((jnp.ones(2),), jaxseq.Cell(max, max, max)),
        Network((jnp.ones(2),), jaxseq.rnn_cell(activation=lambda x: x)),
    ],
    ids=lambda tree: type(tree).__name__,
)
def test_other_trees_need_a_template(tree, path):
    jaxseq.save(path, tree)
    with pytest.raises(
        ValueError, match=r"types, or `like`, got a (Own|Ordered|dict|Cell of)"
    ):
        jaxseq.load(path)
    assert_same(jaxseq.load(path, tree), tree)


# templates


def lstm_like(D=D, H=H, init=jaxseq.lstm_init, **how):
    return jax.eval_shape(lambda: init(KEY, D, H, **how))


class Renamed(NamedTuple):
    w_x: jax.Array
    w_h: jax.Array


TEMPLATES = {
    "a wrong shape": (
        lstm_like(H=5),
        r"weights.safetensors: w_x: expected shape \(3, 20\), got \(3, 16\)",
    ),
    "a wrong dtype": (
        lstm_like(dtype=jnp.bfloat16),
        r"safetensors: w_x: expected dtype bfloat16, got float32",
    ),
    "a name too many": (
        lstm_like(init=jaxseq.gru_init),
        r"safetensors: b_hn: expected an array of this name, got \['b', 'w_h', 'w_x'\]",
    ),
    "a name too few": (
        Renamed(*lstm_like()[:2]),
        r"safetensors: b: expected no array of this name, got float32 \(16,\)",
    ),
    "another name": (
        [lstm_like()],
        r"safetensors: 0\.w_x: expected an array of this name",
    ),
    "another type": (
        lstm_like()._asdict(),
        r"expected dict, as in `like`, got LSTMParams",
    ),
    "no array": ({"w_x": 1.5}, r"like\.w_x: expected an array or a jax.Shape.*float"),
    "a text": (
        "abc",
        r"like.array: expected an array or a jax.ShapeDtypeStruct, got str",
    ),
}


@pytest.mark.parametrize("like, message", TEMPLATES.values(), ids=TEMPLATES)
def test_wrong_templates(like, message, path):
    jaxseq.save(path, jaxseq.lstm_init(KEY, D, H))
    with pytest.raises(ValueError, match=message):
        jaxseq.load(path, like)


def test_a_template_with_other_numbers(path):
    """Those that are in no array: a Transformer's epsilon, a network's cell."""
    layout, wrong = jaxseq.NormLayout(True, 1e-5), jaxseq.NormLayout(True, 1e-6)
    jaxseq.save(path, [layout, jnp.ones(1)])
    with pytest.raises(
        ValueError, match=r"value: expected 1e-06, as in `like`, got 1e-05"
    ):
        jaxseq.load(path, [wrong, jnp.ones(1)])
    params = jaxseq.gru_init(KEY, D, H)
    jaxseq.save(path, Network((params,), jaxseq.GRU))
    other = Network((params,), jaxseq.GRU, merge="sum")
    with pytest.raises(
        ValueError, match=r"merge.value: expected sum, as in .*, got concat"
    ):
        jaxseq.load(path, other)


def test_a_template_of_keys(path):
    jaxseq.save(path, [KEY])
    wrong = [jax.random.key(0, impl="rbg")], [jnp.zeros(2, jnp.uint32)], [jnp.zeros(())]
    for like in wrong:
        with pytest.raises(ValueError, match=r"safetensors: 0: expected (dtype|shape)"):
            jaxseq.load(path, like)
    jaxseq.save(path, [jnp.zeros(2, jnp.uint32)])
    with pytest.raises(ValueError, match=r"safetensors: 0: expected (dtype|shape)"):
        jaxseq.load(path, [KEY])


def test_64_bits(path):
    jaxseq.save(path, {"a": jnp.ones(2, jnp.float64)})
    with jax.enable_x64(False):
        with pytest.raises(
            ValueError, match=r"a: expected a dtype that JAX has, or .*64"
        ):
            jaxseq.load(path)
        assert jaxseq.load_arrays(path)["a"].dtype == np.float64


# devices


def test_sharded_arrays(path):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    over = NamedSharding(mesh, PartitionSpec("d"))
    want = {"a": jnp.arange(8.0).reshape(4, 2), "k": jax.random.split(KEY, 2)}
    sharded = jax.device_put(want, over)
    jaxseq.save(path, sharded)
    assert_same(jaxseq.load(path), want)
    template = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=over)
    for like in (sharded, jax.tree.map(template, want)):
        found = jaxseq.load(path, like)
        assert_same(found, want)
        assert all(a.sharding == over for a in jax.tree.leaves(found))
    found = jaxseq.load(path, want)  # which may go with arrays on any device
    assert not found["a"].committed


def test_a_template_on_an_explicit_mesh(path):
    want = jaxseq.lstm_init(KEY, D, H)
    jaxseq.save(path, want)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        found = jaxseq.load(path, lstm_like())
    assert_same(found, want)


TWO = """
import sys
import jax
import jax.numpy as jnp
import jaxseq
from jax.sharding import NamedSharding, PartitionSpec as P

i, port, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, i)
mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
put = lambda spec: jax.make_array_from_callback(
    (4,), NamedSharding(mesh, spec), lambda at: jnp.arange(4.0)[at]
)
try:
    jaxseq.save(path + "apart", {"a": put(P("d"))})
except ValueError as error:
    print(error)
jaxseq.save(f"{path}{i}", {"a": put(P())})
print(jaxseq.load(f"{path}{i}")["a"])
"""


def test_arrays_of_several_processes(path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", TWO]
    both = [
        subprocess.Popen(
            [*command, str(i), port, str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in (0, 1)
    ]
    try:
        for process in both:
            out, err = process.communicate(timeout=900)  # on a machine that is busy
            assert "weights.a: expected an array on devices of this process" in out, err
            assert "[0. 1. 2. 3.]" in out
    finally:  # or one that is left disturbs other tests
        for process in both:
            process.kill()
            process.wait()
    assert not path.with_name(path.name + "apart").exists()


# what is in no array


def network(cell, **how):
    return Network((jaxseq.lstm_init(KEY, D, H),), cell, **how)


OTHERS = {
    "no zoneout": (network(jaxseq.zoneout(jaxseq.LSTM, 0.5)), network(jaxseq.LSTM)),
    "another rate": (
        network(jaxseq.zoneout(jaxseq.LSTM, 0.5)),
        network(jaxseq.zoneout(jaxseq.LSTM, 0.25)),
    ),
    "another direction": (
        network(jaxseq.zoneout(jaxseq.LSTM, 0.5), reverse=True),
        network(jaxseq.zoneout(jaxseq.LSTM, 0.5)),
    ),
    "another activation": (
        network(jaxseq.lstm_cell(gate=jax.nn.hard_sigmoid)),
        network(jaxseq.LSTM),
    ),
    "beside what is unknown": (
        {"a": Own(jnp.ones(2), jnp.zeros(3)), "b": network(jaxseq.LSTM, reverse=True)},
        {"a": Own(jnp.ones(2), jnp.zeros(3)), "b": network(jaxseq.LSTM)},
    ),
}


@pytest.mark.parametrize("saved, like", OTHERS.values(), ids=OTHERS)
def test_a_template_of_another_network(saved, like, path):
    jaxseq.save(path, saved)
    with pytest.raises(ValueError, match="as in `like`"):
        jaxseq.load(path, like)
    assert_same(jaxseq.load(path, saved), saved)


@pytest.mark.parametrize(
    "name",
    "elu hard_sigmoid identity silu soft_sign softplus sparse_plus sparse_sigmoid"
    " squareplus".split(),
)
def test_activations_of_jax_need_no_template(name, path):
    tree = network(jaxseq.lstm_cell(gate=getattr(jax.nn, name)))
    jaxseq.save(path, tree)
    assert jaxseq.load(path).cell == tree.cell


def test_a_dict_keeps_its_names(path):
    tree = {"attention": {name: jnp.ones(2) for name in ("query", "key", "value")}}
    jaxseq.save(path, tree)
    names = [f"attention.{name}" for name in ("key", "query", "value")]
    assert sorted(jaxseq.load_arrays(path)) == names


def test_a_file_keeps_its_mode(path):
    jaxseq.save(path, jnp.ones(2))
    os.chmod(path, 0o640)
    jaxseq.save(path, jnp.zeros(2))
    assert os.stat(path).st_mode & 0o777 == 0o640


def test_texts_of_others_that_begin_alike(path):
    arrays = {"a": np.ones(2)}
    safetensors.numpy.save_file(arrays, path, metadata={"jaxseq_note": "of others"})
    assert np.array_equal(jaxseq.load_arrays(path)["a"], arrays["a"])
