"""The variants of the built-in cells in NumPy float64, one step of one row.

Written as `tests.reference`, from the papers that `jaxseq.lstm_cell` names, and for the
options that have none from the text of ONNX's operators LSTM and GRU.
"""

import numpy as np

from tests.reference import sigmoid

ACTIVATIONS = {
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha, beta: np.where(x < 0, alpha * (np.exp(x) - 1), x),
    "hard_sigmoid": lambda x, alpha, beta: np.minimum(
        np.maximum(alpha * x + beta, 0), 1
    ),
    "leaky_relu": lambda x, alpha, beta: np.where(x < 0, alpha * x, x),
    "relu": lambda x, alpha, beta: np.maximum(x, 0),
    "scaled_tanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "sigmoid": lambda x, alpha, beta: 1 / (1 + np.exp(-x)),
    "softplus": lambda x, alpha, beta: np.log(1 + np.exp(x)),
    "softsign": lambda x, alpha, beta: x / (1 + np.abs(x)),
    "tanh": lambda x, alpha, beta: (1 - np.exp(-2 * x)) / (1 + np.exp(-2 * x)),
    "thresholded_relu": lambda x, alpha, beta: np.where(x > alpha, x, 0),
}


def by_gate(w, gates):
    """The matrix of each gate, with zeros around the blocks of heads."""
    if w.ndim == 2:
        return np.split(w, gates, axis=1)
    heads, I, Z = w.shape
    O = Z // gates
    dense = np.zeros((gates, heads * I, heads * O))
    for n in range(heads):
        for k, block in enumerate(np.split(w[n], gates, axis=1)):
            dense[k, n * I : (n + 1) * I, n * O : (n + 1) * O] = block
    return list(dense)


def normalized(a, epsilon):
    """Ba 2016, equation 3, before gain and bias."""
    mu = sum(a) / len(a)
    return (a - mu) / np.sqrt(sum((a - mu) ** 2) / len(a) + epsilon)


def clipped(a, clip):
    """ONNX: bounded to [-clip, clip] before an activation."""
    return a if clip is None else np.minimum(np.maximum(a, -clip), clip)


def lstm(
    params, state, x, *, gate=sigmoid, candidate=np.tanh, output=np.tanh, clip=None,
    coupled=False, epsilon=1e-5,
):  # fmt: skip
    """Graves 2013, Greff 2015, Sak 2014 and Ba 2016, as far as there are weights."""
    w_x, w_h, b, extra = params
    h, c = state
    n, projection = len(c), None
    if hasattr(w_h, "projection"):
        w_h, projection = w_h
    zeros = np.zeros(4 * n)
    b_h, peepholes, norms = (None, None, None) if extra is None else extra
    p_i, p_f, p_o = np.zeros((3, n)) if peepholes is None else peepholes
    z_x = np.concatenate([x @ W for W in np.split(w_x, 4, axis=1)])
    z_h = np.concatenate([h @ W for W in by_gate(w_h, 4)])
    z_x = z_x + (zeros if b is None else b)
    z_h = z_h + (zeros if b_h is None else b_h)
    LN = lambda a: a
    if norms is not None:
        gain_x, gain_h, gain_c, bias_c, b_after = norms
        z_x = normalized(z_x, epsilon) * gain_x + b_after
        z_h = normalized(z_h, epsilon) * gain_h
        LN = lambda c: normalized(c, epsilon) * gain_c + bias_c
    z_i, z_f, z_g, z_o = np.split(z_x + z_h, 4)
    i = gate(clipped(z_i + p_i * c, clip))
    f = 1 - i if coupled else gate(clipped(z_f + p_f * c, clip))
    g = candidate(clipped(z_g, clip))
    c = f * c + i * g
    o = gate(clipped(z_o + p_o * c, clip))
    m = o * output(LN(c))
    return (m if projection is None else m @ projection), c


def gru(params, h, x, *, gate=sigmoid, candidate=np.tanh, clip=None):
    """Cho 2014, equations 5 to 8; ONNX's for `linear_before_reset` and two biases."""
    w_x, w_h, b, b_h = params
    H = len(h)
    W_xr, W_xz, W_xn = np.split(w_x, 3, axis=1)
    before = hasattr(w_h, "candidate")
    if before:
        W_hr, W_hz = by_gate(w_h.gates, 2)
        (W_hn,) = by_gate(w_h.candidate, 1)
    else:
        W_hr, W_hz, W_hn = by_gate(w_h, 3)
    b_r, b_z, b_n = np.split(b, 3)
    b_h = np.zeros(H) if b_h is None else b_h
    b_hr, b_hz, b_hn = np.split(np.concatenate([np.zeros(3 * H - len(b_h)), b_h]), 3)
    r = gate(clipped(x @ W_xr + h @ W_hr + b_r + b_hr, clip))
    z = gate(clipped(x @ W_xz + h @ W_hz + b_z + b_hz, clip))
    if before:
        n = candidate(clipped(x @ W_xn + b_n + (r * h) @ W_hn + b_hn, clip))
    else:
        n = candidate(clipped(x @ W_xn + b_n + r * (h @ W_hn + b_hn), clip))
    return (1 - z) * n + z * h


def rnn(params, h, x, *, activation=np.tanh, clip=None):
    """Elman 1990, with two biases."""
    w_x, w_h, b, b_h = params
    return activation(clipped(x @ w_x + b + h @ w_h + b_h, clip))


def dropped_lstm(params, state, inputs, *, rate, step=lstm):
    """Gal 2016 (arXiv:1512.05287), section 4; Krueger 2017, equations 3 and 4."""
    x, mask_x, z_h, d_h, d_c = inputs
    h, c = state
    new_h, new_c = step(params, (h * z_h / (1 - rate), c), x * mask_x)
    return d_h * h + (1 - d_h) * new_h, d_c * c + (1 - d_c) * new_c


def dropped_gru(params, h, inputs, *, rate, after):
    """The same of a GRU, whose old state in the sum is not dropped."""
    (w_x, w_h, b, b_hn) = params
    x, mask_x, *masks, d = inputs
    x = x * mask_x
    W_xr, W_xz, W_xn = np.split(w_x, 3, axis=1)
    b_r, b_z, b_n = np.split(b, 3)
    h_gates = h * masks[0] / (1 - rate)
    if after:
        W_hr, W_hz, W_hn = np.split(w_h, 3, axis=1)
    else:
        (W_hr, W_hz), W_hn = np.split(w_h.gates, 2, axis=1), w_h.candidate
    r = sigmoid(x @ W_xr + h_gates @ W_hr + b_r)
    z = sigmoid(x @ W_xz + h_gates @ W_hz + b_z)
    if after:
        n = np.tanh(x @ W_xn + b_n + r * (h_gates @ W_hn + b_hn))
    else:
        n = np.tanh(x @ W_xn + b_n + (r * h * masks[1] / (1 - rate)) @ W_hn)
    new = (1 - z) * n + z * h
    return d * h + (1 - d) * new
