"""`python -m benchmarks.long`: memory and time of the gradient of a long LSTM.

Plain autodiff of the scan beside `remat=`, float32: at (B,T,H) = (8,16384,64) in one
interleaved run, gradients compared first, and `remat` alone at T = 131072.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxseq
from benchmarks.device import commit, device_name, find_device
from benchmarks.timing import interleave, median_iqr

RESULTS = Path(__file__).parent / "results" / "long"
B, H = 8, 64
PLAIN: dict[str, Any] = {"implementation": "scan"}


def gradient(params: Any, x: jax.Array, dy: jax.Array, **options: Any) -> Any:
    """`y` and the gradients of the weights and of x, for that of y."""
    y, pullback = jax.vjp(lambda *args: jaxseq.lstm(*args, **options)[1], params, x)
    return y, *pullback(dy)


def measure(T: int, cases: Sequence[dict[str, Any]], rounds: int) -> list[Any]:
    x, dy = np.random.default_rng(0).standard_normal((2, B, T, H), np.float32)
    args = jaxseq.lstm_init(jax.random.key(0), H, H), jnp.asarray(x), jnp.asarray(dy)
    compiled = [
        jax.jit(partial(gradient, **options)).lower(*args).compile()
        for options in cases
    ]
    want = jax.tree.leaves(compiled[0](*args))
    for f in compiled[1:]:
        for a, b in zip(jax.tree.leaves(f(*args)), want, strict=True):
            error = float(jnp.abs(a - b).max() / jnp.abs(b).max())
            if not error < 1e-4:
                raise SystemExit(f"benchmarks: gradients differ by {error:.1e}")
    runs = {
        str(i): partial(lambda f: jax.block_until_ready(f(*args)), f)
        for i, f in enumerate(compiled)
    }
    times = interleave(runs, rounds)
    rows = []
    for i, (options, f) in enumerate(zip(cases, compiled, strict=True)):
        memory = f.memory_analysis()
        temp = None if memory is None else memory.temp_size_in_bytes / 1e6
        ms, iqr = median_iqr(times[str(i)])
        head = {"op": "lstm", "B": B, "T": T, "H": H, "remat": options.get("remat")}
        rows.append({**head, "temp_mb": temp, "median_ms": ms, "iqr_ms": iqr})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(argv)
    device = find_device("cpu")
    path = options.results / f"{device_name(device)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    pieces = [{"remat": K} for K in (64, 128, 256)]
    with jax.default_device(device):
        rows = measure(16384, [PLAIN, *pieces], options.rounds)
        rows += measure(131072, [{"remat": 256}], options.rounds)
    with path.open("a") as file:
        for row in rows:
            line = {**row, "rounds": options.rounds, "commit": commit()}
            file.write(json.dumps({**line, "jax": jax.__version__}) + "\n")
            name = f"remat={row['remat']}" if row["remat"] else "scan"
            figures = f"{row['temp_mb']:8.1f} MB {row['median_ms']:9.1f} ms"
            print(f"T={row['T']:6} {name:10} {figures} ± {row['iqr_ms']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
