"""What is measured: the cases, and the products that each of them needs."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A layer, what is done with it, and the size of its input.

    Modes are `forward`, `gradient` (of the weights and the input, the forward pass
    included), `eager` and `eager gradient` (both without `jax.jit`), `stream` (one
    jitted step called for each input, its output awaited), `eager stream`, and
    `decode` (a language model that reads the token it chose last).
    """

    op: str
    mode: str
    B: int
    T: int
    D: int
    H: int
    dtype: str = "float32"  # or bfloat16, float16; tf32: float32 with TF32 products
    ragged: bool = False
    resets: bool = False
    layers: int = 1
    bidirectional: bool = False

    @property
    def shape(self) -> str:
        return f"{self.B},{self.T},{self.D},{self.H}"

    @property
    def variant(self) -> str:
        """What makes it other than one layer over whole sequences in float32."""
        words = [self.dtype] * (self.dtype != "float32")
        words += [f"{self.layers} layers"] * (self.layers > 1)
        words += [n for n in ("ragged", "resets", "bidirectional") if getattr(self, n)]
        return ", ".join(words)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.op, self.mode, self.shape, self.variant)))


GATES = {"rnn": 1, "lstm": 4, "gru": 3}
OPS = tuple(GATES)
BOTH = ("forward", "gradient")
EAGER = ("eager", "eager gradient")
MODES = (*BOTH, *EAGER, "stream", "eager stream", "decode")
VOCABULARY = 1000  # of `decode`

Shape = tuple[int, int, int, int]
MIDDLE: Shape = (32, 128, 128, 256)
SHAPES: tuple[Shape, ...] = (
    MIDDLE,
    (1, 512, 256, 256),
    (16, 1024, 64, 128),
    (256, 32, 32, 32),
)
MORE_SHAPES: tuple[Shape, ...] = ((64, 96, 512, 512), (128, 64, 64, 64))
LARGE: Shape = (64, 1024, 512, 512)
LARGE_SHAPES: tuple[Shape, ...] = (
    LARGE,
    *((16, 1024, 768, 768), (64, 1024, 256, 256), (64, 512, 1024, 1024)),
    *((256, 256, 512, 512), (1, 2048, 512, 512)),
)


def cells(
    shapes: tuple[Shape, ...], ops: Sequence[str] = OPS, dtype: str = "float32"
) -> list[Case]:
    return [Case(o, m, *s, dtype) for o in ops for s in shapes for m in BOTH]


def variants(shape: Shape, one: Shape, ops: Sequence[str]) -> list[Case]:
    """All that is not one layer over whole sequences in float32."""
    options: list[dict[str, Any]] = [
        *({"dtype": "bfloat16"}, {"ragged": True}, {"resets": True}),
        *({"layers": 2}, {"bidirectional": True}),
    ]
    found = [Case(o, m, *shape, **how) for how in options for o in ops for m in BOTH]
    for op in ops:
        found += [Case(op, "eager", *shape), Case(op, "eager stream", *one)]
        found += [Case(op, "stream", *one), Case(op, "decode", *one)]
        found.append(Case(op, "decode", 8, *one[1:]))
    return found


def large() -> list[Case]:
    """For an accelerator, the most important first."""
    kinds = ("bfloat16", "float32")
    others = LARGE_SHAPES[1:]
    found = [c for k in kinds for c in cells((LARGE,), ("lstm",), k)]
    found += cells(others, ("lstm",), "bfloat16")
    found += [c for k in kinds for c in cells((LARGE,), ("gru",), k)]
    found += cells(others, ("lstm",))
    found += [c for k in kinds for c in cells(others, ("gru",), k)]
    return found + cells(LARGE_SHAPES, ("lstm", "gru"), "tf32")


def exact() -> list[Case]:
    """Gradients by cell and precision; the second sizes are divided by no tile."""
    found = []
    for dtype in ("float32", "bfloat16", "tf32"):
        found += cells(((32, 256, 256, 256), (3, 77, 40, 52)), OPS, dtype)
    return [case for case in found if case.mode == "gradient"]


def rollouts() -> list[Case]:
    """Many environments side by side, as reinforcement learning has them."""
    shapes: tuple[Shape, ...] = ((256, 128, 256, 256), (1024, 64, 128, 128))
    return [Case("gru", m, *s, resets=True) for s in shapes for m in BOTH]


SMALL: Shape = (5, 20, 4, 4)  # a call takes longer than what it calls
TINY: Shape = (2, 3, 4, 4)
ONE: Shape = (1, 64, 256, 256)
SETS = {
    "default": [
        *cells(SHAPES),
        *variants(MIDDLE, ONE, ("lstm",)),
        *rollouts(),
        *(Case("lstm", m, *SMALL) for m in EAGER),
    ],
    "full": [
        *cells(SHAPES + MORE_SHAPES),
        *variants(MIDDLE, ONE, OPS),
        *rollouts(),
        *(Case(o, m, *SMALL) for o in OPS for m in EAGER),
    ],
    "accelerator": large(),
    "exact": exact(),
    "tiny": [
        *cells((TINY,), ("lstm",)),
        Case("lstm", "gradient", *TINY, "bfloat16"),
        *cells(((3, 5, 4, 6),)),
        *variants((3, 5, 4, 6), (1, 4, 6, 6), OPS),
        Case("lstm", "eager gradient", 3, 5, 4, 6),
    ],
}


def flops(case: Case) -> int:
    """Operations of the matrix products: x w_x and h w_h at every step.

    The gradient of a product is two products of its size, so forward and gradient
    together are three. Padding counts; decoding has the logits besides.
    """
    op, mode, B, T, D, H = case[:6]
    both = 2 if case.bidirectional else 1
    found = 0
    for i in range(case.layers):
        found += 2 * B * T * ((both * H if i else D) + H) * GATES[op] * H * both
    if mode == "decode":
        found += 2 * B * T * H * VOCABULARY
    return found * (3 if mode.endswith("gradient") else 1)
