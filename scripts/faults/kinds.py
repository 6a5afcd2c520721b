"""The faults that can be planted in a source file.

Each is one expression or statement replaced by another, inside a function. Texts,
annotations, assertions and messages are left alone, for no test should notice them.
"""

import ast
import functools
import random
from collections import Counter
from itertools import pairwise
from typing import Any, NamedTuple

# called by any of these names, the function is replaced by the other of the pair
PAIRS = [
    "sigmoid tanh", "maximum minimum", "argmax argmin", "max min", "any all",
    "zeros ones", "zeros_like ones_like", "tril triu", "cos sin", "sum mean",
    "exp expm1", "log log1p", "logaddexp maximum", "log_softmax softmax", "floor ceil",
]  # fmt: skip
OTHER = {a: b for pair in PAIRS for a, b in (pair.split(), pair.split()[::-1])}
NN = {"sigmoid", "softmax", "log_softmax"}  # not in jax.numpy
CHOICES = {"where", "select", "cond"}
MASKS = {"mask", "valid", "keep", "lengths", "resets", "before"}
# kinds of fault that any program has
GENERAL = {"comparison", "condition", "operator", "constant", "statement"}
OPERATORS: dict[type, str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/",
    ast.BitAnd: "|", ast.BitOr: "&",
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=",
    ast.NotEq: "==", ast.In: "not in", ast.NotIn: "in", ast.Is: "is not",
    ast.IsNot: "is",
}  # fmt: skip


class Fault(NamedTuple):
    """`old` at bytes `start` to `end` of the source becomes `new`."""

    kind: str
    function: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def plant(self, source: str) -> str:
        text = source.encode()
        return (text[: self.start] + self.new.encode() + text[self.end :]).decode()


class Finder(ast.NodeVisitor):
    def __init__(self, source: str):
        self.source = source.encode()
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.functions: list[str] = []
        self.inside = False
        self.found: list[Fault] = []

    def span(self, node: ast.AST) -> tuple[int, int]:
        n: Any = node
        start = self.starts[n.lineno - 1] + n.col_offset
        return start, self.starts[n.end_lineno - 1] + n.end_col_offset

    def text(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

    def whole(self, node: ast.AST) -> str:
        """The text of an expression, in brackets if other operators could split it."""
        simple = ast.Name | ast.Constant | ast.Call | ast.Attribute | ast.Subscript
        text = self.text(node)
        return text if isinstance(node, simple) else f"({text})"

    def fault(self, kind: str, node: Any, new: str, end: int | None = None) -> None:
        """`new` in place of a node, or of all from there to `end`."""
        start, end = self.span(node)[0], end or self.span(node)[1]
        old = self.source[start:end].decode()
        if self.inside and new != old:
            function = ".".join(self.functions)
            self.found.append(Fault(kind, function, node.lineno, start, end, old, new))

    # where no faults are

    def visit_JoinedStr(self, node: ast.AST) -> None:
        pass

    visit_Assert = visit_Raise = visit_JoinedStr

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.functions.append(node.name)
        inside, self.inside = self.inside, False
        for statement in node.body:
            self.visit(statement)
        self.inside = inside
        self.functions.pop()

    # functions and statements

    def visit_FunctionDef(self, node: Any) -> None:
        self.functions.append(node.name)
        inside, self.inside = self.inside, True
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self.inside = inside
        self.functions.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.body)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Tuple) and not isinstance(node.value, ast.Tuple):
                self.swap("gates", target.elts)
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if isinstance(node.value, ast.Tuple):
            self.swap("order", node.value.elts)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and called(node.value) != "__init__":
            name = called(node.value)
            kind = "check" if "check" in name or name == "error" else "statement"
            self.fault(kind, node, "pass")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.body[-1], ast.Raise):
            self.fault("check", node.test, "False")
        self.negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Compare):  # which has faults of its own
            self.fault("condition", test, f"not {self.whole(test)}")

    # expressions

    def visit_BinOp(self, node: ast.BinOp) -> None:
        left, right = self.whole(node.left), self.whole(node.right)
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.BitAnd | ast.BitOr):
            self.fault("term", node, left)
        if isinstance(node.op, ast.Add | ast.Mult | ast.BitAnd | ast.BitOr):
            self.fault("term", node, right)
        if type(node.op) in OPERATORS:
            self.fault("operator", node, f"{left} {OPERATORS[type(node.op)]} {right}")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            left, right = self.whole(node.left), self.whole(node.comparators[0])
            new = f"{left} {OPERATORS[type(node.ops[0])]} {right}"
            self.fault("comparison", node, new)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for i in range(len(node.values)):
            rest = [self.whole(v) for j, v in enumerate(node.values) if j != i]
            word = " and " if isinstance(node.op, ast.And) else " or "
            self.fault("condition", node, f"({word.join(rest)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        operand = node.operand
        if isinstance(node.op, ast.Not | ast.Invert):
            self.fault("mask", node, self.whole(operand))
        if isinstance(node.op, ast.USub) and isinstance(operand, ast.Constant):
            n = ast.literal_eval(operand)
            self.fault("shift", node, "-1" if n == 2 else f"-{n + 1}")
        else:
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.fault("constant", node, str(not node.value))
        elif isinstance(node.value, int):
            n = node.value
            self.fault("shift", node, "0" if n == 1 else str(n + 1))
        elif isinstance(node.value, float):
            self.fault("constant", node, repr(2 * node.value or 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        name, args = called(node), node.args
        if name == "check" and args:  # the others of its arguments are the message
            return self.visit(args[0])
        starred = any(isinstance(a, ast.Starred) for a in args)
        if name in OTHER:
            other = OTHER[name]
            before = "jax.nn." if other in NN else self.text(node.func)[: -len(name)]
            self.fault("function", node.func, before + other)
        if name in CHOICES and len(args) > 1 and not starred:
            self.swap("mask", args[1:])
            self.fault("mask", node, self.whole(args[1]))
        elif name == "concatenate" and args and isinstance(args[0], ast.List):
            self.swap("order", args[0].elts)
        elif name[:1].isupper() and not starred:
            self.swap("order", args)
        if name == "split" and "random" in self.text(node.func):
            n = self.whole(args[1]) if len(args) > 1 else "2"
            self.fault("key", node, f"([{self.text(args[0])}] * {n})")
        if name == "fold_in":
            self.fault("key", node, self.whole(args[0]))
        kept = updated(node)
        if kept is not None:
            self.fault("stale", node, self.whole(kept))
        for arg in args:
            if isinstance(arg, ast.Name | ast.Attribute) and last(arg) in MASKS:
                self.fault("mask", arg, "None")
        if not name.startswith("check"):
            for keyword in node.keywords:
                self.keyword(node, keyword)
        self.generic_visit(node)

    def keyword(self, call: ast.Call, keyword: ast.keyword) -> None:
        value, name = keyword.value, keyword.arg
        if name is None or (isinstance(value, ast.Constant) and value.value is None):
            return
        if name == "reverse":
            self.fault("reverse", value, f"not {self.whole(value)}")
        elif isinstance(value, ast.Name | ast.Attribute) and last(value) == name:
            self.fault("argument", value, "None")  # handed on
        elif name != "name":
            end = self.span(keyword)[1]
            rest = self.source[end : self.span(call)[1]]
            comma = len(rest) - len(rest.lstrip(b" \n,"))
            self.fault("argument", keyword, "", end + comma)

    def swap(self, kind: str, nodes: list[Any]) -> None:
        """Each two neighbours; a constant or a list in another's place is no fault."""
        fixed = ast.Constant | ast.Starred | ast.List | ast.Tuple
        for a, b in pairwise(nodes):
            (_, middle), (later, end) = self.span(a), self.span(b)
            between = self.source[middle:later].decode()
            movable = not (isinstance(a, fixed) or isinstance(b, fixed))
            if self.inside and movable and between.strip() == ",":  # no brackets
                self.fault(kind, a, self.text(b) + between + self.text(a), end)


def called(call: ast.Call) -> str:
    return last(call.func)


def last(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def updated(call: ast.Call) -> ast.expr | None:
    """What a call makes a newer one of, if it does."""
    match call.func:
        case ast.Attribute(value=value, attr="astype" | "_replace"):
            return value
        case ast.Attribute(attr="stop_gradient" | "dynamic_update_slice"):
            return call.args[0] if call.args else None
        case ast.Attribute(ast.Subscript(ast.Attribute(value, "at")), "set" | "add"):
            return value
    return None


def faults(source: str) -> list[Fault]:
    """All faults of a source, in its order."""
    finder = Finder(source)
    finder.visit(ast.parse(source))
    by_place = {(f.start, f.end, f.new): f for f in finder.found}
    return [by_place[place] for place in sorted(by_place)]


@functools.cache
def program(source: str) -> str | None:
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return None


def differs(source: str, fault: Fault) -> bool:
    """Whether the faulty source is Python still, and another program."""
    return program(fault.plant(source)) not in (None, program(source))


def choose(source: str, count: int, seed: int) -> list[Fault]:
    """A fixed sample, spread evenly over functions and kinds."""
    left = faults(source)
    random.Random(seed).shuffle(left)
    left.sort(key=lambda f: f.kind in GENERAL)  # these where the others are used up
    used: Counter[str] = Counter()
    chosen = []
    while left and len(chosen) < count:
        best = min(left, key=lambda f: used[f.function] + used[f.kind])
        left.remove(best)
        if differs(source, best):
            used.update([best.function, best.kind])
            chosen.append(best)
    return sorted(chosen, key=lambda f: f.start)


def shares(sizes: dict[Any, int], count: int) -> dict[Any, int]:
    """How many of `count` faults each file gets: by its size, and one at least."""
    total = sum(sizes.values())
    got = {name: 1 for name, size in sizes.items() if size}
    while sum(got.values()) < min(count, total):
        lacks = lambda name: sizes[name] * count / total - got[name]
        got[max((n for n in got if got[n] < sizes[n]), key=lacks)] += 1
    return got
