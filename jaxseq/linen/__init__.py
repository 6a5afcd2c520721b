"""Recurrent layers for Flax Linen, and scans in the place of those that it has.

The examples in docstrings run after these imports:

    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    import jaxseq.linen

All public names, by what they are for:

Recurrent layers, stacked and in both directions
    RNN, LSTM, GRU, Cell

A layer over rollouts with time first, whose state starts anew with each episode
    ScannedRNN

A lifted scan, and cells over time
    scan, over_time
"""

try:
    import flax as _flax  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "flax":
        raise
    _message = "jaxseq.linen needs Flax: pip install 'jaxseq[nn]'"
    raise ModuleNotFoundError(_message, name="flax") from _error

from jaxseq.linen._cell import Cell as Cell
from jaxseq.linen._cells import GRU as GRU
from jaxseq.linen._cells import LSTM as LSTM
from jaxseq.linen._cells import RNN as RNN
from jaxseq.linen._over_time import over_time as over_time
from jaxseq.linen._scan import scan as scan
from jaxseq.linen._scanned_rnn import ScannedRNN as ScannedRNN

__all__ = ["GRU", "LSTM", "RNN", "Cell", "ScannedRNN", "over_time", "scan"]
