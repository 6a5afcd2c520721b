"""What is measured: ops, modes, shapes, and the products that each of them needs."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Batch, time, input width and hidden width."""

    B: int
    T: int
    D: int
    H: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


GATES = {"rnn": 1, "lstm": 4, "gru": 3}
OPS = tuple(GATES)
MODES = ("forward", "gradient")
SHAPES = (
    Shape(32, 128, 128, 256),
    Shape(64, 96, 512, 512),
    Shape(1, 512, 256, 256),
    Shape(16, 1024, 64, 128),
    Shape(128, 64, 64, 64),
    Shape(256, 32, 32, 32),
)


def flops(op: str, mode: str, shape: Shape) -> int:
    """Operations of the matrix products: x w_x and h w_h at every step.

    The gradient of a product is two products of its size, so forward and
    gradient together are three.
    """
    B, T, D, H = shape
    return 2 * B * T * (D + H) * GATES[op] * H * (3 if mode == "gradient" else 1)
