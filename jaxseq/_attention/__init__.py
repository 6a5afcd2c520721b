"""Attention: each query's mean of values, weighted by how well their keys fit it.

Shapes: T queries `(..., T, Q)`, S keys `(..., S, K)` and as many values
`(..., S, V)`, time at axis -2 as everywhere. Every function returns
`(context, weights)`, `(..., T, V)` and `(..., T, S)`. A query with no valid key has
zeros for both. Keys that no query may use are set to zero before they are read, and
so are their values: they may be NaN or infinite.
"""
