"""The native kernels under the sanitizers of the compiler, without XLA."""

import subprocess
import sys

import pytest

from tests.native import LONG, sanitize
from tests.native.calls import write
from tests.native.cases import of_one_matrix, write_all

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("cases"), 1 if LONG else 6)


# of which threads share the columns, and the members
SHARED = "lstm-9-0", "members-0"


@pytest.mark.parametrize("width", sanitize.widths() if LONG else [16])
@pytest.mark.parametrize("kind", sanitize.SANITIZERS)
def test_it_finds_no_fault(kind, width, files, tmp_path):
    options = []
    if kind == "threads" and not LONG:
        options = ["-O0"]  # compiles in a third of the time
        files = [path for path in files if path.name.startswith(SHARED)]
        assert len(files) > len(SHARED)
    program = sanitize.compiled(kind, width, tmp_path, *options)
    said = sanitize.checked(kind, program, files, 3000 if LONG else 100)
    assert said.endswith(" 0 failures")


@pytest.mark.skipif(not LONG, reason="some minutes of processor time")
@pytest.mark.skipif(sys.platform != "linux", reason="it maps memory as Linux does")
def test_more_elements_than_32_bits_count(tmp_path):
    B, steps, H = 2, 37, 4096
    width = sanitize.widths()[-1]
    program = sanitize.built("large.cc", width, tmp_path / "large", ["-O2"])
    few = 2048  # twice as many as lie in the memory of an array
    many = (2**31 // (B * H) // few + 1) * few
    calls = of_one_matrix(B, steps, H)
    assert len(calls) == 5  # forward twice, back, gradients of the matrix and of x
    for i, call in enumerate(calls):
        write(call, tmp_path / f"{i}.case")
        command = [program, tmp_path / f"{i}.case", *map(str, (steps, few, many))]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, (i, ran)
        assert ran.stdout == f"at most {many * B * H} elements, 0 unlike\n"
