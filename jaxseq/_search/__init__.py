"""Decoding with any step `(state, token) -> (state, logits)`.

Shapes: `token` is int32 `(B,)`, `logits` `(B, V)`, and the state any pytree with
leaves `(B, ...)`. What is decoded is a `Decoded`. All functions can be jitted over
the state and the tokens; they stop when every sequence has its end token. Where
`end` is None there is none, and all have `max_length` tokens.

Logits that are not finite follow one rule in all searches:

- -inf is a token that cannot come.
- +inf is a token that has to come: its log-probability is 0, shared evenly if there
  are several, and that of all others is -inf.
- If a logit of a row is NaN, or all are -inf, the row has no next token. `greedy` and
  `sample` end it there: the step adds no token to `lengths`, `tokens` hold the end
  token (-1 if there is none) from there on, and its score is NaN, or -inf if all are
  -inf. `beam_search` drops a hypothesis whose logits are all -inf; one with NaN ends
  in the same way, with the score NaN, and comes behind all that have a score.

A cache of limited size gives NaN when it is full. A state may say how many tokens it
can still take by an attribute `left`, an int, or None if it does not know. If it is
an int, too long a search is refused before it starts. A prompt of P tokens and a
search of L take P - 1 + L: the last token that is written is never read.
"""
