"""The equations of the cells in NumPy float64, from the papers, one sequence at a time.

Written to be read beside the paper: one gate a line, one step an iteration, and
nothing shared with the library. A sequence is `(T, D)`.
"""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.maximum(a, 0)


def rnn(params, h, x, activation=np.tanh):
    """Elman 1990, with any activation."""
    W_x, W_h, b, *_ = params
    y = []
    for x_t in x:
        h = activation(W_x.T @ x_t + W_h.T @ h + b)
        y.append(h)
    return h, np.array(y).reshape(len(x), len(h))


def lstm(params, state, x):
    """Graves 2013 (arXiv:1308.0850), equations 7 to 11, without peepholes."""
    w_x, w_h, b, *_ = params
    h, c = state
    W_xi, W_xf, W_xg, W_xo = np.split(w_x, 4, axis=1)
    W_hi, W_hf, W_hg, W_ho = np.split(w_h, 4, axis=1)
    b_i, b_f, b_g, b_o = np.split(b, 4)
    y = []
    for x_t in x:
        i = sigmoid(W_xi.T @ x_t + W_hi.T @ h + b_i)
        f = sigmoid(W_xf.T @ x_t + W_hf.T @ h + b_f)
        g = np.tanh(W_xg.T @ x_t + W_hg.T @ h + b_g)
        o = sigmoid(W_xo.T @ x_t + W_ho.T @ h + b_o)
        c = f * c + i * g
        h = o * np.tanh(c)
        y.append(h)
    return (h, c), np.array(y).reshape(len(x), len(h))


def gru(params, h, x):
    """Cho 2014 (arXiv:1406.1078), equations 5 to 8, reset after the product."""
    w_x, w_h, b, b_hn = params
    W_xr, W_xz, W_xn = np.split(w_x, 3, axis=1)
    W_hr, W_hz, W_hn = np.split(w_h, 3, axis=1)
    b_r, b_z, b_n = np.split(b, 3)
    y = []
    for x_t in x:
        r = sigmoid(W_xr.T @ x_t + W_hr.T @ h + b_r)
        z = sigmoid(W_xz.T @ x_t + W_hz.T @ h + b_z)
        n = np.tanh(W_xn.T @ x_t + b_n + r * (W_hn.T @ h + b_hn))
        h = (1 - z) * n + z * h
        y.append(h)
    return h, np.array(y).reshape(len(x), len(h))


def sequence(
    cell, params, state, x, length=None, resets=None, reverse=False, start=None
):
    """Runs `cell` over the valid steps of `x`, each segment apart, then joins them.

    Forwards, the first segment starts from `state` unless it begins with a reset.
    Backwards, the last segment is read first and starts from `state`; each is read
    from its last step to its first. All others start from `start`, or zeros. `y` is
    zero past `length`.
    """
    T = len(x)
    length = T if length is None else length
    resets = np.zeros(T, bool) if resets is None else resets
    cuts = [t for t in range(1, length) if resets[t]]
    segments = list(zip([0, *cuts], [*cuts, length], strict=True))
    if start is None:
        pair = isinstance(state, tuple)
        start = tuple(map(np.zeros_like, state)) if pair else np.zeros_like(state)
    if not reverse and length > 0 and resets[0]:
        state = start
    H = len(state[0] if isinstance(state, tuple) else state)
    y = np.zeros((T, H))
    flip = slice(None, None, -1 if reverse else 1)
    for k, (low, high) in enumerate(segments[flip]):
        if k > 0:
            state = start
        state, piece = cell(params, state, x[low:high][flip])
        y[low:high] = piece[flip]
    return state, y


def states(cell, params, state, x, valid, resets, reverse, start):
    """The states after each step, which stand still where a step is not valid.

    A reset counts before its step; read backwards, before the next valid one.
    """
    T, after, pending = len(x), [None] * len(x), False
    for t in reversed(range(T)) if reverse else range(T):
        if valid[t]:
            state = start if pending or (resets[t] and not reverse) else state
            pending = resets[t] and reverse
            state, _ = cell(params, state, x[t : t + 1])
        after[t] = state
    return after


def additive_score(W_q, W_k, v, q, k):
    """Bahdanau 2015 (arXiv:1409.0473), appendix A.1.2."""
    return v @ np.tanh(W_q.T @ q + W_k.T @ k)


def attention(score, query, keys, values, valid):
    """Vaswani 2017, section 3.2, with any score; zeros where no key is valid."""
    weights = np.zeros((len(query), len(keys)))
    for t, q in enumerate(query):
        e = {s: np.exp(score(q, k)) for s, k in enumerate(keys) if valid[t, s]}
        for s in e:
            weights[t, s] = e[s] / sum(e.values())
    return weights @ values, weights


def multi_head_attention(params, query, keys, values, valid):
    """Vaswani 2017 (arXiv:1706.03762), section 3.2.2, with biases."""
    w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o = params
    outputs, all_weights = [], []
    for n in range(w_q.shape[1]):
        q = query @ w_q[:, n] + b_q[n]
        k = keys @ w_k[:, n] + b_k[n]
        v = values @ w_v[:, n] + b_v[n]
        score = lambda q, k: q @ k / np.sqrt(len(k))
        head, weights = attention(score, q, k, v, valid)
        outputs.append(head @ w_o[n])
        all_weights.append(weights)
    return sum(outputs) + b_o, np.array(all_weights)


def maxout(z):
    """Of neighbouring pairs; Goodfellow 2013 (arXiv:1302.4389)."""
    return np.array([max(a, b) for a, b in zip(z[0::2], z[1::2], strict=True)])


def seq2seq(cell, params, score, source, target, *, luong, feeds):
    """Logits and weights of one target; as in Bahdanau 2015, Luong 2015, or neither.

    `cell(params, state, x)` runs over time from a state, None for zeros, and `score`
    takes a query and a memory and gives the row of weights and the context.
    """
    x, ends = params.source[source], []
    for directions in params.encoder:
        outputs, finals = [], []
        for i, weights in enumerate(directions):
            end, y = cell(weights, None, x[::-1] if i else x)
            outputs.append(y[::-1] if i else y)
            finals += end if isinstance(end, tuple) else (end,)
        ends.append(np.concatenate(finals))
        x = np.concatenate(outputs, 1)
    memory, states = x, []
    for bridge, weights, final in zip(params.bridge, params.decoder, ends, strict=True):
        z = final @ bridge.w + bridge.b
        H = weights.w_h.shape[0]
        h, rest = np.tanh(z[:H]), z[H:]
        states.append((h, rest) if len(rest) else h)
    embeddings = params.source if params.target is None else params.target
    attend = params.attention
    fed = np.zeros(attend.w.shape[1]) if feeds else np.zeros(0)
    logits, rows = [], []
    for token in target:
        e = embeddings[token]
        top = states[-1][0] if isinstance(states[-1], tuple) else states[-1]
        before, context = e, None
        if attend is not None and not luong:
            row, context = score(top, memory)
            before = np.concatenate([e, context])
        s = np.concatenate([before, fed])
        for layer, weights in enumerate(params.decoder):
            states[layer], y = cell(weights, states[layer], s[None])
            s = y[0]
        if attend is None:
            a, row = s, None
        elif luong:
            row, context = score(s, memory)
            a = np.tanh(np.concatenate([context, s]) @ attend.w + attend.b)
        else:
            a = maxout(np.concatenate([s, context, e]) @ attend.w + attend.b)
        fed = a if feeds else fed
        logits.append(a @ params.w_o + params.b_o)
        rows.append(row)
    return np.array(logits), rows


def layer_norm(x, scale, b, epsilon=1e-5):
    """Ba, Kiros and Hinton 2016 (arXiv:1607.06450)."""
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * scale + b


def waves(T, D):
    """Vaswani 2017 (arXiv:1706.03762), section 3.5."""
    at = np.zeros((T, D))
    for t in range(T):
        for i in range(D // 2):
            at[t, 2 * i] = np.sin(t / 10000 ** (2 * i / D))
            at[t, 2 * i + 1] = np.cos(t / 10000 ** (2 * i / D))
    return at


def rotate(x, t):
    """Su 2021 (arXiv:2104.09864), equation 34: one vector at position t."""
    A, turned = len(x), np.zeros_like(x)
    for i in range(A // 2):
        angle = t * 10000 ** (-2 * i / A)
        a, b = x[2 * i], x[2 * i + 1]
        turned[2 * i] = a * np.cos(angle) - b * np.sin(angle)
        turned[2 * i + 1] = a * np.sin(angle) + b * np.cos(angle)
    return turned


def heads_attention(params, x, memory, valid, rotary):
    """`multi_head_attention` with one width, and rotary positions by option."""
    total, rows = params.b_o * 1.0, []
    for n in range(params.w_q.shape[1]):
        q = x @ params.w_q[:, n] + params.b_q[n]
        k = memory @ params.w_k[:, n] + params.b_k[n]
        v = memory @ params.w_v[:, n] + params.b_v[n]
        if rotary:
            q = np.array([rotate(a, t) for t, a in enumerate(q)])
            k = np.array([rotate(a, t) for t, a in enumerate(k)])
        score = lambda q, k: q @ k / np.sqrt(len(k))
        head, weights = attention(score, q, k, v, valid)
        total = total + head @ params.w_o[n]
        rows.append(weights)
    return total, np.array(rows)


def transformer(stack, x, memory, *, causal, rotary, activation=relu, window=None):
    """Vaswani 2017, section 3, of one sequence; or pre-norm, Xiong 2020, figure 1."""
    pre_norm, epsilon = stack.layout
    every = np.ones((len(x), len(x)), bool)
    valid, weights = (np.tril(every) if causal else every), []
    if window is not None:  # Beltagy 2020 (arXiv:2004.05150), figure 2b, one-sided
        valid = valid & ~np.tril(every, -window)
    for layer in stack.layers:
        subs = [
            (lambda a, p=layer: heads_attention(p.attention, a, a, valid, rotary)[0],
             layer.attention_norm),
        ]  # fmt: skip
        if layer.cross is not None:
            all_of_it = np.ones((len(x), len(memory)), bool)

            def cross(a, p=layer, seen=all_of_it):
                out, rows = heads_attention(p.cross, a, memory, seen, False)
                weights.append(rows)
                return out

            subs.append((cross, layer.cross_norm))
        subs.append(
            (lambda a, p=layer: activation(a @ p.w_1 + p.b_1) @ p.w_2 + p.b_2,
             layer.norm)
        )  # fmt: skip
        for f, norm in subs:
            if pre_norm:
                x = x + f(layer_norm(x, *norm, epsilon))
            else:
                x = layer_norm(x + f(x), *norm, epsilon)
    return (x if stack.norm is None else layer_norm(x, *stack.norm, epsilon)), weights
