"""Bodies of scans drawn from a grammar: what people write, in any mixture.

`problems.problem(seed)` draws a body and its arguments, and `body` the step of time
that the body takes. `draw.Draw` keeps what is drawn so far, and draws expressions of a
given shape, made of what the body may read, of weights, and of other expressions. The
tables of what it draws from are put together in `grammar`.
"""
