"""Recurrent networks for JAX: pure functions, exact, fast and complete.

Layers take inputs `(..., T, D)`, time second to last, and return `(state, y)`. Weights
and states are NamedTuples. The examples in docstrings run after these imports:

    import jax
    import jax.numpy as jnp

    import jaxseq

All public names, by what they are for:

Cells: weights, a state of zeros, one step, and a whole sequence
    rnn_init, rnn_zeros, rnn_step, rnn
    lstm_init, lstm_zeros, lstm_step, lstm
    gru_init, gru_zeros, gru_step, gru
    cell_init, cell_zeros, cell_step, cell

The whole state at every step, not its first part alone
    lstm_states, cell_states

Cells as values, for `seq2seq_init` and `jaxseq.nn.Cell`, and the NamedTuples of cells
    RNN, LSTM, GRU, Cell
    RNNParams, LSTMParams, LSTMState, GRUParams, CellParams

Variants of the built-in cells: other activations and gates, projections, heads
    rnn_cell, lstm_cell, gru_cell
    LSTMExtra, LSTMNorms, Peepholes, Projected, ResetBefore
    activation, Activation

Dropout and zoneout of any cell, and dropout of its recurrent weights
    cell_dropout, zoneout, weight_drop

A scan of one's own, and what is made of it
    scan, explain

Over devices: the time of linear recurrences, and the layers of a stack
    linear_scan, wavefront

Layers put together, and the ends of episodes in reinforcement learning
    stack, bidirectional
    resets_from_dones

Attention
    additive_init, multi_head_init
    additive_attention, general_attention, dot_attention, multi_head_attention
    AdditiveParams, MultiHeadParams, Dot, ScaledDot

Recurrent encoder-decoders
    seq2seq_init, seq2seq_encode, seq2seq_decode, seq2seq_decode_step
    Seq2SeqParams, BahdanauParams, LuongParams, InputFeeding, BridgeParams
    Seq2SeqState, Memory

Transformers
    transformer_init, transformer_encode, transformer_decode
    transformer_zeros, transformer_decode_step
    TransformerParams, TransformerStack, TransformerLayer, NormParams, NormLayout
    Sinusoidal, Rotary
    TransformerState, Cache, SlidingCache

Decoding with any step function
    greedy, sample, beam_search, prefill
    at_least, penalize_repetition, no_repeat_ngrams
    Decoded

Losses of token sequences
    cross_entropy, perplexity

Linear-chain conditional random fields
    crf_init, crf_loss, crf_log_partition, crf_score, crf_decode
    CRFParams

Decoding of CTC's outputs, and how many steps a labelling needs
    ctc_greedy, ctc_beam_search, ctc_steps

Files of weights
    save, load, load_arrays, load_config

The native engine for CPUs
    native_available

`jaxseq.nn` has the layers and models as Flax NNX modules, and runs cells of Flax NNX
over time; `jaxseq.linen` does so in Flax Linen.
"""

from contextlib import suppress as _suppress

import jax.export as _export

from jaxseq._attention.kinds import additive_attention as additive_attention
from jaxseq._attention.kinds import dot_attention as dot_attention
from jaxseq._attention.kinds import general_attention as general_attention
from jaxseq._attention.multi_head import multi_head_attention as multi_head_attention
from jaxseq._attention.params import AdditiveParams as AdditiveParams
from jaxseq._attention.params import Dot as Dot
from jaxseq._attention.params import MultiHeadParams as MultiHeadParams
from jaxseq._attention.params import ScaledDot as ScaledDot
from jaxseq._attention.params import additive_init as additive_init
from jaxseq._attention.params import multi_head_init as multi_head_init
from jaxseq._base.resets import resets_from_dones as resets_from_dones
from jaxseq._cells.activations import Activation as Activation
from jaxseq._cells.activations import activation as activation
from jaxseq._cells.any import GRU as GRU
from jaxseq._cells.any import LSTM as LSTM
from jaxseq._cells.any import RNN as RNN
from jaxseq._cells.cell import Cell as Cell
from jaxseq._cells.cell import cell as cell
from jaxseq._cells.cell import cell_step as cell_step
from jaxseq._cells.dropout import cell_dropout as cell_dropout
from jaxseq._cells.gru import GRUParams as GRUParams
from jaxseq._cells.gru import gru as gru
from jaxseq._cells.gru import gru_init as gru_init
from jaxseq._cells.gru import gru_step as gru_step
from jaxseq._cells.gru import gru_zeros as gru_zeros
from jaxseq._cells.gru_update import ResetBefore as ResetBefore
from jaxseq._cells.gru_variants import gru_cell as gru_cell
from jaxseq._cells.init import cell_init as cell_init
from jaxseq._cells.init import cell_zeros as cell_zeros
from jaxseq._cells.lstm import LSTMParams as LSTMParams
from jaxseq._cells.lstm import lstm as lstm
from jaxseq._cells.lstm import lstm_init as lstm_init
from jaxseq._cells.lstm import lstm_step as lstm_step
from jaxseq._cells.lstm import lstm_zeros as lstm_zeros
from jaxseq._cells.lstm_update import LSTMExtra as LSTMExtra
from jaxseq._cells.lstm_update import LSTMNorms as LSTMNorms
from jaxseq._cells.lstm_update import LSTMState as LSTMState
from jaxseq._cells.lstm_update import Peepholes as Peepholes
from jaxseq._cells.lstm_update import Projected as Projected
from jaxseq._cells.lstm_variants import lstm_cell as lstm_cell
from jaxseq._cells.rnn import RNNParams as RNNParams
from jaxseq._cells.rnn import rnn as rnn
from jaxseq._cells.rnn import rnn_init as rnn_init
from jaxseq._cells.rnn import rnn_step as rnn_step
from jaxseq._cells.rnn import rnn_zeros as rnn_zeros
from jaxseq._cells.rnn_variants import rnn_cell as rnn_cell
from jaxseq._cells.states import cell_states as cell_states
from jaxseq._cells.states import lstm_states as lstm_states
from jaxseq._cells.weight_drop import weight_drop as weight_drop
from jaxseq._cells.zoneout import zoneout as zoneout
from jaxseq._compose.layers import bidirectional as bidirectional
from jaxseq._compose.layers import stack as stack
from jaxseq._compose.wavefront import wavefront as wavefront
from jaxseq._engine.native import native_available as native_available
from jaxseq._engine.params import CellParams as CellParams
from jaxseq._files.files import load as load
from jaxseq._files.files import load_arrays as load_arrays
from jaxseq._files.files import load_config as load_config
from jaxseq._files.files import save as save
from jaxseq._losses.crf.decode import crf_decode as crf_decode
from jaxseq._losses.crf.loss import crf_log_partition as crf_log_partition
from jaxseq._losses.crf.loss import crf_loss as crf_loss
from jaxseq._losses.crf.loss import crf_score as crf_score
from jaxseq._losses.crf.params import CRFParams as CRFParams
from jaxseq._losses.crf.params import crf_init as crf_init
from jaxseq._losses.cross_entropy import cross_entropy as cross_entropy
from jaxseq._losses.cross_entropy import perplexity as perplexity
from jaxseq._models.memory import Memory as Memory
from jaxseq._models.seq2seq.decode import seq2seq_decode as seq2seq_decode
from jaxseq._models.seq2seq.decode import seq2seq_decode_step as seq2seq_decode_step
from jaxseq._models.seq2seq.encode import seq2seq_encode as seq2seq_encode
from jaxseq._models.seq2seq.init import seq2seq_init as seq2seq_init
from jaxseq._models.seq2seq.params import BahdanauParams as BahdanauParams
from jaxseq._models.seq2seq.params import BridgeParams as BridgeParams
from jaxseq._models.seq2seq.params import InputFeeding as InputFeeding
from jaxseq._models.seq2seq.params import LuongParams as LuongParams
from jaxseq._models.seq2seq.params import Seq2SeqParams as Seq2SeqParams
from jaxseq._models.seq2seq.state import Seq2SeqState as Seq2SeqState
from jaxseq._models.transformer.cache import Cache as Cache
from jaxseq._models.transformer.cache import SlidingCache as SlidingCache
from jaxseq._models.transformer.init import transformer_init as transformer_init
from jaxseq._models.transformer.params import NormLayout as NormLayout
from jaxseq._models.transformer.params import NormParams as NormParams
from jaxseq._models.transformer.params import TransformerLayer as TransformerLayer
from jaxseq._models.transformer.params import TransformerParams as TransformerParams
from jaxseq._models.transformer.params import TransformerStack as TransformerStack
from jaxseq._models.transformer.positions import Rotary as Rotary
from jaxseq._models.transformer.positions import Sinusoidal as Sinusoidal
from jaxseq._models.transformer.state import TransformerState as TransformerState
from jaxseq._models.transformer.state import transformer_zeros as transformer_zeros
from jaxseq._models.transformer.step import (
    transformer_decode_step as transformer_decode_step,
)
from jaxseq._models.transformer.whole import transformer_decode as transformer_decode
from jaxseq._models.transformer.whole import transformer_encode as transformer_encode
from jaxseq._scan.explain import explain as explain
from jaxseq._scan.linear import linear_scan as linear_scan
from jaxseq._scan.scan import scan as scan
from jaxseq._search.beam import beam_search as beam_search
from jaxseq._search.ctc import ctc_beam_search as ctc_beam_search
from jaxseq._search.ctc import ctc_greedy as ctc_greedy
from jaxseq._search.ctc import ctc_steps as ctc_steps
from jaxseq._search.decoded import Decoded as Decoded
from jaxseq._search.prefill import prefill as prefill
from jaxseq._search.process import at_least as at_least
from jaxseq._search.process import no_repeat_ngrams as no_repeat_ngrams
from jaxseq._search.process import penalize_repetition as penalize_repetition
from jaxseq._search.sample import greedy as greedy
from jaxseq._search.sample import sample as sample

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "AdditiveParams",
    "BahdanauParams",
    "BridgeParams",
    "CRFParams",
    "Cache",
    "Cell",
    "CellParams",
    "Decoded",
    "Dot",
    "GRUParams",
    "InputFeeding",
    "LSTMExtra",
    "LSTMNorms",
    "LSTMParams",
    "LSTMState",
    "LuongParams",
    "Memory",
    "MultiHeadParams",
    "NormLayout",
    "NormParams",
    "Peepholes",
    "Projected",
    "RNNParams",
    "ResetBefore",
    "Rotary",
    "ScaledDot",
    "Seq2SeqParams",
    "Seq2SeqState",
    "Sinusoidal",
    "SlidingCache",
    "TransformerLayer",
    "TransformerParams",
    "TransformerStack",
    "TransformerState",
    "activation",
    "additive_attention",
    "additive_init",
    "at_least",
    "beam_search",
    "bidirectional",
    "cell",
    "cell_dropout",
    "cell_init",
    "cell_states",
    "cell_step",
    "cell_zeros",
    "crf_decode",
    "crf_init",
    "crf_log_partition",
    "crf_loss",
    "crf_score",
    "cross_entropy",
    "ctc_beam_search",
    "ctc_greedy",
    "ctc_steps",
    "dot_attention",
    "explain",
    "general_attention",
    "greedy",
    "gru",
    "gru_cell",
    "gru_init",
    "gru_step",
    "gru_zeros",
    "linear_scan",
    "load",
    "load_arrays",
    "load_config",
    "lstm",
    "lstm_cell",
    "lstm_init",
    "lstm_states",
    "lstm_step",
    "lstm_zeros",
    "multi_head_attention",
    "multi_head_init",
    "native_available",
    "no_repeat_ngrams",
    "penalize_repetition",
    "perplexity",
    "prefill",
    "resets_from_dones",
    "rnn",
    "rnn_cell",
    "rnn_init",
    "rnn_step",
    "rnn_zeros",
    "sample",
    "save",
    "scan",
    "seq2seq_decode",
    "seq2seq_decode_step",
    "seq2seq_encode",
    "seq2seq_init",
    "stack",
    "transformer_decode",
    "transformer_decode_step",
    "transformer_encode",
    "transformer_init",
    "transformer_zeros",
    "wavefront",
    "weight_drop",
    "zoneout",
]

for _kind in [a for a in globals().values() if isinstance(a, type)]:
    with _suppress(ValueError):  # where this file is loaded again
        _name = f"jaxseq.{_kind.__name__}"
        _export.register_namedtuple_serialization(_kind, serialized_name=_name)

__version__ = "0.2.0"
