"""Rows of an update as columns, and what is computed of them as nodes of a graph.

A value is a list of pieces that lie side by side, each a node and how many elements of
a row it has. So `split`, `slice`, `concatenate` and `pad` cost nothing. A piece is cut
by cutting what it is computed from, down to the arrays.
"""

from collections import defaultdict
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp


class Piece(NamedTuple):
    node: int
    length: int


Value = list[Piece]
Key = tuple[str, int]  # what an array is, such as ("state", 0)

HALVES = "bfloat16", "float16"
# How often the value of a node changes: never; once a call, with the weights of the
# update; at every step, for all rows alike; in every row.
CONSTANT, FIXED, STEP, ROW = range(4)
ORDERLESS = frozenset(
    "add mul max min and or xor eq ne iadd imul imax imin ieq".split()
)


class Graph:
    """Nodes `(op, operands)`; those of arrays are `("at", key, first, length)`."""

    def __init__(self, cuts: dict[Key, set[int]]):
        self.nodes: list[Any] = []
        self.known: dict[Any, int] = {}
        self.levels: list[int] = []  # one of those above
        # whether a node is one number of a row, and may have any length
        self.single: list[bool] = []
        self.of_arrays: dict[Key, int] = {}  # their levels; ROW without
        self.parts: dict[Any, int] = {}
        self.cuts = cuts  # where the columns of each array begin, but the first
        self.wanted: dict[Key, set[int]] = defaultdict(set)  # cuts that are not there

    def node(self, *key: Any) -> int:
        kind, *rest = key
        name = (kind, str(rest)) if kind == "constant" else key  # 0 is not -0
        if name not in self.known:
            self.known[name] = len(self.nodes)
            self.nodes.append(key)
            level, single = CONSTANT, kind != "at"
            if kind == "at":
                level = self.of_arrays.get(rest[0], ROW)
            elif kind != "constant":
                level = max(self.levels[a] for a in rest)
                single = kind == "spread" or all(self.single[a] for a in rest)
            self.levels.append(level)
            self.single.append(single)
        return self.known[name]

    def array(self, key: Key, width: int, level: int = ROW) -> Value:
        """All of an array, in its columns."""
        self.of_arrays.setdefault(key, level)
        edges = [0, *sorted(self.cuts.get(key, ())), width]
        pairs = pairwise(edges)
        return [Piece(self.node("at", key, a, b - a), b - a) for a, b in pairs]

    def constant(self, x: float, width: int) -> Value:
        return [Piece(self.node("constant", x), width)] if width else []

    def number(self, node: int) -> float | None:
        kind, *rest = self.nodes[node]
        return rest[0] if kind == "constant" else None

    def is_uniform(self, value: Value) -> bool:
        """Whether it is one number, known now, for all elements of all rows."""
        return len(value) == 1 and self.levels[value[0].node] == CONSTANT

    def operate(self, op: str, *args: Value) -> Value:
        """An operation, element by element, of values of one width."""
        edges = sorted({e for a in args for e in edges_of(a)})
        rows = zip(*(self.cut(a, edges) for a in args), strict=True)
        return [
            Piece(self.apply(op, *(p.node for p in row)), row[0].length) for row in rows
        ]

    def apply(self, op: str, *nodes: int) -> int:
        """A node, folded where that changes no result."""
        a, b = (*nodes, None, None)[:2]
        x = None if a is None else self.number(a)
        y = None if b is None else self.number(b)
        if op == "neg" and x is not None:
            return self.node("constant", -x)
        if (op in ("mul", "div") and y == 1) or op == "copy":
            return nodes[0]
        if op in HALVES and x is not None:
            return self.node("constant", float(jnp.dtype(op).type(x)))
        if op in HALVES and self.nodes[nodes[0]][0] == op:
            return nodes[0]
        if op == "mul" and x == 1:
            return nodes[1]
        if op == "sub" and y == 0 and str(y) == "0.0":  # x - 0 is x, of -0 too
            return nodes[0]
        if op in ORDERLESS:
            nodes = tuple(sorted(nodes))
        return self.node(op, *nodes)

    def cut(self, value: Value, edges: Any) -> Value:
        """The same value in pieces that end at these edges too."""
        pieces, first = [], 0
        for p in value:
            inside = [e for e in edges if first < e < first + p.length]
            ends = zip([first, *inside], [*inside, first + p.length], strict=True)
            for a, b in ends:
                pieces.append(Piece(self.part(p, a - first, b - a), b - a))
            first += p.length
        return pieces

    def part(self, piece: Piece, first: int, length: int) -> int:
        """The node of some elements of a piece."""
        op, *args = self.nodes[piece.node]
        if length == piece.length or self.single[piece.node]:
            return piece.node
        if op == "at":
            key, start, _ = args
            self.wanted[key] |= {start + first, start + first + length}
            return self.node("at", key, start + first, length)
        name = (piece, first, length)
        if name not in self.parts:
            whole = piece.length
            parts = [self.part(Piece(a, whole), first, length) for a in args]
            self.parts[name] = self.node(op, *parts)
        return self.parts[name]

    def slice(self, value: Value, first: int, last: int) -> Value:
        pieces, at = [], 0
        for p in self.cut(value, [first, last]):
            if first <= at and at + p.length <= last:
                pieces.append(p)
            at += p.length
        return pieces


def edges_of(value: Value) -> set[int]:
    """Where pieces end, but the last."""
    edges, at = set(), 0
    for p in value[:-1]:
        at += p.length
        edges.add(at)
    return edges


def width_of(value: Value) -> int:
    return sum(p.length for p in value)
