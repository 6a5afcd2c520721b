"""Transformer: encoder, decoder, or both, from tokens to vectors or logits.

A sub-layer f is either x + f(norm(x)) (pre-norm) or norm(x + f(x)) (post-norm, as
published); in either layout one more norm may stand behind the last layer. f is
attention to the sequence itself, in the decoder of a pair also attention to the
encoder's outputs, and activation(x W_1 + b_1) W_2 + b_2. Embeddings and learned
positions enter times sqrt(D); logits are read with the transposed embeddings if there
are no other weights for it.

Vaswani and others, "Attention Is All You Need", 2017,
https://arxiv.org/abs/1706.03762; for pre-norm Xiong and others, "On Layer
Normalization in the Transformer Architecture", 2020,
https://arxiv.org/abs/2002.04745.
"""
