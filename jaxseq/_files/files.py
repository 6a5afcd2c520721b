"""Weights to files and back: safetensors, and the folders of Hugging Face's hub."""

import json
import os
from typing import Any, TypeVar, overload

import jax

from jaxseq._base.check import check
from jaxseq._files.arrays import check_like, check_names, named, on_device, on_host
from jaxseq._files.container import Contents, read, write
from jaxseq._files.replaced import replaced
from jaxseq._files.texts import LIKE, TREE, VERSION, keys_of, texts_of, verify
from jaxseq._files.trees import described, difference, made

Path = str | os.PathLike[str]
T = TypeVar("T")


def save(path: Path, weights: Any, *, config: dict[str, Any] | None = None) -> None:
    """Writes weights to a file in the format safetensors, from which `load` has them.

    The arrays have the names of their paths, such as "layers.0.w_x"; of a module of
    Flax NNX without the ".value" that Flax adds. An array that is there twice is
    written twice. The same weights make the same bytes. Random keys are written as
    their data, and their implementations as text. There is never a pickle in it.

    The file is written under another name beside `path`, brought to the disk, and put
    in the place of `path` at once: whatever happens, there is the old file or the new.

    Args:
        path: the file; or a folder that is there, for its "model.safetensors".
        weights: any tree of arrays: weights of the functions, states, a `Network` of
            `jaxseq.convert`, a module of Flax NNX or its `nnx.state`, tuples, lists,
            dicts and None. Arrays that are sharded are gathered.
        config: options of a model, as JSON holds them; `path` is a folder then, made
            if it is not there, to which "config.json" is written first. It is what the
            hub of Hugging Face shows and loads.

    Returns:
        Nothing.

    Raises:
        ValueError: if a leaf is no array, has a dtype that the format does not hold, is
            traced, or lies on devices of other processes; if two arrays have one name;
            if `config` is no dict, or not of JSON.
        OSError: if the file cannot be written.

    The format: https://huggingface.co/docs/safetensors

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/lstm.safetensors"
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> jaxseq.save(path, params)
        >>> sorted(jaxseq.load_arrays(path))
        ['b', 'w_h', 'w_x']
    """
    path = _text(path)
    names, leaves, _ = named(weights, "weights")
    arrays: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for name, leaf in zip(names, leaves, strict=True):
        arrays[name], key = on_host(leaf, f"weights.{name}")
        keys |= {name: key} if key else {}
    texts = texts_of(weights, arrays, keys)
    if config is not None:
        text = _json(config)
        os.makedirs(path, exist_ok=True)
        with replaced(os.path.join(path, "config.json")) as file:
            file.write(text)
    write(_file(path), arrays, texts)


@overload
def load(path: Path, like: None = None) -> Any: ...
@overload
def load(path: Path, like: T) -> T: ...
def load(path: Path, like: Any = None) -> Any:
    """Reads weights that `save` has written.

    Without `like` it gives back what `save` was given, if that was made of jaxseq's own
    types, tuples, lists, dicts with keys of one type, str or int, and None; of a
    `Network` with any cell of `lstm_cell`, `gru_cell` and `rnn_cell` whose activations
    are of `activation`, `jnp.tanh`, or of `jax.nn` one of `celu`, `elu`, `gelu`,
    `hard_sigmoid`, `hard_silu`, `hard_tanh`, `identity`, `leaky_relu`, `log_sigmoid`,
    `mish`, `relu`, `relu6`, `selu`, `sigmoid`, `silu`, `soft_sign`, `softplus`,
    `sparse_plus`, `sparse_sigmoid` and `squareplus`. Any other tree, such as a module
    of Flax or a dataclass of your own, needs `like`.

    Args:
        path: the file; or a folder, for its "model.safetensors".
        like: a tree of arrays or of `jax.ShapeDtypeStruct`, such as an init gives under
            `jax.eval_shape`, whose names, shapes, dtypes and types are to be those of
            the file. With it files of others are read too. Arrays are put where those
            of `like` are committed, or where its shardings say.

    Returns:
        The weights, as JAX arrays.

    Raises:
        ValueError: if the file is cut short or not in the format, if one of its
            checksums is wrong, or if it does not have the arrays that are expected,
            all of them and no others; with its name, and that of the array. So too if
            JAX does not have the dtype of an array, as 64 bits without
            `jax_enable_x64`.
        OSError: if the file cannot be read.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/lstm.safetensors"
        >>> jaxseq.save(path, jaxseq.lstm_init(jax.random.key(0), 3, 8))
        >>> params = jaxseq.load(path)
        >>> type(params).__name__, params.w_x.shape
        ('LSTMParams', (3, 32))

        With a template, which is not run:

        >>> init = lambda: jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> params = jaxseq.load(path, jax.eval_shape(init))
    """
    if like is None:
        file = _file(_text(path))
        return _described(file, _read(file))
    names, leaves, treedef = named(like, "like")
    for name, leaf in zip(names, leaves, strict=True):
        check_like(leaf, f"like.{name}")
    file = _file(_text(path))
    contents = _read(file)
    check_names(file, names, contents.arrays)
    _check_tree(file, contents, like, names)
    return treedef.unflatten(_on_devices(file, contents, names, leaves))


def load_arrays(path: Path) -> dict[str, Any]:
    """Reads the arrays of any safetensors file, such as PyTorch's, by name.

    Args:
        path: the file; or a folder, for its "model.safetensors".

    Returns:
        NumPy arrays of the dtypes of the file by their names, such as
        `jaxseq.convert.from_torch` takes. A random key is its data.

    Raises:
        ValueError: if the file is cut short or not in the format, if an array has a
            dtype that NumPy and JAX do not have, or if `save` has written it and one
            of its checksums is wrong; with its name, and that of the array.
        OSError: if the file cannot be read.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/weights.safetensors"
        >>> jaxseq.save(path, {"encoder": [jnp.ones((2, 3))]})
        >>> {name: a.shape for name, a in jaxseq.load_arrays(path).items()}
        {'encoder.0': (2, 3)}
    """
    return _read(_file(_text(path))).arrays


def load_config(path: Path) -> dict[str, Any]:
    """Reads the "config.json" of a folder.

    Args:
        path: the folder.

    Returns:
        What `save` was given as `config`, as JSON has it: tuples are lists.

    Raises:
        ValueError: if it is no JSON, or none of a dict.
        OSError: if it cannot be read.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> jaxseq.save(folder, params, config={"hidden_features": 8})
        >>> jaxseq.load_config(folder)
        {'hidden_features': 8}
    """
    path = os.path.join(_text(path), "config.json")
    with open(path, "rb") as file:
        text = file.read()
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from error
    check(isinstance(found, dict), path, "a dict", type(found).__name__)
    return found


def _read(file: str) -> Contents:
    contents = read(file)
    verify(file, contents)
    return contents


def _described(file: str, contents: Contents) -> Any:
    """The tree that the file itself describes."""
    texts = contents.texts
    expected = "weights of jaxseq's types, or `like`"
    got = f"a {texts[LIKE]}" if LIKE in texts else "a file of another program"
    check(TREE in texts and LIKE not in texts, file, expected, got)
    try:
        tree = made(json.loads(texts[TREE]))
    except (ValueError, RecursionError) as error:
        version = texts.get(VERSION)
        message = f"{file}: expected a tree that is known, got one of jaxseq {version}"
        raise ValueError(f"{message}: {error}") from error
    names, treedef = jax.tree.flatten(tree)
    check_names(file, names, contents.arrays)
    return treedef.unflatten(_on_devices(file, contents, names, [None] * len(names)))


def _on_devices(
    file: str, contents: Contents, names: list[str], like: list[Any]
) -> list[jax.Array]:
    keys = keys_of(contents.texts)
    return [
        on_device(contents.arrays[name], f"{file}: {name}", keys.get(name), leaf)
        for name, leaf in zip(names, like, strict=True)
    ]


def _check_tree(file: str, contents: Contents, like: Any, names: list[str]) -> None:
    """Checks the types of the template, and what is in no array."""
    if TREE not in contents.texts:
        return
    own = json.loads(json.dumps(described(like, names)[0]))
    found = difference(own, json.loads(contents.texts[TREE]))
    if found is not None:
        at, expected, got = found
        check(False, f"{file}: {at}", f"{expected}, as in `like`", got)


def _text(path: Any) -> str:
    ok = isinstance(path, (str, os.PathLike))
    check(ok, "path", "a str or a path", type(path).__name__)
    text = os.fspath(path)
    check(isinstance(text, str), "path", "a path of str", type(text).__name__)
    return text


def _file(path: str) -> str:
    return os.path.join(path, "model.safetensors") if os.path.isdir(path) else path


def _json(config: Any) -> bytes:
    check(isinstance(config, dict), "config", "a dict", type(config).__name__)
    try:
        text = json.dumps(config, indent=2, allow_nan=False, ensure_ascii=False)
        return (text + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"config: expected what JSON holds, got {error}") from error
