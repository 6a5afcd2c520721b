"""Whether somebody speaks: the 16 kHz network of Silero VAD.

A convolution with sines and cosines gives the spectrum of each 32 ms of sound, four
more convolutions 128 features, and an LSTM of 128 reads these from one 32 ms to the
next. https://github.com/snakers4/silero-vad
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pretrained.weights import arrays
from jaxseq.convert import Network, from_torch

INSTALL = "pip install --no-deps silero-vad==6.2.3"
RATE = 16_000  # samples a second
CHUNK = 512  # samples a step
BEFORE = 64  # samples of the step before that each one sees again
AFTER = 64  # samples mirrored at its end
HOP, BINS = 128, 129  # of the spectrum
STRIDES = 1, 2, 2, 1


LSTM = "decoder.rnn"


class Voice(NamedTuple):
    rest: Mapping[str, Any]  # weights of the convolutions and the output, by name
    lstm: Network


def load() -> Voice:
    found = arrays("silero_vad", "data/silero_vad_16k_op15.onnx", INSTALL)
    found = {name.removeprefix("model."): a for name, a in found.items()}
    rest = {k: a for k, a in found.items() if not k.startswith(f"{LSTM}.")}
    return Voice(rest, from_torch(found, prefix=LSTM))


def chunks(samples: np.ndarray) -> np.ndarray:
    """Samples as steps, `(T, BEFORE + CHUNK)`, the last one filled up with zeros."""
    T = -(-len(samples) // CHUNK)
    padded = np.pad(samples, (BEFORE, T * CHUNK - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, BEFORE + CHUNK)
    return windows[::CHUNK]


@jax.jit
def step(voice: Voice, steps: Any, state: Any = None) -> tuple[Any, Any]:
    """The state after these steps `(T, BEFORE + CHUNK)`, and chances of speech `(T,)`.

    Without `state`, as at the start of a recording.
    """
    rest = jax.tree.map(jnp.asarray, voice.rest)
    sound = jnp.pad(jnp.asarray(steps), ((0, 0), (0, AFTER)), mode="reflect")
    waves = _convolved(sound[:, None], rest["stft.forward_basis_buffer"], HOP, 0)
    x = jnp.sqrt(waves[:, :BINS] ** 2 + waves[:, BINS:] ** 2)
    for n, stride in enumerate(STRIDES):
        name = f"encoder.{n}.reparam_conv"
        x = _convolved(x, rest[f"{name}.weight"], stride, 1)
        x = jax.nn.relu(x + rest[f"{name}.bias"][:, None])
    state, h = voice.lstm(x[:, :, 0], state)
    w, b = rest["decoder.decoder.2.weight"][0, :, 0], rest["decoder.decoder.2.bias"]
    return state, jax.nn.sigmoid(jax.nn.relu(h) @ w + b)


def _convolved(x: Any, w: Any, stride: int, pad: int) -> Any:
    """Along the last axis of `x`, `(N, channels, samples)`."""
    axes = ("NCH", "OIH", "NCH")
    return jax.lax.conv_general_dilated(
        x, w, (stride,), [(pad, pad)], dimension_numbers=axes
    )


def chances(voice: Voice, samples: np.ndarray) -> np.ndarray:
    """How likely each 32 ms of a recording are speech."""
    _, found = step(voice, chunks(samples))
    return np.asarray(found)


def stretches(chances: np.ndarray, threshold: float = 0.5) -> list[tuple[float, float]]:
    """Seconds at which speech starts and ends."""
    spoken = np.pad(chances >= threshold, 1).astype(int)
    edges = np.flatnonzero(np.diff(spoken)) * (CHUNK / RATE)
    return [*zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
