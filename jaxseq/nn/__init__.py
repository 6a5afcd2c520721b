"""Flax NNX modules over the functions of jaxseq: they hold weights, nothing else."""

from jaxseq.nn._recurrent import GRU as GRU
from jaxseq.nn._recurrent import LSTM as LSTM
from jaxseq.nn._recurrent import RNN as RNN
