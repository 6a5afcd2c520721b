"""The native kernels under the sanitizers of the compiler, without XLA."""

import os

import pytest

from tests.native import sanitize
from tests.native.cases import write_all

pytestmark = pytest.mark.usefixtures("native_library")
LONG = "JAXSEQ_TEST_UPDATES" in os.environ  # as make test-long sets it


@pytest.mark.parametrize("width", sanitize.widths() if LONG else [16])
@pytest.mark.parametrize("kind", sanitize.SANITIZERS if LONG else ["memory"])
def test_it_finds_no_fault(kind, width, tmp_path):
    program = sanitize.compiled(kind, width, tmp_path)
    files = write_all(tmp_path, 1 if LONG else 5)
    said = sanitize.checked(kind, program, files, 1000 if LONG else 100)
    assert said.endswith(" 0 failures")
