"""What chips send each other, read from compiled HLO."""

import re
from collections import defaultdict
from collections.abc import Iterator
from math import prod
from typing import NamedTuple

KINDS = "all-reduce all-gather all-to-all collective-permute reduce-scatter".split()
CALL = re.compile(rf" ({'|'.join(KINDS)})(?:-start)?\(")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4}


class Collective(NamedTuple):
    kind: str
    dtype: str
    loop: bool  # whether it runs once for each step of a loop
    bytes: int  # of its result


def computations(text: str) -> Iterator[tuple[str, str]]:
    """Each line of compiled HLO, and the computation that it stands in."""
    name = ""
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.-]+) .*\{$", line):
            name = head[1]
        yield name, line


def in_loops(text: str) -> set[str]:
    """The computations that run once for each step of some loop."""
    calls, todo = defaultdict(set), []
    for name, line in computations(text):
        todo += re.findall(r"(?:body|condition)=%?([\w.-]+)", line)
        calls[name] |= {*re.findall(r"(?:calls|to_apply)=%?([\w.-]+)", line)}
        for names in re.findall(r"(?:branch_computations|calls)=\{(.*?)\}", line):
            calls[name] |= {*re.findall(r"%?([\w.-]+)", names)}
        calls[name] |= {*re.findall(r"(?:body|condition)=%?([\w.-]+)", line)}
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += calls[name]
    return found


def collectives(text: str) -> list[Collective]:
    """Of each array that is sent one; those of a tuple are sent together."""
    loops, found = in_loops(text), []
    for name, line in computations(text):
        if not (match := CALL.search(line)):
            continue
        given = line[: match.start()]  # what it gives, by name, dtype and shape
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", given):
            size = BYTES.get(dtype, 8) * prod(map(int, filter(None, shape.split(","))))
            found.append(Collective(match[1], dtype, name in loops, size))
    return found


def wrong(sent: list[Collective]) -> list[str]:
    """What a data-parallel step has no need to send."""
    found = {f"{each.kind} in a loop" for each in sent if each.loop}
    found |= {each.kind for each in sent if each.kind != "all-reduce"}
    found |= {f"{each.dtype} sums" for each in sent if each.dtype in ("bf16", "f16")}
    return sorted(found)
