"""The native kernels under the sanitizers of the compiler, without XLA."""

import os

import pytest

from tests.native import sanitize
from tests.native.cases import write_all

pytestmark = pytest.mark.usefixtures("native_library")
LONG = "JAXSEQ_TEST_UPDATES" in os.environ  # as make test-long sets it


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("cases"), 1 if LONG else 6)


@pytest.mark.parametrize("width", sanitize.widths() if LONG else [16])
@pytest.mark.parametrize("kind", sanitize.SANITIZERS if LONG else ["memory"])
def test_it_finds_no_fault(kind, width, files, tmp_path):
    program = sanitize.compiled(kind, width, tmp_path)
    said = sanitize.checked(kind, program, files, 3000 if LONG else 100)
    assert said.endswith(" 0 failures")
