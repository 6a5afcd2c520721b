"""Nodes of a graph as instructions over registers."""

from typing import Any, NamedTuple

from jaxseq._kernels.cpu.columns import Graph
from jaxseq._kernels.cpu.elements import OPS, Unknown

MOST_REGISTERS = 255  # of src/program.h, less one
CODE = {name: i for i, name in enumerate(OPS)}


class Run(NamedTuple):
    """Registers are places, then constants, then temporaries."""

    length: int
    places: list[Any]
    constants: list[float]
    temporaries: int
    code: list[tuple[int, int, int, int, int]]  # op, result, operands


def run_of(
    graph: Graph, length: int, roots: Any, computed: dict[int, Any], place: Any
) -> Run:
    """What computes some nodes: those in `computed`, unless it says where they are.

    `roots` are pairs of a node and the place that it is written to.
    """
    inputs: dict[int, Any] = {n: p for n, p in computed.items() if p is not None}
    nodes = {n: graph.nodes[n] for n in sorted(computed) if computed[n] is None}
    read = {a for _, *args in nodes.values() for a in args} | {n for n, _ in roots}
    for n in sorted(read):
        op, *args = graph.nodes[n]
        if op == "at":
            inputs[n] = place(args[0], args[1], False)
    inputs = {n: p for n, p in inputs.items() if n in read}
    constants = sorted(n for n in read if graph.nodes[n][0] == "constant")
    nodes = fused(nodes, {n for n, _ in roots})
    places = [*inputs.values(), *(p for _, p in roots)]
    register = dict(zip(inputs, range(len(inputs)), strict=True))
    first = len(places)
    register |= {n: first + i for i, n in enumerate(constants)}
    first += len(constants)
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
        operands = [register[a] for a in args]
        # a register may be written where it is read for the last time
        for a in set(args):
            if last[a] == t and register[a] >= first:
                free.append(register[a])
        if n in to:
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
        raise Unknown(f"the update needs {first + temporaries} registers")
    values = [graph.nodes[n][1] for n in constants]
    return Run(length, places, values, temporaries, code)


def fused(nodes: dict[int, Any], kept: set[int]) -> dict[int, Any]:
    """With products that only one sum reads as a part of it."""
    uses: dict[int, int] = {}
    for _, *args in nodes.values():
        for a in args:
            uses[a] = uses.get(a, 0) + 1
    out, inside = {}, set()
    for n, (op, *args) in nodes.items():
        out[n] = (op, *args)
        if op not in ("add", "sub"):
            continue
        for i in (1, 0):
            product = nodes.get(args[i], ("",))
            if product[0] == "mul" and uses[args[i]] == 1 and args[i] not in kept:
                kind = "fma" if op == "add" else "fnma" if i else "fms"
                out[n] = (kind, *product[1:], args[1 - i])
                inside.add(args[i])
                break
    return {n: node for n, node in out.items() if n not in inside}
