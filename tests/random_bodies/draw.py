"""How values, weights, products and expressions of a given shape are drawn."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]


class Grammar(NamedTuple):
    """What is drawn from: each makes a value of the given shape.

    Products and operations give `None` where they have none of this shape.
    """

    weights: list[Callable[["Draw", Shape], Any]]
    products: list[
        Callable[["Draw", Shape, Any], Any]
    ]  # the last: which values to read
    operations: list[Callable[["Draw", Shape, int], Any]]  # the last: the depth


class Draw:
    """What is drawn in one pass through a body, and what it may read."""

    def __init__(
        self,
        grammar: Grammar,
        seed: int,
        weights: dict[str, Any],
        path: str = "",
        notes: Any = None,
        like: Any = None,
    ) -> None:
        self.grammar = grammar
        self.rng = np.random.default_rng(seed)
        self.weights = weights
        self.path = path  # of the function inside the body, if it is in one
        self.notes = notes  # a set, in the first pass, which makes the weights
        self.known: list[tuple[str, Shape]] = []  # weights that were drawn
        self.states: list[Any] = []
        self.inputs: list[Any] = []
        self.pool: list[Any] = []  # of these floats and of others
        self.ints: list[Any] = []
        self.flags: list[Any] = []
        self.keys: list[Any] = []
        self.calls = 0
        if like is not None:
            for name in "known states inputs pool ints flags keys".split():
                setattr(self, name, list(getattr(like, name)))

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def pick(self, items: Any) -> Any:
        return items[self.rng.integers(len(items))]

    def inside(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """`f(draw, *args)` of a draw that is the same whenever it is traced."""
        self.calls += 1
        seed, path = int(self.rng.integers(2**31)), f"{self.path}{self.calls}."
        new = lambda like: Draw(
            self.grammar, seed, self.weights, path, self.notes, like
        )
        like = new(self)
        return lambda *args: f(new(like), *args)

    def leaf_weight(self, *shape: int) -> Any:
        """A new one."""
        name = f"{self.path}w{sum(k.startswith(self.path) for k, _ in self.known)}"
        if self.notes is not None and name not in self.weights:
            rng = np.random.default_rng([len(self.weights), *shape])
            scale = 0.8 / math.sqrt(max(shape, default=1))
            self.weights[name] = rng.standard_normal(shape) * scale
        self.known.append((name, shape))
        return jnp.asarray(self.weights[name])

    def weight(self, *shape: int) -> Any:
        """A weight, or what is computed of weights."""
        again = [k for k, s in self.known if s == shape]
        if again and self.chance(0.35):
            return jnp.asarray(self.weights[self.pick(again)])
        if self.chance(0.5):
            return self.leaf_weight(*shape)
        return self.pick(self.grammar.weights)(self, shape)

    def reset(self, a: Any) -> Any:
        """`a`, begun anew where a flag is set."""
        flags = self.pick(self.flags)
        if a.ndim and a.shape[0] == flags.shape[0]:
            flags = flags.reshape(-1, *[1] * (a.ndim - 1))
            start = self.leaf_weight(*a.shape[1:]) if self.chance(0.3) else 0.0
            return jnp.where(flags, start, a)
        return a * (1.0 - flags.any().astype(a.dtype))

    def leaf(self, shape: Shape, among: Any = None) -> Any:
        """One of the values that there are, brought to this shape."""
        values = self.pool if among is None or not among else among
        alike = [a for a in values if a.shape == shape]
        if alike and self.chance(0.7):
            return self.pick(alike)
        return self.fitted(self.pick(values), shape)

    def fitted(self, a: Any, shape: Shape) -> Any:
        """`a`, brought to this shape in one of the ways there are."""
        if a.shape == shape:
            return a
        ways = [
            lambda: jnp.resize(a, shape),
            lambda: jnp.broadcast_to(a.mean(), shape),
        ]
        if a.size == math.prod(shape):
            ways += [lambda: a.reshape(shape)] * 3 + [lambda: a.T.reshape(shape)]
        if shape and a.shape[:-1] == shape[:-1] and a.ndim:
            ways += [lambda: a @ self.weight(a.shape[-1], shape[-1])] * 4
            if a.shape[-1] > shape[-1]:
                ways += [lambda: a[..., : shape[-1]], lambda: a[..., -shape[-1] :]]
            else:
                pad = [(0, 0)] * (a.ndim - 1) + [(0, shape[-1] - a.shape[-1])]
                ways += [lambda: jnp.pad(a, pad)]
        if a.ndim > len(shape) and a.shape[a.ndim - len(shape) :] == shape:
            axes = tuple(range(a.ndim - len(shape)))
            ways += [
                lambda: a.mean(axes),
                lambda: a.max(axes),
                lambda: a[(0,) * len(axes)],
            ]
        try:
            if np.broadcast_shapes(a.shape, shape) == shape:
                ways += [lambda: jnp.broadcast_to(a, shape)] * 3
        except ValueError:
            pass
        return self.pick(ways)()

    def product(self, shape: Shape, among: Any = None, keep: bool = True) -> Any:
        """A product with a weight, which others may read too."""
        if not shape:
            a = self.leaf((3,), among)
            return a @ self.weight(3)
        for _ in range(20):
            z = self.pick(self.grammar.products)(self, shape, among)
            if z is not None:
                assert z.shape == shape
                if keep:
                    self.pool.append(z)
                return z
        raise AssertionError

    def expression(self, shape: Shape, depth: int) -> Any:
        """Operations of operations, at most so deep, of what there is."""
        if depth <= 0:
            return self.leaf(shape)
        if self.chance(0.25):
            return self.product(shape)
        if self.chance(0.15):
            return self.state_and_input(shape)
        for _ in range(50):
            a = self.pick(self.grammar.operations)(self, shape, depth - 1)
            if a is not None:
                assert a.shape == shape and a.dtype == jnp.float64
                return a
        raise AssertionError

    def state_and_input(self, shape: Shape) -> Any:
        """The sum of a product of the state and one of inputs."""
        of_h = self.product(shape, self.states, False)
        of_x = self.product(shape, self.inputs, False)
        if self.chance(0.3):
            of_x = of_x + self.bias(shape)
        if self.chance(0.3):
            of_h = of_h + self.bias(shape)
        if shape and self.chance(0.3):
            columns = (jnp.split(a, shape[-1], -1) for a in (of_h, of_x))
            return jnp.concatenate([a + b for a, b in zip(*columns, strict=True)], -1)
        if self.chance(0.2):
            return (of_x.ravel() + of_h.ravel()).reshape(shape)
        return of_h + of_x if self.chance(0.5) else of_x + of_h

    def bias(self, shape: Shape) -> Any:
        """A weight that broadcasts to this shape."""
        n = len(shape)
        shapes = [
            shape[-1:],
            shape,
            (),
            (1,) * n,
            shape[-2:],
            (*[1] * (n - 1), *shape[-1:]),
        ]
        if n > 1:
            shapes.append((shape[0], *[1] * (n - 1)))
        return self.weight(*self.pick(shapes))
