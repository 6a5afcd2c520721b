"""Decoding with any step `(state, token) -> (state, logits)`.

Shapes: `token` is int32 `(B,)`, `logits` `(B, V)`, and the state any pytree with
leaves `(B, ...)`. What is decoded is a `Decoded`. All functions can be jitted over
the state and the tokens; they stop when every sequence has its end token. Where
`end` is None there is none, and all have `max_length` tokens.
"""
