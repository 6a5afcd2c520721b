"""Libraries of native kernels that are damaged, or for something else."""

import re
import sys
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import jaxseq
from jaxseq._kernels.cpu import build, interface
from tests.native.python import python

pytestmark = pytest.mark.usefixtures("native_library")


def other_machine(data):
    """For an x86-64 the header of an aarch64, else that of an x86-64."""
    machine = b"\xb7\0" if data[18:20] == b"\x3e\0" else b"\x3e\0"
    return data[:18] + machine + data[20:]


# what is done to the bytes of a library, and what is said of it then
DAMAGES = {
    "empty": (lambda data: b"", "not a library for this kind of machine"),
    "text": (lambda data: b"no library\n", "not a library for this kind of machine"),
    "bits": (lambda data: data[:4] + b"\x01" + data[5:], "this kind of machine"),
    "machine": (other_machine, "this kind of machine"),
    "start": (lambda data: data[:64], "not a whole library"),
    "half": (lambda data: data[: len(data) // 2], "not a whole library"),
    "less": (lambda data: data[: len(data) * 8 // 10], "not a whole library"),
    "zeros": (lambda data: data[:64] + bytes(len(data) - 64), "whole|cannot be loaded"),
    "no version": (
        lambda data: data.replace(b"JaxseqInterface", b"JaxseqOtherFace"),
        "does not say what it was compiled for",
    ),
    "no kernel": (
        lambda data: data.replace(b"JaxseqForward", b"JaxseqUpwards"),
        "cannot be loaded: .*JaxseqForward",
    ),
}

# in a process of its own, for to load them may end it
LOAD = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp, jaxseq
from jaxseq._kernels.cpu import build
for name in sys.argv[1:]:
    build.PACKAGED = Path(name)
    print(build.limit.__wrapped__())
params, x = jaxseq.lstm_init(jax.random.key(0), 2, 3), jnp.ones((1, 2, 2))
jaxseq.lstm(params, x)
try:
    jaxseq.lstm(params, x, implementation="native")
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is of the format of Linux")
def test_a_damaged_library(tmp_path):
    """It is a sentence, and no crash, and layers run without it."""
    data = build.found().read_bytes()
    files = []
    for name, (damage, _) in DAMAGES.items():
        files.append(tmp_path / f"{name}.so")
        files[-1].write_bytes(damage(data))
    said = python("-c", LOAD, *files).stdout.splitlines()
    assert len(said) == len(files) + 1
    for line, (_, words) in zip(said, DAMAGES.values(), strict=False):
        assert re.search(words, line), line
    assert said[-1].startswith("implementation: expected ")
    assert said[-1].endswith(said[-2])


def test_a_whole_library():
    assert interface.damage(build.found()) is None


def test_a_library_for_another_interface_is_refused():
    here = interface.interface()
    assert here is not None
    made = lambda major, minor: SimpleNamespace(
        JaxseqInterface=lambda: 1000 * major + minor
    )
    for version in (here, (here[0], 0)):  # XLA takes what is older
        assert interface.refusal(made(*version)) is None
    for version in ((here[0], here[1] + 1), (here[0] + 1, here[1])):
        assert "was compiled for version" in (interface.refusal(made(*version)) or "")
    assert "does not say" in (interface.refusal(SimpleNamespace()) or "")


def test_a_library_that_is_refused_says_so(monkeypatch):
    message = "the library of native kernels was compiled for another"
    monkeypatch.setattr(build, "refusal", lambda library: message)
    monkeypatch.setattr(build, "limit", build.limit.__wrapped__)
    params = jaxseq.lstm_init(jax.random.key(0), 4, 5)
    x = jnp.ones((2, 3, 4), jnp.float32)
    native = partial(jaxseq.lstm, implementation="native")
    with pytest.raises(ValueError, match=message):
        jax.jit(native).lower(params, x)
