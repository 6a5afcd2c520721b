"""Files that are bad, and writing that fails, is killed, or is asked too much."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import jaxseq
from jaxseq.convert import Network
from tests.test_files import assert_same

KEY = jax.random.key(0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def packed(header, data=b"", n=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if n is None else n).to_bytes(8, "little") + text + data


def unpacked(data):
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def place(shape, start, end, dtype="F32", **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]} | more


GOOD = place([2, 3], 0, 24)
DATA = bytes(24)


def twice(a, b):
    pair = ",".join(f'"a":{json.dumps(one)}' for one in (a, b))
    return f"{{{pair}}}".encode()


BAD = {
    "empty": (b"", "a safetensors file, of at least 8 bytes, got 0 bytes"),
    "seven bytes": (b"\x00" * 7, "of at least 8 bytes, got 7 bytes"),
    "no header": (bytes(8), "a header that begins with {, got ''"),
    "a huge header": (packed({}, n=2**63), "of at most 2 bytes, got one of 9223372036"),
    "a header of all": (packed({}, n=3), "of at most 2 bytes, got one of 3"),
    "not UTF-8": (packed(b'{"\xff":1}'), "a header in UTF-8, got .* byte 0xff"),
    "not JSON": (packed(b'{"a":}'), "a header in JSON, got Expecting value"),
    "a list": (packed(b"[]"), r"a header that begins with {, got '\[\]'"),
    "a space first": (packed(b" {}"), "a header that begins with {"),
    "more than JSON": (packed(b"{}{}"), "a header in JSON, got Extra data"),
    "depth": (
        packed(b'{"a":' + b"[" * 10**5),
        "a header in JSON, got maximum recursion",
    ),
    "depths": (packed(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"), "a: expected an obj"),
    "long integers": (
        packed(
            b'{"a":{"dtype":"F32","shape":[' + b"9" * 9999 + b'],"data_offsets":[0,0]}}'
        ),
        r"a: expected a shape of at most 64 sizes, got \[-1\]",
    ),
    "twice": (packed(twice(GOOD, GOOD), DATA), "a: expected each name once, got it tw"),
    "a field twice": (
        packed(b'{"a":{"dtype":"F32","dtype":"F32"}}'),
        "dtype: expected each name once",
    ),
    "surrogates": (
        packed(b'{"\\ud800":' + json.dumps(GOOD).encode() + b"}", DATA),
        r"'\\ud800': expected a name in UTF-8",
    ),
    "texts": (
        packed({"__metadata__": {"a": 1}}),
        r"__metadata__: expected texts by name",
    ),
    "no object": (
        packed({"a": 3}),
        "a: expected an object with dtype, shape, data_off",
    ),
    "no shape": (
        packed({"a": {"dtype": "F32"}}),
        "a: expected an object with dtype, sh",
    ),
    "a dtype": (
        packed({"a": GOOD | {"dtype": "F33"}}),
        "a: expected a dtype .* got 'F33'",
    ),
    "a list as dtype": (packed({"a": GOOD | {"dtype": []}}), "a: expected a dtype"),
    "four bits": (
        packed({"a": place([2], 0, 1, "F4")}, b"\0"),
        "expected a dtype .*'F4'",
    ),
    "negative": (
        packed({"a": place([-2, 3], 0, 24)}, DATA),
        r"a shape .* got \[-2, 3\]",
    ),
    "floats": (
        packed({"a": place([2.0, 3], 0, 24)}, DATA),
        r"a shape .* got \[2\.0, 3\]",
    ),
    "booleans": (packed({"a": place([True], 0, 4)}, DATA[:4]), "a shape .*True"),
    "NaN": (packed({"a": place([float("nan")], 0, 4)}, DATA[:4]), "a shape .*nan"),
    "many axes": (
        packed({"a": place([1] * 65, 0, 4)}, DATA[:4]),
        "shape of at most 64",
    ),
    "overflow": (
        packed({"a": place([2**40, 2**40], 0, 24)}, DATA),
        r"a: expected 4835703278458516698824704 bytes of data for float32",
    ),
    "no bytes, but sizes": (
        packed({"a": place([0, 2**62, 2**62], 0, 0)}),
        "a: expected the shape of an array",
    ),
    "more data": (packed({"a": GOOD}, DATA + b"\0"), "24 bytes of data, got 25"),
    "less data": (packed({"a": GOOD}, DATA[:-1]), "a: expected data within 23 bytes"),
    "a larger shape": (
        packed({"a": GOOD | {"shape": [2, 4]}}, DATA),
        "a: expected 32 by",
    ),
    "a smaller shape": (
        packed({"a": GOOD | {"shape": [2, 2]}}, DATA),
        "a: expected 16 b",
    ),
    "three offsets": (
        packed({"a": GOOD | {"data_offsets": [0, 1, 2]}}, DATA),
        "data_off",
    ),
    "backwards": (
        packed({"a": place([2, 3], 24, 0)}, DATA),
        "a: expected data from 0 on",
    ),
    "overlapping": (
        packed({"a": GOOD, "b": place([3], 12, 24)}, DATA),
        "b: expected data from 24 on, where that before it ends, got from 12",
    ),
    "a hole": (
        packed({"a": place([2], 0, 8), "b": place([3], 12, 24)}, DATA),
        "b: expected data from 8 on, where that before it ends, got from 12",
    ),
    "beyond": (
        packed({"a": place([2, 3], 2**60, 2**60 + 24)}, DATA),
        "a: expected data",
    ),
    "no booleans": (
        packed({"a": place([2], 0, 2, "BOOL")}, b"\1\2"),
        "a: expected booleans, bytes of 0 or 1, got 2",
    ),
}


@pytest.mark.parametrize("data, message", BAD.values(), ids=BAD)
def test_bad_files(data, message, path):
    path.write_bytes(data)
    for read in (jaxseq.load, jaxseq.load_arrays, lambda p: jaxseq.load(p, [KEY])):
        with pytest.raises(ValueError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))


WEIGHTS = {
    "cells": jaxseq.lstm_init(KEY, 3, 4),
    "more": [jnp.ones((2, 0), jnp.int8), jaxseq.NormLayout(True, 1e-5), KEY, None],
    "flags": (jnp.zeros(5, bool), jnp.ones(3, jnp.bfloat16)),
    "both": jaxseq.lstm_init(KEY, 3, 4),
}


def edited(header, rng):
    """A header with one change in it, or as bytes."""
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.sample(names, 2)
    texts, own = header["__metadata__"], header[name]
    some = rng.choice(list(texts))
    number = rng.choice(
        [-1, 0, 1, 2, 7, 2**31, 2**63, 2**64, 10**30, 0.5, None, "1", []]
    )
    at = rng.randrange(len(own["data_offsets"]))
    match rng.randrange(12):
        case 0:
            header[name], header[other] = header[other], own
        case 1:
            header[name + rng.choice("axz.")] = header.pop(name)
        case 2:
            del header[name]
        case 3:
            own["dtype"] = rng.choice(
                ["F32", "I32", "U32", "F16", "BOOL", "F4", "", None]
            )
        case 4:
            own["shape"] = rng.choice(
                [own["shape"][::-1], [number], number, [1, *own["shape"]]]
            )
        case 5:
            own["data_offsets"][at] = number
        case 6:
            own["data_offsets"] = header[other]["data_offsets"]
        case 7:
            own.pop(rng.choice(list(own)))
        case 8:
            texts[some] = rng.choice(
                ["", "{}", "[]", texts[some][:-1], texts[some] * 2]
            )
        case 9:
            del texts[some]
        case 10:
            texts[rng.choice(["jaxseq.tree", "jaxseq.keys", "new"])] = "{}"
        case 11:
            text = (
                json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(own)}}}"
            )
            return text.encode()
    return header


def corrupted(data, rng):
    match rng.randrange(6):
        case 0:
            return data[: rng.randrange(len(data))]
        case 1:
            at = rng.randrange(len(data))
            return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
        case 2:
            at = rng.randrange(len(data))
            return data[:at] + data[at + rng.randrange(1, 9) :]
        case 3:
            header, arrays = unpacked(data)
            return packed(edited(header, rng), arrays)
    changed = bytearray(data)
    within = len(data) if rng.random() < 0.5 else len(packed(unpacked(data)[0]))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(min(within, len(data)))
        changed[at] = rng.choice(
            [changed[at] ^ 1 << rng.randrange(8), rng.randrange(256)]
        )
    return bytes(changed)


def read_or_refused(read, path, *like):
    try:
        return read(path, *like)
    except ValueError as error:
        assert str(error).startswith(str(path))
        return None


def test_a_thousand_corrupted_files(path):
    """Each is refused, or gives exactly what was saved, in the memory of its size."""
    jaxseq.save(path, WEIGHTS)
    data, arrays = path.read_bytes(), jaxseq.load_arrays(path)
    rng, right, most = random.Random(0), 0, 0
    for _ in range(1000):
        path.write_bytes(corrupted(data, rng))
        tracemalloc.start()
        found = read_or_refused(jaxseq.load_arrays, path)
        most = max(most, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        if found is not None:
            assert_same(found, arrays, np.ndarray)
            right += 1
        for like in (None, WEIGHTS):
            found = read_or_refused(jaxseq.load, path, like)
            if found is not None:
                assert_same(found, WEIGHTS)
    assert 0 < right < 100
    assert most < 20 * len(data)


def test_corrupted_data_is_found_in_its_array(path):
    jaxseq.save(path, WEIGHTS)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the last array, whose elements are the smallest
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"safetensors: flags\.0: expected (CRC|bool)"):
        jaxseq.load(path)


def test_a_file_that_was_written_again(path):
    """By another program, with the texts and other numbers."""
    jaxseq.save(path, {"a": jnp.ones(2), "b": jnp.ones(2)})
    with safetensors.safe_open(path, "np") as file:
        texts = file.metadata()
    arrays = {"a": np.ones(2), "b": np.array([1.0, 2.0])}
    safetensors.numpy.save_file(arrays, path, texts)
    with pytest.raises(
        ValueError, match=r"safetensors: b: expected CRC-32 \d+, got \d+"
    ):
        jaxseq.load_arrays(path)
    safetensors.numpy.save_file(arrays, path, {"format": "flax"})
    assert jaxseq.load(path, arrays)["b"][1] == 2


UNKNOWN = [
    '{"Elman": {}}',
    '{"LSTMParams": {}}',
    '{"LSTMParams": {"w_x": null, "w_h": null, "b": null, "p": null}}',
    '{"Cell": ["eval", {}]}',
    '{"Cell": ["lstm_cell", {"heads": {"value": -1}}]}',
    '{"Cell": "Cell"}',
    '{"function": "exec"}',
    '{"Activation": {"name": {"value": "f"}, "alpha": {"value": 0.0}, "beta": null}}',
    '{"dict": [[[], null]]}',
    '{"value": []}',
    "[]",
    "3",
    "{",
    '{"list": [' * 5000 + "]}" * 5000,
]


@pytest.mark.parametrize("tree", UNKNOWN, ids=lambda tree: tree[:30])
def test_trees_that_are_not_known(tree, path):
    """With right checksums, as of a version to come."""
    texts = {"jaxseq": "9.0", "jaxseq.tree": tree}
    text = json.dumps(texts, separators=(",", ":"), ensure_ascii=False)
    sums = json.dumps({"__metadata__": zlib.crc32(text.encode())})
    path.write_bytes(packed({"__metadata__": texts | {"jaxseq.crc32": sums}}))
    with pytest.raises(ValueError, match=r"known, got one of jaxseq 9\.0: ") as error:
        jaxseq.load(path)
    assert "KeyError" not in str(error.value)
    if "exec" in tree:
        assert str(error.value).endswith("9.0: unknown function 'exec'")


# writing


WRONG = {
    "a number": ({"a": [1.5]}, r"weights\.a\.0: expected an array, got float"),
    "a text": ("abc", r"weights\.array: expected an array, got str"),
    "a shape": (
        jax.ShapeDtypeStruct((2,), "f"),
        "expected an array, got ShapeDtypeStr",
    ),
    "one name": (
        {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}},
        r"weights\.a\.b: expected one leaf of this name, got two",
    ),
    "the name of texts": (
        {"__metadata__": jnp.ones(1)},
        "weights.__metadata__: expected",
    ),
    "no UTF-8": (
        {"\ud800": jnp.ones(1)},
        r"weights\.'\\ud800': expected a name in UTF-8",
    ),
    "objects": (np.array([object()]), "weights.array: expected a dtype .* got object"),
    "texts": (np.array(["a"]), "weights.array: expected a dtype among .* got <U1"),
}


@pytest.mark.parametrize("tree, message", WRONG.values(), ids=WRONG)
def test_wrong_weights(tree, message, path):
    path.write_text("old")
    with pytest.raises(ValueError, match=message):
        jaxseq.save(path, tree)
    assert path.read_text() == "old" and len(list(path.parent.iterdir())) == 1


def test_not_under_jit(path):
    message = "weights.array: expected an array that is known, outside of jit"
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda a: jaxseq.save(path, a))(jnp.ones(2))


def test_wrong_paths(tmp_path):
    for wrong in (None, 3, b"abc", ["a"]):
        with pytest.raises(ValueError, match="path: expected a"):
            jaxseq.save(wrong, jnp.ones(1))
        with pytest.raises(ValueError, match="path: expected a"):
            jaxseq.load(wrong)
    with pytest.raises(FileNotFoundError):
        jaxseq.save(tmp_path / "none" / "file", jnp.ones(1))
    with pytest.raises(FileNotFoundError):
        jaxseq.load(tmp_path)


def test_a_file_is_replaced(path):
    """Through a link, and with the rights of a new file."""
    link = path.with_name("link")
    link.symlink_to(path)
    for n in (3, 2):
        jaxseq.save(link, jnp.ones(n))
        assert jaxseq.load(path).shape == (n,) and link.is_symlink()
    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert {p.name for p in path.parent.iterdir()} == {"link", path.name}


FULL = """
import resource, sys
import jax.numpy as jnp
import jaxseq

path = sys.argv[1]
jaxseq.save(path, jnp.ones(3))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    jaxseq.save(path, jnp.ones(10_000))
except OSError as error:
    print("raised", error.errno)
print(jaxseq.load(path))
"""


def run(code, *args):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_full_disk_leaves_the_old_file(path):
    out, _ = run(FULL, path).communicate(timeout=900)
    assert "raised" in out and "[1. 1. 1.]" in out
    assert [p.name for p in path.parent.iterdir()] == [path.name]


KILLED = """
import itertools, sys
import jax.numpy as jnp
import jaxseq

for i in itertools.count():
    jaxseq.save(sys.argv[1], {"a": jnp.full(300_000, i), "b": jnp.full(7, i)})
    if not i:
        print("begun", flush=True)
"""


def test_a_kill_leaves_a_whole_file(path):
    rng, last = random.Random(0), -1
    for _ in range(3):
        process = run(KILLED, path)
        assert process.stdout.readline() == "begun\n"
        time.sleep(rng.random() / 5)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = jaxseq.load(path)
        assert (found["a"] == found["b"][0]).all()
        last = max(last, int(found["b"][0]))
    assert last > 0


# folders


CONFIG = {
    "hidden_features": 8,
    "merge": None,
    "rates": [0.5, 1e-3],
    "name": "é",
    "a": {},
}


def test_a_folder_as_of_the_hub(tmp_path):
    folder = tmp_path / "made" / "here"
    params = jaxseq.gru_init(KEY, 3, 4)
    jaxseq.save(folder, params, config=CONFIG)
    names = {p.name for p in folder.iterdir()}
    assert names == {"config.json", "model.safetensors"}
    assert jaxseq.load_config(folder) == CONFIG
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == CONFIG
    assert_same(jaxseq.load(folder), params)
    assert set(jaxseq.load_arrays(str(folder))) == {"w_x", "w_h", "b", "b_hn"}
    network = Network((params,), jaxseq.GRU)
    jaxseq.save(folder, network)  # of a folder that is there
    assert_same(jaxseq.load(folder), network)
    assert jaxseq.load_config(folder) == CONFIG


def test_wrong_configs(tmp_path):
    nan = float("nan")
    for wrong in (
        [],
        "abc",
        {"a": object()},
        {"a": nan},
        {"a": jnp.ones(1)},
        {(1,): 2},
    ):
        with pytest.raises(
            ValueError, match=r"config: expected (a dict|what JSON holds)"
        ):
            jaxseq.save(tmp_path / "folder", jnp.ones(1), config=wrong)
    assert not (tmp_path / "folder").exists()
    for text in (b"[]", b"{", b"\xff", b"[" * 10**5):
        (tmp_path / "config.json").write_bytes(text)
        with pytest.raises(ValueError, match=r"config\.json: expected (a dict|JSON)"):
            jaxseq.load_config(tmp_path)
    with pytest.raises(FileNotFoundError):
        jaxseq.load_config(tmp_path / "none")
