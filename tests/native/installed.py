"""Whether the installed package has the native engine in itself, and runs by it.

For a wheel in an environment that has nothing but it and jax: `make wheels`.
"""

import os

os.environ["JAXSEQ_CACHE"] = "/proc/none"  # nothing can be built

import jax
import jax.numpy as jnp

import jaxseq
from jaxseq._kernels.cpu import build

assert "site-packages" in jaxseq.__file__, jaxseq.__file__
assert build.why_not() is None and build.found() == build.PACKAGED, build.why_not()
assert jaxseq.native_available()
x = jnp.ones((5, 20, 3))
for name in "rnn", "lstm", "gru":
    params = getattr(jaxseq, name + "_init")(jax.random.key(0), 3, 8)
    _, y = getattr(jaxseq, name)(params, x, implementation="native")
    _, plain = getattr(jaxseq, name)(params, x, implementation="scan")
    assert abs(y - plain).max() < 1e-5, name
print("jax", jax.__version__, "runs by the native engine of", build.found())
