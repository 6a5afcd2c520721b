"""Networks of plain LSTMs, for formats that hold nothing else."""

from typing import Any

import jaxseq
from jaxseq import LSTMParams
from jaxseq._base.check import check
from jaxseq.convert._network import Network, directions


def lstm_layers(network: Network, owner: str) -> list[tuple[LSTMParams, ...]]:
    """The weights of each layer as a tuple of one or two directions."""
    layers = directions(network)
    for cell in network.cells:
        ok = cell.update == jaxseq.LSTM.update
        check(ok, "network.cell", f"jaxseq.LSTM, for {owner}", cell.update)
    for i, both in enumerate(layers):
        for params in both:
            ok = isinstance(params, LSTMParams)
            got = type(params).__name__
            check(ok, f"network.layers[{i}]", f"LSTMParams, for {owner}", got)
    check(not network.reverse, "network.reverse", f"False, for {owner}", True)
    merge = network.merge
    check(merge == "concat", "network.merge", f"'concat', for {owner}", merge)
    return layers


def biases(params: LSTMParams) -> tuple[Any, Any]:
    """Both biases as arrays, of zeros where there is none."""
    import numpy as np

    zeros = np.zeros(params.w_x.shape[1], params.w_x.dtype)
    b, b_h = (zeros if a is None else np.asarray(a) for a in (params.b, params.b_h))
    return b, b_h
