"""Settings of all tests: quick compilation, two CPU devices, float64."""

import functools
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

# Most of the time of the tests is compilation, so they compile with few optimizations.
# `make test XLA_FLAGS=` compiles as users do, and `make test-defaults`.
QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def known(flags: tuple[str, ...]) -> str:
    """Those that the installed XLA knows, as it aborts the process at any other."""
    client = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    while True:
        joined = " ".join(flags)
        environment = {**os.environ, "XLA_FLAGS": joined}
        command = [sys.executable, "-c", client]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ran.returncode == 0:
            return joined
        left = tuple(flag for flag in flags if flag not in ran.stderr)
        if len(left) == len(flags):
            raise RuntimeError(f"XLA does not start:\n{ran.stderr}")
        flags = left


if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = known(QUICK)
quick = QUICK[0] in os.environ["XLA_FLAGS"]
# only `make test-defaults` and `make test-long`, which compile as users do, run it
collect_ignore = ["test_defaults.py"] if quick else []

# The workers and the commands that tests start share what one of them has compiled.
# (With JAX_COMPILATION_CACHE_MAX_SIZE each write would read the age of every entry. An
# entry read while it is written does not decompress; JAX warns and compiles it.)
SHARED = "JAX_COMPILATION_CACHE_DIR"
OWN = SHARED not in os.environ and "PYTEST_XDIST_WORKER" not in os.environ
# What takes less is compiled sooner than it is written, or in one run not read again.
least = "0.2" if OWN else "0.05"
if OWN:
    os.environ[SHARED] = tempfile.mkdtemp(prefix="jaxseq-tests-")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", least)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# what the Makefile installs apart
sys.path.append(str(Path(sys.prefix) / "jax2onnx"))

import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src import compilation_cache, compiler  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")


# One MLIR context for all programs: JAX makes one for each, which takes 5 ms and is
# kept as long as the program.
if quick and hasattr(mlir, "make_ir_context"):
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)


def compile_once(most: int = 500) -> None:
    """Keeps what a process compiles, for functions that are made again and again.

    To read it from JAX's cache takes 50 ms, to write it there 20.
    """
    read = compilation_cache.get_executable_and_time
    write = compiler._cache_write
    kept: OrderedDict[str, tuple[Any, Any]] = OrderedDict()

    def keep(key: str, executable: Any, seconds: Any) -> None:
        kept[key] = executable, seconds
        if len(kept) > most:
            kept.popitem(last=False)

    def get(key: str, *more: Any) -> tuple[Any, Any]:
        asked = jax.config.jax_enable_compilation_cache  # not where that is timed
        if asked and key in kept and not any(more[3:]):  # these: host callbacks
            kept.move_to_end(key)
            return kept[key]
        executable, seconds = read(key, *more)
        if executable is not None:
            keep(key, executable, seconds)
        return executable, seconds

    def put(key, seconds, name, backend, executable, *host_callbacks: Any) -> None:
        if not any(host_callbacks):
            keep(key, executable, seconds)
        write(key, seconds, name, backend, executable, *host_callbacks)

    compilation_cache.get_executable_and_time = get
    compiler._cache_write = put


if quick and hasattr(compiler, "_cache_write"):
    compile_once()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "of each test the first case and every Nth after it"
    parser.addoption("--every", type=int, default=1, metavar="N", help=text)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    every, seen = config.getoption("every"), Counter[str]()
    kept, left_out = [], []
    for item in items:
        function = item.nodeid.partition("[")[0]
        mark = item.get_closest_marker("every")
        own = mark.args[0] if quick and mark else 1
        is_long = quick and item.get_closest_marker("long")
        out = is_long or seen[function] % max(every, own)
        (left_out if out else kept).append(item)
        seen[function] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_collection_finish() -> None:
    """Collects garbage seldom: half of a process's objects live as long as it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture
def few_objects() -> None:
    """For a test that collects garbage, or has JAX look for leaks, often.

    Each time would take as long as there are objects, millions after many tests; those
    of before are passed by.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    if OWN:
        shutil.rmtree(os.environ[SHARED], ignore_errors=True)


@pytest.fixture(scope="session")
def native_library():
    """Kernels that a compiler here must be able to build, given a folder for them."""
    from jaxseq._kernels.cpu import build, compilers

    if (reason := build.limit()) is not None:
        no_folder = f"set {build.CACHE}" in reason
        if compilers.compiler() is not None and not no_folder:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def ran(monkeypatch):
    """Lists "forward" or "backward" for each pass that is traced for the kernels."""
    from jaxseq._kernels.cpu import back, call

    found = []
    for module, name in ((call, "forward"), (back, "backward")):
        real = getattr(module, name)
        spy = lambda *a, real=real, name=name: (found.append(name), real(*a))[1]
        monkeypatch.setattr(module, name, spy)
    return found


@pytest.fixture
def refused(monkeypatch):
    """Why passes that are traced are not the native kernels'."""
    from jaxseq._kernels.cpu import limits

    found = []

    def spied(real):
        def why(*args):
            if (reason := real(*args)) is not None:
                found.append(reason)
            return reason

        return why

    for name in ("why_not", "why_not_back"):
        monkeypatch.setattr(limits, name, spied(getattr(limits, name)))
    return found


@pytest.fixture(params=[0, 1, 2], ids=["plain", "avx2", "avx512"])
def vectors(request, monkeypatch):
    """The native kernels, those that this processor has; new programs for each."""
    from jaxseq._kernels.cpu import call

    monkeypatch.setattr(call, "VECTORS", request.param)
    jax.clear_caches()
    yield
    jax.clear_caches()
