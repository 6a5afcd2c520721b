"""Flax NNX modules over the functions of jaxseq, and NNX cells of any kind over time.

The examples in docstrings run after these imports:

    import jax
    import jax.numpy as jnp
    from flax import nnx

    import jaxseq.nn

All public names, by what they are for:

Recurrent layers, stacked and in both directions
    RNN, LSTM, GRU, Cell

Cells of Flax and of one's own over time
    over_time

Attention
    AdditiveAttention, GeneralAttention, MultiHeadAttention

Encoder-decoders
    Seq2Seq, Transformer

Linear-chain conditional random fields
    CRF
"""

try:
    import flax as _flax  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "flax":
        raise
    _message = "jaxseq.nn needs Flax: pip install 'jaxseq[nn]'"
    raise ModuleNotFoundError(_message, name="flax") from _error

from jaxseq.nn._attention import AdditiveAttention as AdditiveAttention
from jaxseq.nn._attention import GeneralAttention as GeneralAttention
from jaxseq.nn._attention import MultiHeadAttention as MultiHeadAttention
from jaxseq.nn._cell import Cell as Cell
from jaxseq.nn._crf import CRF as CRF
from jaxseq.nn._gru import GRU as GRU
from jaxseq.nn._lstm import LSTM as LSTM
from jaxseq.nn._over_time import over_time as over_time
from jaxseq.nn._rnn import RNN as RNN
from jaxseq.nn._seq2seq import Seq2Seq as Seq2Seq
from jaxseq.nn._transformer import Transformer as Transformer

__all__ = [
    "CRF",
    "GRU",
    "LSTM",
    "RNN",
    "AdditiveAttention",
    "Cell",
    "GeneralAttention",
    "MultiHeadAttention",
    "Seq2Seq",
    "Transformer",
    "over_time",
]
