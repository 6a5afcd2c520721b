"""Recurrent networks for JAX: pure functions, exact, fast and complete."""

from jaxseq._attention import AdditiveParams as AdditiveParams
from jaxseq._attention import MultiHeadParams as MultiHeadParams
from jaxseq._attention import additive_attention as additive_attention
from jaxseq._attention import additive_init as additive_init
from jaxseq._attention import dot_attention as dot_attention
from jaxseq._attention import general_attention as general_attention
from jaxseq._attention import multi_head_attention as multi_head_attention
from jaxseq._attention import multi_head_init as multi_head_init
from jaxseq._decode import Decoded as Decoded
from jaxseq._decode import beam_search as beam_search
from jaxseq._decode import greedy as greedy
from jaxseq._decode import prefill as prefill
from jaxseq._decode import sample as sample
from jaxseq._gru import GRUParams as GRUParams
from jaxseq._gru import gru as gru
from jaxseq._gru import gru_init as gru_init
from jaxseq._gru import gru_step as gru_step
from jaxseq._gru import gru_zeros as gru_zeros
from jaxseq._layers import bidirectional as bidirectional
from jaxseq._layers import stack as stack
from jaxseq._lstm import LSTMParams as LSTMParams
from jaxseq._lstm import LSTMState as LSTMState
from jaxseq._lstm import lstm as lstm
from jaxseq._lstm import lstm_init as lstm_init
from jaxseq._lstm import lstm_step as lstm_step
from jaxseq._lstm import lstm_zeros as lstm_zeros
from jaxseq._resets import resets_from_dones as resets_from_dones
from jaxseq._rnn import RNNParams as RNNParams
from jaxseq._rnn import rnn as rnn
from jaxseq._rnn import rnn_init as rnn_init
from jaxseq._rnn import rnn_step as rnn_step
from jaxseq._rnn import rnn_zeros as rnn_zeros

__version__ = "0.1.0"
