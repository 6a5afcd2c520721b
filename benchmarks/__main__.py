"""`python -m benchmarks`: measures and appends rows to results/<device>.jsonl."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import jax

from benchmarks.check import expected
from benchmarks.contenders import CONTENDERS, load
from benchmarks.device import commit, device_name, find_device
from benchmarks.errors import UsageError
from benchmarks.measure import Row, measure
from benchmarks.problem import draw
from benchmarks.shapes import MODES, OPS, SHAPES, flops

RESULTS = Path(__file__).parent / "results"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def some_of(names: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        for name in text.split(","):
            if name not in names:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is not one of {', '.join(names)}"
                )
        return [n for n in names if n in text.split(",")]

    return parse


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    shapes = list(map(str, SHAPES))
    lists = {"ops": OPS, "modes": MODES, "contenders": tuple(CONTENDERS)}
    for name, all_names in lists.items():
        parser.add_argument(
            f"--{name}",
            type=some_of(all_names),
            default=list(all_names),
            metavar="A,B",
            help=f"some of {', '.join(all_names)} (default: all)",
        )
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=shapes,
        default=shapes,
        metavar="B,T,D,H",
        help=f"some of {' '.join(shapes)} (default: all)",
    )
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    platforms = ("cpu", "gpu", "tpu")
    parser.add_argument("--platform", choices=platforms, default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"argument --rounds: at least 1, got {options.rounds}")
    return options


def show(row: Row, base: float | None) -> str:
    name, ms = row["contender"], row["median_ms"]
    if ms is None:
        return f"    {name:8} not timed: {row['reason']}"
    ratio = f"  {ms / base:5.2f} of jaxseq's" if base else ""
    return f"    {name:8} {ms:9.3f} ms ± {row['iqr_ms']:.3f}{ratio}"


def run(options: argparse.Namespace, contenders: dict[str, Any], device: Any) -> None:
    path = options.results / f"{device_name(device)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    start = datetime.now(UTC)
    header = {"device": device_name(device), "commit": commit()}
    shapes = [s for s in SHAPES if str(s) in options.shapes]
    todo = [(o, s, m) for o in options.ops for s in shapes for m in options.modes]
    total, done, began = sum(flops(o, m, s) for o, s, m in todo), 0, time.monotonic()
    print(f"{len(todo)} measurements of {', '.join(contenders)} to {path}")
    for i, (op, shape, mode) in enumerate(todo):
        print(f"[{i + 1}/{len(todo)}] {op} {mode} {shape}", flush=True)
        problem = draw(op, shape)
        want = expected(problem, mode)
        rows = measure(problem, mode, want, contenders, device, options.rounds)
        now = datetime.now(UTC)
        stamp = {"time": f"{now:%FT%TZ}", "run": f"{start:%Y%m%dT%H%M%SZ}"}
        with path.open("a") as file:
            file.writelines(json.dumps({**r, **header, **stamp}) + "\n" for r in rows)
        base = next((r["median_ms"] for r in rows if r["contender"] == "jaxseq"), None)
        print("\n".join(show(row, base) for row in rows))
        done += flops(op, mode, shape)
        left = (time.monotonic() - began) * (total / done - 1)
        print(f"    about {left / 60:.0f} min left", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(argv)
        device = find_device(options.platform)
        contenders = {n: load(n, options.platform) for n in options.contenders}
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    # a cached program would have no compile time; float32 means float32 everywhere
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            run(options, contenders, device)
    except OSError as error:
        print(f"benchmarks: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
