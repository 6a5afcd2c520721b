"""Files of arrays by name, in the format safetensors.

A file is the length of its header, 8 bytes, little endian; the header, an object of
JSON, with the dtype, the shape and the place of each array, and texts by name under
"__metadata__"; and the bytes of the arrays, one after the other.

It is read and written here, since the format's own Python library takes a name that
is there twice, has no float8 in NumPy, and writes the texts in an order of chance, so
that the same arrays make another file each time.

https://huggingface.co/docs/safetensors
"""

import json
import math
import os
import reprlib
import zlib
from io import BufferedReader
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxseq._base.check import check
from jaxseq._files.replaced import replaced

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "C64": "complex64",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
}
CODES = {name: code for code, name in DTYPES.items()}
TEXTS = "__metadata__"
MOST = 100_000_000  # bytes of a header, as the format has it
MOST_AXES = 64  # of an array of NumPy


class Contents(NamedTuple):
    """What is in a file: arrays of NumPy and texts, both by name."""

    arrays: dict[str, Any]
    texts: dict[str, str]


class Place(NamedTuple):
    dtype: str
    shape: list[int]
    start: int
    end: int


def checksum(a: Any) -> int:
    """CRC-32 of an array's dtype, shape and bytes."""
    head = f"{CODES[a.dtype.name]}{list(a.shape)}"
    return zlib.crc32(_bytes(a), zlib.crc32(head.encode()))


def _bytes(a: Any) -> Any:
    return a.reshape(-1).view("uint8")


def write(path: str, arrays: dict[str, Any], texts: dict[str, str]) -> None:
    """Writes arrays of NumPy, each of a dtype of `CODES`, in one piece and native."""
    header: dict[str, Any] = {TEXTS: texts}
    # the widest first, so that each lies at a multiple of its width
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    start = 0
    for name in names:
        a = arrays[name]
        place = [start, start + a.nbytes]
        code, start = CODES[a.dtype.name], place[1]
        header[name] = {"dtype": code, "shape": a.shape, "data_offsets": place}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    check(len(text) <= MOST, "weights", f"a header of at most {MOST} bytes", len(text))
    with replaced(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(arrays[name]))


def read(path: str) -> Contents:
    """Reads a file, or raises a `ValueError` that says what is wrong with it."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = _header(file, path, size)
        texts = _texts(header.pop(TEXTS, None), path)
        places = {name: _place(a, f"{path}: {name}") for name, a in header.items()}
        first = file.tell()
        _check_places(places, path, size - first)
        arrays = {k: _read(file, f"{path}: {k}", p, first) for k, p in places.items()}
    return Contents(arrays, texts)


def _header(file: BufferedReader, path: str, size: int) -> dict[str, Any]:
    check(size >= 8, path, "a safetensors file, of at least 8 bytes", f"{size} bytes")
    n, most = int.from_bytes(file.read(8), "little"), min(size - 8, MOST)
    check(n <= most, path, f"a header of at most {most} bytes", f"one of {n}")
    text = file.read(n)
    check(len(text) == n, path, f"{n} bytes of a header", f"{len(text)}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            check(name not in found, f"{path}: {name}", "each name once", "it twice")
            check(is_utf8(name), f"{path}: {name!r}", "a name in UTF-8", "a surrogate")
            found[name] = value
        return found

    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a header in UTF-8, got {error}") from error
    if not decoded.startswith("{"):
        check(False, path, "a header that begins with {", repr(decoded[:8]))
    whole = lambda digits: int(digits) if len(digits) < 20 else -1  # no size
    try:
        return json.loads(decoded, object_pairs_hook=once, parse_int=whole)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected a header in JSON, got {error}") from error


def is_utf8(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _texts(found: Any, path: str) -> dict[str, str]:
    texts = {} if found is None else found
    ok = isinstance(texts, dict) and all(isinstance(t, str) for t in texts.values())
    _check_found(ok, f"{path}: {TEXTS}", "texts by name", found)
    return texts


def _place(found: Any, name: str) -> Place:
    keys = "dtype", "shape", "data_offsets"
    ok = isinstance(found, dict) and all(key in found for key in keys)
    _check_found(ok, name, f"an object with {', '.join(keys)}", found)
    dtype, shape, offsets = (found[key] for key in keys)
    ok = isinstance(dtype, str) and dtype in DTYPES
    _check_found(ok, name, f"a dtype among {', '.join(DTYPES)}", dtype)
    ok = _are_sizes(shape) and len(shape) <= MOST_AXES
    _check_found(ok, name, f"a shape of at most {MOST_AXES} sizes", shape)
    ok = _are_sizes(offsets) and len(offsets) == 2
    _check_found(ok, name, "data_offsets [start, end]", offsets)
    return Place(DTYPES[dtype], shape, *offsets)


def _check_found(ok: bool, name: str, expected: str, found: Any) -> None:
    if not ok:  # what may be as large as the file is shortened
        check(False, name, expected, reprlib.repr(found))


def _are_sizes(found: Any) -> bool:
    is_size = lambda n: type(n) is int and 0 <= n < 2**63
    return isinstance(found, list) and all(map(is_size, found))


def _check_places(places: dict[str, Place], path: str, size: int) -> None:
    """Each array has the bytes that its shape says, and all of them lie in a row."""
    at = 0
    for name, place in sorted(places.items(), key=lambda item: item[1][2:]):
        dtype, shape, start, end = place
        expected = f"data from {at} on, where that before it ends"
        check(start == at, f"{path}: {name}", expected, f"from {start}")
        n = math.prod(shape) * jnp.dtype(dtype).itemsize
        expected = f"{n} bytes of data for {dtype} {shape}"
        check(end - start == n, f"{path}: {name}", expected, end - start)
        at = end
        check(at <= size, f"{path}: {name}", f"data within {size} bytes", f"to {at}")
    check(at == size, path, f"{at} bytes of data", f"{size}")


def _read(file: BufferedReader, name: str, place: Place, first: int) -> Any:
    import numpy as np

    data: Any = np.empty(place.end - place.start, np.uint8)
    file.seek(first + place.start)
    n = file.readinto(data)
    check(n == data.nbytes, name, f"{data.nbytes} bytes of data", n)
    if place.dtype == "bool":
        most = data.max(initial=0)
        check(most <= 1, name, "booleans, bytes of 0 or 1", most)
    try:
        return data.view(jnp.dtype(place.dtype)).reshape(place.shape)
    except ValueError as error:  # no bytes, but sizes that are too large
        message = f"{name}: expected the shape of an array, got {place.shape}: {error}"
        raise ValueError(message) from error
