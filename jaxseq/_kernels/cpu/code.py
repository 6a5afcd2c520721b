"""Nodes of a graph as instructions over registers."""

from collections import Counter
from typing import Any, NamedTuple

from jaxseq._kernels.cpu.columns import CONSTANT, Graph
from jaxseq._kernels.cpu.elements import OPS, Unknown

MOST_REGISTERS = 255  # of src/plan.h, less one
CODE = {name: i for i, name in enumerate(OPS)}


class Run(NamedTuple):
    """Registers are places, constants, what is computed of those once, temporaries."""

    length: int
    places: list[Any]
    constants: list[float]
    temporaries: int
    code: list[tuple[int, int, int, int, int]]  # op, result, operands
    once: int  # how many of the first instructions are run once, of constants


def run_of(
    graph: Graph,
    length: int,
    roots: Any,
    computed: dict[int, Any],
    place: Any,
    once: bool = True,
) -> Run:
    """What computes some nodes: those in `computed`, unless it says where they are.

    `roots` are pairs of a node and the place that it is written to. What is computed of
    constants is computed `once`, if there are registers to keep it.
    """
    inputs: dict[int, Any] = {n: p for n, p in computed.items() if p is not None}
    nodes = {n: graph.nodes[n] for n in sorted(computed) if computed[n] is None}
    nodes = fused(graph, nodes, {n for n, _ in roots})
    read = {a for _, *args in nodes.values() for a in args} | {n for n, _ in roots}
    for n in sorted(read):
        op, *args = graph.nodes[n]
        if op == "at":
            inputs[n] = place(args[0], args[1], False)
    inputs = {n: p for n, p in inputs.items() if n in read}
    constants = sorted(n for n in read if graph.nodes[n][0] == "constant")
    places = [*inputs.values(), *(p for _, p in roots)]
    register = dict(zip(inputs, range(len(inputs)), strict=True))
    first = len(places)
    register |= {n: first + i for i, n in enumerate(constants)}
    first += len(constants)
    first_ones = [n for n in nodes if once and graph.levels[n] == CONSTANT]
    register |= {n: first + i for i, n in enumerate(first_ones)}
    first += len(first_ones)
    nodes = {n: nodes[n] for n in first_ones} | nodes
    to: dict[int, int] = {}
    copies = []
    for i, (n, _) in enumerate(roots):
        if n in register or n in to:
            copies.append((len(inputs) + i, n))
        else:
            to[n] = len(inputs) + i
    last = {a: t for t, (_, *args) in enumerate(nodes.values()) for a in args}
    last |= {n: len(nodes) for _, n in copies}
    free: list[int] = []
    temporaries, code = 0, []
    for t, (n, (op, *args)) in enumerate(nodes.items()):
        op = "copy" if op == "spread" and length == 1 else op
        operands = [register[a] for a in args]
        # a register may be written where it is read for the last time
        for a in set(args):
            if last[a] == t and register[a] >= first:
                free.append(register[a])
        if n in register:  # what is computed once has a register already
            pass
        elif n in to:
            register[n] = to[n]
        elif free:
            register[n] = free.pop()
        else:
            register[n] = first + temporaries
            temporaries += 1
        a, b, c = (operands + [operands[0]] * 3)[:3]
        code.append((CODE[op], register[n], a, b, c))
    for i, n in copies:
        code.append((CODE["copy"], i, *[register[n]] * 3))
    if first + temporaries > MOST_REGISTERS:
        if first_ones:
            return run_of(graph, length, roots, computed, place, False)
        raise Unknown(f"the update needs {first + temporaries} registers")
    values = [graph.nodes[n][1] for n in constants]
    return Run(length, places, values, temporaries, code, len(first_ones))


def fused(graph: Graph, nodes: dict[int, Any], kept: set[int]) -> dict[int, Any]:
    """With what only one node reads as a part of it, if an instruction has both."""
    uses = Counter(a for _, *args in nodes.values() for a in args)
    out: dict[int, Any] = {}

    def inside(n: int) -> tuple[Any, ...]:
        is_part = n in out and uses[n] == 1 and n not in kept
        return out[n] if is_part else ("",)

    def whole(op: str, a: int, b: int) -> Any:
        """The node with its part, and that."""
        if op in ("add", "sub"):
            for part, other, kind in ((b, a, "fnma"), (a, b, "fms")):
                if inside(part)[0] == "mul":
                    return (
                        kind if op == "sub" else "fma",
                        *inside(part)[1:],
                        other,
                    ), part
        if op == "mul":
            for part, other in ((b, a), (a, b)):
                kind, *args = inside(part)
                if kind == "sub" and graph.number(args[0]) == 1:
                    return ("rest", other, args[1]), part
                if kind == "rest":
                    return ("rests", *args, other), part
        return None

    for n, (op, *args) in nodes.items():
        out[n] = (op, *args)
        if found := whole(op, *args) if len(args) == 2 else None:
            out[n], part = found
            del out[part]
    return out
