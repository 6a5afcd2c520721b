"""What the engine's calls read and write, from the text of a compiled program."""

import math
import re
from typing import NamedTuple

from benchmarks.rows import Row

BYTES = {"f64": 8, "s64": 8, "f32": 4, "s32": 4, "bf16": 2, "f16": 2, "pred": 1}
ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
SHAPE = r"(\((?:[^()]|\([^()]*\))*\)|\S+)"
LINE = re.compile(rf"%?([\w.-]+) = {SHAPE} ([\w-]+)\(([^)]*)\)(.*)")


class Call(NamedTuple):
    """Arrays of a call of the engine, each as `f32[32,128]`."""

    given: list[str]
    results: list[str]


def calls(text: str) -> list[Call]:
    """Of the engine, in a compiled program."""
    lines = [m.groups() for m in map(LINE.search, text.splitlines()) if m]
    shapes = {name: shape for name, shape, *_ in lines}
    found = []
    for _, shape, op, operands, more in lines:
        if op == "custom-call" and '"jaxseq_native' in more:
            names = re.findall(r"%([\w.-]+)", operands)
            given = [a for name in names for a in arrays(shapes[name])]
            found.append(Call(given, arrays(shape)))
    return found


def arrays(shape: str) -> list[str]:
    return [f"{kind}[{sizes}]" for kind, sizes in ARRAY.findall(shape)]


def size(array: str) -> int:
    """In bytes."""
    kind, sizes = array.rstrip("]").split("[")
    return BYTES[kind] * math.prod(int(n) for n in sizes.split(",") if n)


def traffic(text: str) -> Row:
    """Megabytes that the calls are given and that they return.

    An array counts once in each call that it is given to or that returns it.
    """
    found = calls(text)
    total = lambda some: sum(size(a) for each in some for a in each) / 1e6
    return {
        "read_mb": total(call.given for call in found),
        "write_mb": total(call.results for call in found),
    }
