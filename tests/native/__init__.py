"""What the tests of the native engine share.

`problems` has small layers and cells and their comparison with the plain scan, `python`
runs code in a process of its own; the fixtures are in `tests/conftest.py`. `calls`,
`cases` and `sanitize` run the kernels without XLA, under sanitizers, and `stress` calls
them from many threads.
"""

import os

LONG = "JAXSEQ_TEST_UPDATES" in os.environ  # as make test-long sets it
