"""Settings of all tests: quick compilation, two CPU devices, float64."""

import mmap
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

# Most of the time of the tests is compilation, so they compile with few optimizations.
# `make test XLA_FLAGS=` compiles as users do; tests/test_defaults.py always does.
QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_parallel_codegen_split_count": "1",
}


def quick_flags() -> str:
    """Those of QUICK that the installed jaxlib knows, as it aborts at any other."""
    spec = find_spec("jaxlib")
    assert spec is not None and spec.origin is not None
    for path in Path(spec.origin).parent.glob("*.so"):
        with open(path, "rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
                known = [name for name in QUICK if library.find(name.encode()) >= 0]
        if known:
            return " ".join(f"--{name}={QUICK[name]}" for name in known)
    return ""


os.environ.setdefault("XLA_FLAGS", quick_flags())

# The workers and the commands that tests start share what one of them has compiled.
# (With JAX_COMPILATION_CACHE_MAX_SIZE each write would read the age of every entry. An
# entry read while it is written does not decompress; JAX warns and compiles it.)
SHARED = "JAX_COMPILATION_CACHE_DIR"
OWN = SHARED not in os.environ and "PYTEST_XDIST_WORKER" not in os.environ
if OWN:
    os.environ[SHARED] = tempfile.mkdtemp(prefix="jaxseq-tests-")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_unconfigure() -> None:
    if OWN:
        shutil.rmtree(os.environ[SHARED], ignore_errors=True)
