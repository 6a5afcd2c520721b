"""Cells of papers, written from their equations."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, nn

from benchmarks.cases import Shape
from benchmarks.scan.body import Body, Random
from benchmarks.scan.cases import BLOCKS

HEADS = 4


def block_gru(shape: Shape, random: Random) -> Body:
    """The recurrence of a world model: a GRU in blocks, with RMS norms.

        a_t = silu(norm(W_h h_{t-1})),  b_t = silu(norm(W_x x_t))
        z_t = silu(norm(W_1 [h_{t-1}, a_t, b_t]))     each block apart
        r_t, c_t, u_t = W_2 z_t + b                   each block apart
        u_t = σ(u_t - 1)
        h_t = u_t ⊙ tanh(σ(r_t) ⊙ c_t) + (1 - u_t) ⊙ h_{t-1}

    Hafner, Pasukonis, Ba and Lillicrap, "Mastering Diverse Domains through World
    Models", 2023, https://arxiv.org/abs/2301.04104.
    """
    B, _, D, H = shape
    width = H // BLOCKS
    gain = lambda: 1 + random.uniform(H, size=H)
    weights = {
        "h": random.uniform(H, H, size=H),
        "x": random.uniform(D, H, size=D),
        "in": random.uniform(BLOCKS, 3 * width, width, size=3 * width),
        "out": random.uniform(BLOCKS, width, 3 * width, size=width),
        "b": random.uniform(BLOCKS, 3 * width, size=H),
        "gains": (gain(), gain(), gain()),
    }
    blocks = lambda a: a.reshape(B, BLOCKS, width)
    product = lambda a, w: jnp.einsum("bki,kio->bko", a, w)

    def make(w: Any) -> Any:
        of_h, of_x, of_both = w["gains"]

        def body(h: Any, x: Any) -> Any:
            a = nn.silu(rms_norm(h @ w["h"], of_h))
            b = nn.silu(rms_norm(x @ w["x"], of_x))
            z = jnp.concatenate([blocks(h), blocks(a), blocks(b)], -1)
            z = nn.silu(rms_norm(product(z, w["in"]).reshape(B, H), of_both))
            gates = jnp.split(product(blocks(z), w["out"]) + w["b"], 3, -1)
            r, c, u = (gate.reshape(B, H) for gate in gates)
            u = nn.sigmoid(u - 1)
            h = u * jnp.tanh(nn.sigmoid(r) * c) + (1 - u) * h
            return h, h

        return body

    return Body(make, weights, random.normal(B, H))


def rms_norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-4) * gain


def slstm(shape: Shape, random: Random) -> Body:
    """sLSTM: exponential gates, a normaliser n, a stabiliser m, heads.

        i_t, f_t, z_t, o_t = W x_t + R h_{t-1} + b    R in blocks, one a head
        m_t = max(log σ(f_t) + m_{t-1}, i_t)
        i'_t = exp(i_t - m_t),  f'_t = exp(log σ(f_t) + m_{t-1} - m_t)
        c_t = f'_t ⊙ c_{t-1} + i'_t ⊙ tanh(z_t)
        n_t = f'_t ⊙ n_{t-1} + i'_t
        h_t = σ(o_t) ⊙ c_t / n_t

    Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024,
    https://arxiv.org/abs/2405.04517, equations 8 to 17.
    """
    B, _, D, H = shape
    width = H // HEADS
    weights = {
        "x": random.uniform(D, 4 * H, size=H),
        "h": random.uniform(HEADS, width, 4 * width, size=width),
        "b": random.uniform(4 * H, size=H),
    }

    def make(w: Any) -> Any:
        def body(state: Any, x: Any) -> Any:
            h, c, n, m = state
            heads = h.reshape(B, HEADS, width)
            of_h = jnp.einsum("bki,kio->bko", heads, w["h"])
            of_h = of_h.reshape(B, HEADS, 4, width).swapaxes(1, 2).reshape(B, 4 * H)
            i, f, z, o = jnp.split(x @ w["x"] + of_h + w["b"], 4, -1)
            f = nn.log_sigmoid(f) + m
            m = jnp.maximum(f, i)
            i, f = jnp.exp(i - m), jnp.exp(f - m)
            c = f * c + i * jnp.tanh(z)
            n = f * n + i
            h = nn.sigmoid(o) * c / n
            return (h, c, n, m), h

        return body

    h, c, n, m = (random.normal(B, H) for _ in range(4))
    return Body(make, weights, (h, c, 1 + jnp.abs(n), m))


WRITTEN = {"block GRU": block_gru, "sLSTM": slstm}
