"""What a data-parallel training step of the language model costs, on paper.

A step is what each chip does with its rows, then a sum of all gradients over the chips,
with nothing beside it: the last gradient, that of the first layer, is known at the end.
Sizes are those of `benchmarks.slices`; times are seconds.
"""

from math import prod
from typing import NamedTuple

HOP = 1e-6  # seconds from a chip to the next, as Austin et al. count


class Net(NamedTuple):
    """An embedding, LSTM layers and a head."""

    hidden: int = 1024
    layers: int = 2
    embedding: int = 256
    vocabulary: int = 256
    window: int = 256

    @property
    def recurrent(self) -> int:
        """Weights that each step over time reads."""
        return self.layers * 4 * self.hidden**2

    @property
    def matrices(self) -> int:
        """Weights of products: each token has one multiplication with each."""
        inputs = self.embedding + (self.layers - 1) * self.hidden
        return self.recurrent + 4 * self.hidden * inputs + self.hidden * self.vocabulary

    @property
    def weights(self) -> int:
        biases = self.layers * 4 * self.hidden + self.vocabulary
        return self.matrices + biases + self.embedding * self.vocabulary


class Chip(NamedTuple):
    """Published numbers; operations and bytes are by the second."""

    name: str
    operations: float  # of bfloat16
    hbm: float
    link: float  # of one link, one way
    network: float  # of a chip's share of the network between slices
    slices: dict[int, tuple[int, ...]]  # number of chips: axes of the torus
    wraps: int  # of an axis of a multiple of that size, the ends are joined

    @property
    def vmem(self) -> float:
        return 22 * self.hbm


class Cost(NamedTuple):
    products: float
    vmem: float
    hbm: float
    sum: float
    latency: float

    @property
    def chip(self) -> float:
        """Of what a chip does by itself, all at the same time."""
        return max(self.products, self.vmem, self.hbm)

    @property
    def total(self) -> float:
        return self.chip + self.sum + self.latency

    @property
    def bound(self) -> str:
        """The largest of what is added, and there of what is done at the same time."""
        return max(self._fields, key=lambda name: getattr(self, name))


def operations(net: Net, rows: float) -> float:
    """Forward, and twice as many for both gradients; two for a multiplication."""
    return 6 * net.matrices * rows * net.window


def vmem_bytes(net: Net) -> float:
    """Recurrent weights in bfloat16, at each time step forward and backward."""
    return 2 * 2 * net.recurrent * net.window


def hbm_bytes(net: Net, rows: float) -> float:
    """Weights with their gradients and moments, and what tokens leave behind.

    AdamW reads four float32 arrays and writes three; weights are read again as
    bfloat16, twice. For each layer, token and unit 34 numbers of bfloat16 are read or
    written: inputs to gates (8), gates and both states (12), gradients (14). Logits
    are float32, four times.
    """
    updates = net.weights * (7 * 4 + 2 * 2)
    tokens = rows * net.window
    return updates + tokens * (
        34 * 2 * net.layers * net.hidden + 4 * 4 * net.vocabulary
    )


def all_reduce(n_bytes: float, axes: tuple[int, ...], chip: Chip) -> float:
    """A sum over a torus, in which all links of a chip are busy.

    What a chip sends goes both ways round an axis, or one way at its ends.
    """
    n = prod(axes)
    out = chip.link * sum(1 + joined(size, axes, chip) for size in axes if size > 1)
    return 2 * n_bytes * (n - 1) / n / out if n > 1 else 0.0


def hops(axes: tuple[int, ...], chip: Chip) -> float:
    """From a chip to the farthest, and back."""
    far = lambda size: size / 2 if joined(size, axes, chip) else size - 1
    return 2 * sum(map(far, axes))


def joined(size: int, axes: tuple[int, ...], chip: Chip) -> bool:
    """In three dimensions the ends are joined only of whole cubes."""
    sizes = axes if len(axes) == 3 else (size,)
    return all(size % chip.wraps == 0 for size in sizes)


def step(net: Net, chip: Chip, chips: int, rows: float) -> Cost:
    """With so many rows for each chip; more chips than a pod has are several slices."""
    most = max(chip.slices)
    axes = chip.slices[min(chips, most)]
    slices, sent = max(1, chips // most), 4.0 * net.weights
    between = 2 * sent / prod(axes) * (slices - 1) / slices / chip.network
    return Cost(
        operations(net, rows) / chip.operations,
        vmem_bytes(net) / chip.vmem,
        hbm_bytes(net, rows) / chip.hbm,
        all_reduce(sent, axes, chip) + between,
        HOP * hops(axes, chip),
    )
