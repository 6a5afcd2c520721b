"""Linear-chain conditional random field over tags of a sequence.

    score(tags) = start[tags_0] + sum_t scores[t, tags_t]
                  + sum_{t>0} transitions[tags_{t-1}, tags_t] + end[tags_{last}]
    log p(tags) = score(tags) - log sum_{tags'} exp score(tags')

Shapes: scores `(..., T, K)` of K tags, such as a linear map of a network's outputs.
A sequence of length 0 has one way to be tagged, of score 0. What `lengths` and `mask`
leave out may be anything, and all is as if these steps were not there: a transition
leads from one valid step to the next.

Lafferty, McCallum and Pereira, "Conditional Random Fields", 2001; on a recurrent
network Huang, Xu and Yu, "Bidirectional LSTM-CRF Models for Sequence Tagging", 2015,
https://arxiv.org/abs/1508.01991.
"""
