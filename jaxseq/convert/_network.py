"""What weights of other frameworks become: layers that can be run."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

import jaxseq
from jaxseq import Cell
from jaxseq._base.check import check, check_choice, check_flag

MERGES = "concat", "sum", "mean", None
PLAIN: dict[type, Cell] = {
    jaxseq.RNNParams: jaxseq.RNN,
    jaxseq.GRUParams: jaxseq.GRU,
    jaxseq.LSTMParams: jaxseq.LSTM,
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Network:
    """A stack of recurrent layers with their weights, which is called like a layer.

    It is a pytree whose leaves are the weights.

    Fields:
        layers: a tuple with the weights of each layer, first layer first, such as
            `LSTMParams` or `CellParams`. For a layer of two directions, a pair
            `(forward, backward)` of these.
        cell: the `Cell` that all layers run, such as `jaxseq.LSTM`, or a pair with
            one for each direction.
        reverse: whether layers of one direction run from the last step to the first.
        merge: how the outputs of two directions are combined; see `bidirectional`.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape, state.c.shape
        ((5, 20, 8), (5, 8))
    """

    layers: tuple[Any, ...]
    cell: Cell | tuple[Cell, Cell] = field(metadata={"static": True})
    reverse: bool = field(default=False, metadata={"static": True})
    merge: str | None = field(default="concat", metadata={"static": True})

    def __post_init__(self) -> None:
        pair = type(self.cell) is tuple and len(self.cell) == 2
        cells = self.cell if pair else (self.cell,)
        ok = all(isinstance(cell, Cell) for cell in cells)
        check(ok, "cell", "a Cell, or a pair of them", type(self.cell).__name__)
        check_flag(self.reverse, "reverse")
        check_choice(self.merge, "merge", MERGES)

    def __call__(
        self,
        x: ArrayLike,
        state: tuple[Any, ...] | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[tuple[Any, ...], Any]:
        """Runs the layers over time.

        Args:
            x: inputs, `(..., T, D)`, in the dtype of the weights.
            state: a tuple with the initial state of each layer, or a pair of states
                for a layer of two directions; zeros if None.
            lengths: number of valid steps of each sequence, integers `(...)`; all T if
                None.
            mask: booleans `(..., T)`, True at valid steps; all are valid if None.
            resets: booleans `(..., T)`, True where a new segment starts, from a state
                of zeros.

        Returns:
            `(state, y)`: a tuple with the final state of each layer, and the outputs of
            the last layer, `(..., T, H)`. Those of two directions are merged, by
            default to `(..., T, 2H)`.

        Raises:
            ValueError: if a shape or dtype does not fit.
        """
        options = {"lengths": lengths, "mask": mask, "resets": resets}
        given: Any = {name: a for name, a in options.items() if a is not None}
        both = any(map(is_pair, self.layers))
        check(not (both and self.reverse), "reverse", BOTH, self.reverse)
        layers = [self._layer(own) for own in self.layers]
        return jaxseq.stack(layers, x, state, reverse=self.reverse, **given)

    def _layer(self, params: Any) -> Any:
        forward, backward = self.cells
        if not is_pair(params):
            return partial(_run, forward, params)
        both = partial(_run, forward, params[0]), partial(_run, backward, params[1])
        return partial(jaxseq.bidirectional, *both, merge=self.merge)

    @property
    def cells(self) -> tuple[Cell, Cell]:
        """The cells of the two directions."""
        return (self.cell, self.cell) if isinstance(self.cell, Cell) else self.cell


def _run(cell: Cell, params: Any, x: Any, state: Any = None, **options: Any) -> Any:
    if state is None:
        state = cell.zeros(params, jnp.shape(x)[:-2])
    return jaxseq.cell(cell.update, jaxseq.CellParams(*params), x, state, **options)


def is_pair(params: Any) -> bool:
    """Whether these are the weights of a layer of two directions."""
    if type(params) is not tuple:
        return False
    check(len(params) == 2, "layers", "pairs (forward, backward)", len(params))
    return True


def directions(network: Any) -> list[tuple[Any, ...]]:
    """The weights of each layer as a tuple of one or two directions, checked."""
    kind = type(network).__name__
    check(isinstance(network, Network), "network", "a Network", kind)
    layers = [own if is_pair(own) else (own,) for own in network.layers]
    n = len(layers[0]) if layers else 0
    same = bool(layers) and all(len(own) == n for own in layers)
    kinds = [len(own) for own in layers]
    check(same, "network.layers", "layers, all of one or of two directions", kinds)
    check(n == 1 or not network.reverse, "network.reverse", BOTH, network.reverse)
    width = dtype = None
    for i, own in enumerate(layers):
        widths = []
        for params, cell in zip(own, network.cells, strict=False):
            name = f"network.layers[{i}]"
            dtype = _check_weights(params, cell, name, width, dtype)
            widths.append(width_out(params.w_h))
            D = params.w_x.shape[0]
            check(D == own[0].w_x.shape[0], name, "inputs of one width", D)
        width = sum(widths) if network.merge == "concat" else widths[0]
    return layers


BOTH = "False for layers of two directions"


def _check_weights(params: Any, cell: Cell, name: str, D: Any, dtype: Any) -> Any:
    """Checks that weights are those of a cell, and returns their dtype."""
    kind, given = type(params), type(params).__name__
    ok = kind in PLAIN or kind is jaxseq.CellParams
    check(ok, name, "weights such as LSTMParams or CellParams", given)
    known = {type(own.update) for own in PLAIN.values()}
    if kind in PLAIN and type(cell.update) in known:
        fits = type(PLAIN[kind].update) is type(cell.update)
        check(fits, name, f"weights of the cell {type(cell.update).__name__}", given)
    own = next((k for k, plain in PLAIN.items() if cell == plain), kind)
    check(kind is own, name, f"{own.__name__}, as {shown(cell)} takes", given)
    arrays = jax.tree.leaves(params)
    of_arrays = all(hasattr(a, "__array__") for a in arrays)
    check(of_arrays, name, "arrays", [type(a).__name__ for a in arrays])
    dtypes = {str(a.dtype) for a in arrays} | ({str(dtype)} if dtype else set())
    check(len(dtypes) == 1, name, "one dtype of all weights", sorted(dtypes))
    D = params.w_x.shape[0] if D is None else D
    got = params.w_x.shape
    check(len(got) == 2 and got[0] == D, f"{name}.w_x", f"inputs {D} wide", got)
    return arrays[0].dtype


def shown(cell: Cell) -> str:
    """A cell by what it is made with, such as "lstm_cell(clip=1.0)"."""
    own = cell.update
    plain = [p.update for p in PLAIN.values() if type(p.update) is type(own)]
    if not plain:
        return f"a cell with the update {called(own)}"
    default: Any = plain[0]
    each = {name: (a, getattr(default, name)) for name, a in vars(own).items()}
    options = [f"{k}={called(a)}" for k, (a, usual) in each.items() if a != usual]
    if not getattr(cell.init, "reset_after", True):
        options.append("reset_after=False")
    kind = type(own).__name__.removesuffix("Update")
    return f"{kind.lower()}_cell({', '.join(options)})" if options else f"jaxseq.{kind}"


def called(a: Any) -> str:
    """A value as short as it can be named."""
    plain = a is None or type(a) in (bool, int, float, jaxseq.Activation)
    return str(a) if plain else getattr(a, "__name__", type(a).__name__)


def width_out(w_h: Any) -> int:
    """How wide the output of a cell with such matrices is."""
    if isinstance(w_h, jaxseq.Projected):
        return w_h.projection.shape[1]
    w = w_h.candidate if isinstance(w_h, jaxseq.ResetBefore) else w_h
    return w.shape[0] if w.ndim == 2 else w.shape[0] * w.shape[1]
