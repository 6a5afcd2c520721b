"""One step of published cells in NumPy float64, from the papers, for `examples`.

Written as `tests.reference`: one gate a line, each with its own matrices, and nothing
shared with the library or the examples. `x`, and each part of a state, is one row.
`over_time` makes of a step what `reference.sequence` runs.
"""

import numpy as np

from tests.reference import relu, sigmoid


def over_time(step):
    """A cell `(params, state, x) -> (state, y)` for `x` of any number of steps."""

    def cell(params, state, x):
        y = []
        for x_t in x:
            state = step(params, state, x_t)
            y.append(state[0] if isinstance(state, tuple) else state)
        H = len(state[0] if isinstance(state, tuple) else state)
        return state, np.array(y).reshape(len(x), H)

    return cell


def gates(w, count):
    """The matrices or vectors that stand side by side in `w`."""
    return np.split(w, count, axis=-1)


def mgu(params, h, x):
    """Zhou 2016 (arXiv:1603.09420), the minimal gated unit."""
    w_x, w_h, b, _ = params
    W_f, W_h = gates(w_x, 2)
    b_f, b_h = gates(b, 2)
    U_f, U_h = w_h["f"], w_h["h"]
    f = sigmoid(x @ W_f + h @ U_f + b_f)
    h_tilde = np.tanh(x @ W_h + (f * h) @ U_h + b_h)
    return (1 - f) * h + f * h_tilde


def reset_before_gru(params, h, x):
    """Cho 2014 (arXiv:1406.1078), equations 5 to 8, with biases."""
    w_x, w_h, b, _ = params
    W_r, W_z, W = gates(w_x, 3)
    b_r, b_z, b = gates(b, 3)
    U_r, U_z = gates(w_h["gates"], 2)
    U = w_h["candidate"]
    r = sigmoid(x @ W_r + h @ U_r + b_r)
    z = sigmoid(x @ W_z + h @ U_z + b_z)
    h_tilde = np.tanh(x @ W + (r * h) @ U + b)
    return z * h + (1 - z) * h_tilde


def peephole_lstm(params, state, x):
    """Graves 2013 (arXiv:1308.0850), equations 7 to 11."""
    w_x, w_h, b, (w_ci, w_cf, w_co) = params
    h, c = state
    W_xi, W_xf, W_xc, W_xo = gates(w_x, 4)
    W_hi, W_hf, W_hc, W_ho = gates(w_h, 4)
    b_i, b_f, b_c, b_o = gates(b, 4)
    W_ci, W_cf, W_co = np.diag(w_ci), np.diag(w_cf), np.diag(w_co)
    i = sigmoid(x @ W_xi + h @ W_hi + c @ W_ci + b_i)
    f = sigmoid(x @ W_xf + h @ W_hf + c @ W_cf + b_f)
    c = f * c + i * np.tanh(x @ W_xc + h @ W_hc + b_c)
    o = sigmoid(x @ W_xo + h @ W_ho + c @ W_co + b_o)
    return o * np.tanh(c), c


def layer_norm_lstm(params, state, x):
    """Ba 2016 (arXiv:1607.06450), supplementary material; b is their β_1 + β_2 + b."""
    W_x, W_h, _, (alpha_1, alpha_2, alpha_3, beta_3, b) = params
    h, c = state

    def LN(a, alpha, beta):
        mu = sum(a) / len(a)
        sigma = np.sqrt(sum((a - mu) ** 2) / len(a) + 1e-5)
        return (a - mu) / sigma * alpha + beta

    f, i, o, g = gates(LN(h @ W_h, alpha_1, 0) + LN(x @ W_x, alpha_2, 0) + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(LN(c, alpha_3, beta_3)), c


def cifg_lstm(params, state, x):
    """Greff 2015 (arXiv:1503.04069), the variant CIFG."""
    w_x, w_h, b, (p_i, p_o) = params
    y, c = state
    W_z, W_i, W_o = gates(w_x, 3)
    R_z, R_i, R_o = gates(w_h, 3)
    b_z, b_i, b_o = gates(b, 3)
    z = np.tanh(x @ W_z + y @ R_z + b_z)
    i = sigmoid(x @ W_i + y @ R_i + p_i * c + b_i)
    f = 1 - i
    c = z * i + c * f
    o = sigmoid(x @ W_o + y @ R_o + p_o * c + b_o)
    return np.tanh(c) * o, c


def projected_lstm(params, state, x):
    """Sak 2014 (arXiv:1402.1128), without peepholes and p_t."""
    w_x, w_h, b, _ = params
    r, c = state
    W_ix, W_fx, W_cx, W_ox = gates(w_x, 4)
    W_ir, W_fr, W_cr, W_or = gates(w_h["gates"], 4)
    b_i, b_f, b_c, b_o = gates(b, 4)
    W_rm = w_h["projection"]
    i = sigmoid(x @ W_ix + r @ W_ir + b_i)
    f = sigmoid(x @ W_fx + r @ W_fr + b_f)
    c = f * c + i * np.tanh(x @ W_cx + r @ W_cr + b_c)
    o = sigmoid(x @ W_ox + r @ W_or + b_o)
    m = o * np.tanh(c)
    return m @ W_rm, c


def multiplicative_lstm(params, state, x):
    """Krause 2016 (arXiv:1609.07959), with biases."""
    w_x, w_h, b, _ = params
    h, c = state
    W_mx, W_hx, W_ix, W_ox, W_fx = gates(w_x, 5)
    b_m, b_h, b_i, b_o, b_f = gates(b, 5)
    W_hm, W_im, W_om, W_fm = gates(w_h["gates"], 4)
    W_mh = w_h["m"]
    m = (x @ W_mx + b_m) * (h @ W_mh)
    h_hat = x @ W_hx + m @ W_hm + b_h
    i = sigmoid(x @ W_ix + m @ W_im + b_i)
    o = sigmoid(x @ W_ox + m @ W_om + b_o)
    f = sigmoid(x @ W_fx + m @ W_fm + b_f)
    c = f * c + i * h_hat
    return np.tanh(c * o), c


def indrnn(params, h, x):
    """Li 2018 (arXiv:1803.04831), equation 2, with relu."""
    W, _, b, u = params
    return relu(x @ W + u * h + b)


def gru_d(params, state, inputs):
    """Che 2018 (arXiv:1606.01865), for variables of mean zero."""
    _, w_h, _, (w_gamma_x, b_gamma_x, b_gamma_h, b) = params
    h, x_last = state
    x, m, delta = inputs
    W_r, W_z, W = gates(w_h["W"], 3)
    V_r, V_z, V = gates(w_h["V"], 3)
    U_r, U_z = gates(w_h["U_rz"], 2)
    U, W_gamma_h = w_h["U"], w_h["gamma"]
    b_r, b_z, b = gates(b, 3)
    mean = np.zeros(len(x))
    gamma_x = np.exp(-np.maximum(0, delta @ np.diag(w_gamma_x) + b_gamma_x))
    gamma_h = np.exp(-np.maximum(0, delta @ W_gamma_h + b_gamma_h))
    x_hat = m * x + (1 - m) * (gamma_x * x_last + (1 - gamma_x) * mean)
    h = gamma_h * h
    r = sigmoid(x_hat @ W_r + h @ U_r + m @ V_r + b_r)
    z = sigmoid(x_hat @ W_z + h @ U_z + m @ V_z + b_z)
    h_tilde = np.tanh(x_hat @ W + (r * h) @ U + m @ V + b)
    return (1 - z) * h + z * h_tilde, m * x + (1 - m) * x_last


def slstm(params, state, x):
    """Beck 2024 (arXiv:2405.04517), section 2.2, the forget gate a sigmoid."""
    w_x, w_h, b, _ = params
    h, c, n, m_before = state
    W_z, W_i, W_f, W_o = gates(w_x, 4)
    b_z, b_i, b_f, b_o = gates(b, 4)

    def block_diagonal(blocks):
        heads, size, _ = blocks.shape
        R = np.zeros((heads * size, heads * size))
        for k, block in enumerate(blocks):
            at = slice(k * size, (k + 1) * size)
            R[at, at] = block
        return R

    R_z, R_i, R_f, R_o = (block_diagonal(w_h[gate]) for gate in "zifo")
    z = np.tanh(x @ W_z + h @ R_z + b_z)
    i = np.exp(x @ W_i + h @ R_i + b_i)
    f = sigmoid(x @ W_f + h @ R_f + b_f)
    o = sigmoid(x @ W_o + h @ R_o + b_o)
    m = np.maximum(np.log(f) + m_before, np.log(i))
    i_stable = np.exp(np.log(i) - m)
    f_stable = np.exp(np.log(f) + m_before - m)
    c = f_stable * c + i_stable * z
    n = f_stable * n + i_stable
    return o * (c / n), c, n, m


def sru(params, state, x):
    """Lei 2018 (arXiv:1709.02755), equations 1 to 4."""
    (w_x, _), _, _, (v_f, v_r, b_f, b_r) = params
    _, c = state
    W, W_f, W_r = gates(w_x, 3)
    f = sigmoid(x @ W_f + v_f * c + b_f)
    r = sigmoid(x @ W_r + v_r * c + b_r)
    c = f * c + (1 - f) * (x @ W)
    return r * c + (1 - r) * x, c


def zoneout_lstm(params, state, inputs):
    """Krueger 2017 (arXiv:1606.01305)."""
    (w_x, _, _), w_h, b, _ = params
    h, c = state
    x, d_c, d_h = inputs
    W_xi, W_xf, W_xg, W_xo = gates(w_x, 4)
    W_hi, W_hf, W_hg, W_ho = gates(w_h, 4)
    b_i, b_f, b_g, b_o = gates(b, 4)
    i = sigmoid(x @ W_xi + h @ W_hi + b_i)
    f = sigmoid(x @ W_xf + h @ W_hf + b_f)
    g = np.tanh(x @ W_xg + h @ W_hg + b_g)
    o = sigmoid(x @ W_xo + h @ W_ho + b_o)
    h = d_h * h + (1 - d_h) * (o * np.tanh(f * c + i * g))
    c = d_c * c + (1 - d_c) * (f * c + i * g)
    return h, c
