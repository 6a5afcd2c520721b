"""Attention: each query's mean of values, weighted by how well their keys fit it.

Shapes: T queries `(..., T, Q)`, S keys `(..., S, K)` and as many values
`(..., S, V)`, time at axis -2 as everywhere. Every function returns
`(context, weights)`, `(..., T, V)` and `(..., T, S)`. A query with no valid key has
zeros for both. What is padding by `lengths` may be NaN.
"""
