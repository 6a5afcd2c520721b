"""Learns from a stream in pieces: a scan of one's own over `lstm_step`.

Every third bit of the stream is the XOR of the two before, the others are random
(Elman, "Finding Structure in Time", 1990). A piece has 50 bits, so that where a triple
begins has to be remembered from one piece to the next. The carry of the scan holds the
state of the LSTM and how surprised it has been of late. All that an update replaces is
donated to it: the weights, the state of the optimizer, and the carry.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxseq

optimizer = optax.adam(1e-2)
ROWS, PIECE, H = 16, 50, 24


def init(key):
    below, above = jax.random.split(key)
    head = jax.random.normal(above, (H,)) / H**0.5
    return {"lstm": jaxseq.lstm_init(below, 2, H), "head": head}


def start(params):
    return jaxseq.lstm_zeros(params["lstm"], ROWS), jnp.full(ROWS, jnp.log(2.0))


def step(params, carry, bits):
    """Reads a bit of each row and its guess is held to the next one."""
    (state, surprise), (bit, after) = carry, bits
    state, h = jaxseq.lstm_step(params["lstm"], state, jnp.stack([bit, surprise], -1))
    loss = optax.sigmoid_binary_cross_entropy(h @ params["head"], after)
    surprise = 0.9 * surprise + 0.1 * jax.lax.stop_gradient(loss)
    return (state, surprise), loss


def read(params, carry, bits):  # (PIECE + 1, ROWS), time first as of any scan
    carry, losses = jax.lax.scan(partial(step, params), carry, (bits[:-1], bits[1:]))
    return losses.mean(), (carry, losses)


@partial(jax.jit, donate_argnums=(0, 1, 2))
def update(params, state, carry, bits):
    grads, (carry, losses) = jax.grad(read, has_aux=True)(params, carry, bits)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state, carry, losses


def stream(rng, length):
    bits = rng.integers(0, 2, (length, 3, ROWS))
    bits[:, 2] = bits[:, 0] ^ bits[:, 1]
    return bits.reshape(-1, ROWS).astype(np.float32)


def main(pieces=400):
    bits = stream(np.random.default_rng(0), pieces * PIECE // 3 + 1)
    params = init(jax.random.key(0))
    state, carry = optimizer.init(params), start(params)
    losses = []
    for i in range(pieces):
        piece = bits[i * PIECE : (i + 1) * PIECE + 1]
        params, state, carry, new = update(params, state, carry, piece)
        losses.extend(np.asarray(new.mean(1)))
    known, random = (float(np.mean(losses[k::3][-200:])) for k in (1, 0))
    print(f"loss of bits that can be known {known:.3f}, of random ones {random:.3f}")
    return params, carry, known, random


if __name__ == "__main__":
    main()
