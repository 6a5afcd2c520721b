"""What is measured: bodies, shapes and modes, in the form of the other rows."""

from collections.abc import Iterable

from benchmarks.cases import BOTH, Case, Shape

# of each body the library whose cell it steps, if it is of one
BODIES = {
    "nnx OptimizedLSTMCell": "flax",
    "nnx GRUCell": "flax",
    "linen OptimizedLSTMCell": "flax",
    "linen GRUCell": "flax",
    "Haiku LSTM": "haiku",
    "Haiku GRU": "haiku",
    "Equinox LSTMCell": "equinox",
    "Equinox GRUCell": "equinox",
    "ScannedRNN": "flax",
    "block GRU": None,
    "sLSTM": None,
    "two LSTM layers": "flax",
}
PLAIN, OURS = "lax.scan", "jaxseq.scan"
AGAIN = "lax.scan again"  # the same program in turns of its own: the noise of a ratio
BLOCKS = 8  # of the block GRU, which divide H; the heads of the sLSTM do too
SHAPES: tuple[Shape, ...] = (
    (32, 128, 128, 256),
    (8, 200, 96, 192),
    (1, 512, 256, 256),
    (1024, 64, 128, 128),
    (64, 96, 512, 512),
    (256, 128, 256, 256),
)


def cases(
    bodies: Iterable[str] = BODIES,
    shapes: Iterable[Shape] = SHAPES,
    modes: Iterable[str] = BOTH,
) -> list[Case]:
    """Every body at every shape, the gradient first; a case's `op` is its body."""
    ordered = [mode for mode in reversed(BOTH) if mode in modes]
    return [
        Case(body, mode, *shape, resets=body == "ScannedRNN")
        for shape in shapes
        for body in bodies
        for mode in ordered
    ]
