"""Recurrent encoder-decoder, with or without attention, from tokens to logits.

The encoder's layers read the source, each in one direction or both. A bridge makes
the decoder's initial states of their final ones: for each layer W [finals] + b, of
which h goes through tanh. The decoder then reads, at each step, the token before:

    no attention   s_t = cell(e_t, s_{t-1});         logits_t = s_t W_o + b_o
    Bahdanau       c_t = attend(s_{t-1}, memory)
                   s_t = cell([e_t c_t], s_{t-1})
                   a_t = maxout([s_t c_t e_t] W + b); logits_t = a_t W_o + b_o
    Luong          s_t = cell([e_t a_{t-1}], s_{t-1})   a_{t-1} by input feeding only
                   c_t = attend(s_t, memory)
                   a_t = tanh([c_t s_t] W + b);       logits_t = a_t W_o + b_o

Sutskever, Vinyals and Le, "Sequence to Sequence Learning with Neural Networks",
2014, https://arxiv.org/abs/1409.3215; Bahdanau, Cho and Bengio, "Neural Machine
Translation by Jointly Learning to Align and Translate", 2015,
https://arxiv.org/abs/1409.0473, whose readout reads s_{t-1} where this one reads
s_t; Luong, Pham and Manning, "Effective Approaches to Attention-based Neural
Machine Translation", 2015, https://arxiv.org/abs/1508.04025.
"""
