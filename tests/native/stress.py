"""Calls of the native kernels from many threads at once, also inside transformations.

python -m tests.native.stress [--calls N] [--threads N] [--seconds N] [NAME ...]

Every result has the same bits as the first one, resident memory does not grow, and all
calls return: what takes longer than so many seconds ends the process with what each of
its threads was doing.
"""

import argparse
import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxseq

MOST_BYTES = 8 << 20  # that resident memory may grow by

native = partial(jaxseq.lstm, implementation="native")


def lstm(B: int, T: int, D: int, H: int) -> tuple[Any, Any]:
    params = jaxseq.lstm_init(jax.random.key(0), D, H)
    x = np.random.default_rng(0).standard_normal((B, T, D))
    return params, jnp.asarray(x, jnp.float32)


def gradient(params: Any, x: Any) -> Any:
    lengths = jnp.arange(x.shape[0]) % (x.shape[1] + 1)
    value = lambda *a: jnp.sum(jnp.sin(native(*a, lengths=lengths)[1]))
    return jax.grad(value, (0, 1))(params, x)


def under_scan(params: Any, x: Any) -> Any:
    step = lambda c, _: (native(params, c)[1] + x, ())
    return lax.scan(step, x, None, 4)[0]


def under_while(params: Any, x: Any) -> Any:
    """As many turns as the values say."""
    step = lambda c: native(params, c)[1] + 1.5 * c
    return lax.while_loop(lambda c: jnp.abs(c).sum() < 50, step, x)


def of_rows(params: Any, x: Any) -> Any:
    return jax.vmap(lambda x: native(params, x)[1])(x)


def of_members(params: Any, x: Any) -> Any:
    several = jax.tree.map(lambda a: jnp.stack([a, a * 0.5]), params)
    return jax.vmap(lambda params: native(params, x)[1])(several)


def sharded(f: Callable[..., Any]) -> Callable[..., Any]:
    def run(params: Any, x: Any) -> Any:
        mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))
        specs = {"in_specs": (P(), P("rows")), "out_specs": P("rows")}
        return jax.shard_map(f, mesh=mesh, **specs)(params, x)

    return run


def of_devices(f: Callable[..., Any]) -> Callable[..., Any]:
    run = jax.pmap(f, in_axes=(None, 0))
    return lambda params, x: run(params, x.reshape(2, -1, *x.shape[1:]))


def both(f: Callable[..., Any]) -> Callable[..., Any]:
    """A loop inside of what each device does."""
    return lambda params, x: f(params, under_scan(params, x))[1]


SMALL, BLOCKS, FEW = (6, 3, 4, 4), (40, 3, 4, 5), (1, 3, 7, 251)
sharded_gradient = sharded(lambda *args: gradient(*args)[1])
# what runs, of which shape, and of how many calls that are asked for one is made: that
# whose columns are split takes a hundred times as long as the others
CASES: dict[str, tuple[Callable[..., Any], tuple[int, int, int, int], int]] = {
    "rows": (jax.jit(native), SMALL, 1),
    "blocks": (jax.jit(native), BLOCKS, 1),
    "columns": (jax.jit(native), FEW, 10),
    "gradient": (jax.jit(gradient), BLOCKS, 1),
    "scan": (jax.jit(under_scan), SMALL, 1),
    "while": (jax.jit(under_while), SMALL, 1),
    "vmap over rows": (jax.jit(of_rows), SMALL, 1),
    "vmap over weights": (jax.jit(of_members), SMALL, 1),
    "shard_map": (jax.jit(sharded(native)), SMALL, 1),
    "gradient in shard_map": (jax.jit(sharded_gradient), SMALL, 1),
    "scan in shard_map": (jax.jit(sharded(both(native))), SMALL, 1),
    "pmap": (of_devices(native), SMALL, 1),
    "scan in pmap": (of_devices(both(native)), SMALL, 1),
}


def resident() -> int:
    """Bytes of memory that this process holds, where Linux tells."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return 0
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def in_threads(run: Callable[[], None], number: int, threads: int) -> None:
    """Calls from several threads that begin together."""
    barrier = threading.Barrier(threads)

    def some(k: int) -> None:
        barrier.wait()
        for _ in range(k, number, threads):
            run()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))


def compared(run: Callable[[], Any]) -> Callable[[], None]:
    """Raises where the bits differ from those of the first call."""
    bits = lambda: [np.asarray(a).tobytes() for a in jax.tree.leaves(run())]
    first = bits()

    def again() -> None:
        if bits() != first:
            raise AssertionError("a call gives other bits than the first")

    return again


def stressed(run: Callable[[], None], calls: int, threads: int) -> int:
    """By how much resident memory has grown, once threads have what they keep."""
    in_threads(run, calls, threads)
    before = resident()
    in_threads(run, calls, threads)
    if (more := resident() - before) > MOST_BYTES:
        raise AssertionError(f"resident memory grows by {more} bytes in {calls} calls")
    return more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, metavar="N")
    parser.add_argument("--threads", type=int, default=8, metavar="N")
    parser.add_argument("--seconds", type=float, default=1800, metavar="N")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if unknown := set(options.names) - {*CASES, "unlike"}:
        print(f"stress: no {sorted(unknown)} among {[*CASES]}", file=sys.stderr)
        sys.exit(2)
    jax.config.update("jax_num_cpu_devices", 2)
    every = []
    for name, (f, shape, less) in CASES.items():
        args = lstm(*shape)
        run = compared(lambda f=f, args=args: f(*args))
        every.append(run)
        if name in (options.names or CASES):
            watched(options, name, run, options.calls // less // 2)
    if "unlike" in (options.names or ["unlike"]):
        turn = iter(range(sys.maxsize))
        unlike = lambda: every[next(turn) % len(every)]()
        watched(options, "unlike", unlike, options.calls // 10)


def watched(options: Any, name: str, run: Callable[[], None], calls: int) -> None:
    faulthandler.dump_traceback_later(options.seconds, exit=True)
    more = stressed(run, max(calls, options.threads), options.threads)
    faulthandler.cancel_dump_traceback_later()
    print(f"{name}: twice {calls} calls, {more >> 10} KiB more", flush=True)


if __name__ == "__main__":
    main()
