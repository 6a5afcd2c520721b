"""Transformer: encoder, decoder, or both, from tokens to vectors or logits.

A sub-layer f is either x + f(norm(x)) (pre-norm) or norm(x + f(x)) (post-norm, as
published); in either layout one more norm may come after the last layer. The
sub-layers of a layer are self-attention, attention to the encoder's outputs (in a
decoder with an encoder), and activation(x W_1 + b_1) W_2 + b_2. Embeddings and learned
positions are multiplied by sqrt(D). The output map is the transposed embeddings unless
it has weights of its own.

Vaswani and others, "Attention Is All You Need", 2017,
https://arxiv.org/abs/1706.03762; for pre-norm Xiong and others, "On Layer
Normalization in the Transformer Architecture", 2020,
https://arxiv.org/abs/2002.04745.
"""
