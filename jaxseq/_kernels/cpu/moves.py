"""What moves the elements of an array and computes nothing, as views of it."""

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from jaxseq._kernels.cpu.elements import Unknown

MOVES = frozenset(
    "split unstack slice broadcast_in_dim tile reshape squeeze expand_dims transpose"
    " rev".split()
)
MOST_RUNS = 512

Shape = tuple[int, ...]


class View(NamedTuple):
    """Where the elements of an array are: of each axis, how far they are apart."""

    shape: Shape
    strides: Shape
    first: int

    def over(self, axes: Iterable[int]) -> "View":
        """Some of its axes."""
        of = lambda sizes: tuple(sizes[i] for i in axes)
        axes = list(axes)
        return View(of(self.shape), of(self.strides), self.first)

    def firsts(self) -> list[int]:
        """Where each element is."""
        found = [self.first]
        for n, stride in zip(self.shape, self.strides, strict=True):
            found = [a + i * stride for a in found for i in range(n)]
            if len(found) > MOST_RUNS:
                raise Unknown("it cuts rows into too many pieces")
        return found

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Elements that lie side by side: the first, how many, and each how often."""
        pairs = zip(self.shape, self.strides, strict=True)
        axes = [(n, stride) for n, stride in pairs if n != 1]
        length, times = 1, 1
        while axes and axes[-1][1] == length:
            length *= axes.pop()[0]
        while axes and axes[-1][1] == 0 and length == 1:
            times *= axes.pop()[0]
        outer = View(tuple(n for n, _ in axes), tuple(s for _, s in axes), self.first)
        if length and times:
            yield from ((first, length, times) for first in outer.firsts())


def whole(shape: Shape) -> View:
    sizes = accumulate(reversed(shape), lambda a, b: a * b, initial=1)
    return View(shape, tuple(sizes)[-2::-1], 0)


def moved(e: Any, view: View, shapes: list[Shape]) -> list[View]:
    """What an equation makes of all of an array, of these shapes."""
    name, p = e.primitive.name, e.params
    shape, strides, _ = view
    if name == "split":
        axis, ends = p["axis"], accumulate(map(int, p["sizes"]), initial=0)
        firsts = [a * strides[axis] for a, _ in pairwise(ends)]
        return [View(s, strides, a) for s, a in zip(shapes, firsts, strict=True)]
    if name == "unstack":
        left = [i for i in range(len(shape)) if i != p["axis"]]
        firsts = [i * strides[p["axis"]] for i in range(len(shapes))]
        return [view.over(left)._replace(first=a) for a in firsts]
    if name == "slice":
        steps = p["strides"] or (1,) * len(shape)
        each = zip(strides, p["start_indices"], steps, strict=True)
        starts = zip(strides, p["start_indices"], strict=True)
        first = sum(stride * i for stride, i in starts)
        return [View(shapes[0], tuple(a * step for a, _, step in each), first)]
    if name == "transpose":
        return [view.over(p["permutation"])]
    if name == "rev":
        turned = [d in p["dimensions"] for d in range(len(shape))]
        ends = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
        first = sum(a for a, yes in zip(ends, turned, strict=True) if yes and a > 0)
        signed = zip(strides, turned, strict=True)
        return [View(shape, tuple(-s if yes else s for s, yes in signed), first)]
    if name == "tile":
        each = zip(p["reps"], shape, strict=True)
        sizes = tuple(n for pair in each for n in pair)
        return [View(sizes, tuple(n for s in strides for n in (0, s)), 0)]
    if name == "broadcast_in_dim":
        return [spread(view, shapes[0], p["broadcast_dimensions"])]
    return [whole(shapes[0])]


def spread(view: View, shape: Shape, dims: Iterable[int]) -> View:
    own = [0] * len(shape)
    for i, d in enumerate(dims):
        own[d] = view.strides[i] if view.shape[i] != 1 else 0
    return View(shape, tuple(own), view.first)


def keeps_rows(e: Any, lead: Shape) -> bool:
    """Whether it leaves the axes of rows, the first ones, as they are."""
    n, p, first = len(lead), e.params, tuple(range(len(lead)))
    match e.primitive.name:
        case "split" | "unstack":
            return p["axis"] >= n
        case "slice":
            strides = p["strides"] or (1,) * len(p["limit_indices"])
            limits = p["start_indices"], p["limit_indices"], strides
            return [a[:n] for a in map(tuple, limits)] == [(0,) * n, lead, (1,) * n]
        case "transpose":
            return tuple(p["permutation"][:n]) == first
        case "tile":
            return all(k == 1 for k in p["reps"][:n])
        case "rev":
            return all(d >= n for d in p["dimensions"])
        case "broadcast_in_dim":
            kept = tuple(p["broadcast_dimensions"][:n]) == first
            return kept and e.outvars[0].aval.shape[:n] == lead
    old, new = e.invars[0].aval.shape, e.outvars[0].aval.shape
    return new[:n] == lead and math.prod(old[n:]) == math.prod(new[n:])
