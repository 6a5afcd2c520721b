"""Silero VAD: whether somebody speaks, by convolutions and an LSTM."""

import numpy as np
import onnxruntime
from scipy.signal import resample_poly

from experiments.pretrained import voice
from tests.experiments.helpers import REAL, real
from tests.networks.published import path


def made(seconds, rng):
    """Hums of several tones under a changing loudness, and noise between them."""
    t = np.arange(seconds * voice.RATE) / voice.RATE
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / voice.RATE
    voiced = sum(np.sin(k * phase) / k for k in range(1, 20))
    loud = np.maximum(0, np.sin(2 * np.pi * 1.3 * t)) * (np.sin(2 * np.pi * t / 5) > 0)
    sound = 0.1 * voiced * loud + 0.01 * rng.standard_normal(len(t))
    return sound.astype(np.float32)


def spoken(minutes):
    """Digits that people say, one after another."""
    with np.load(REAL / "fsdd/fsdd.npz") as file:
        audio = file["audio"][: minutes * 60 * voice.RATE // 2]
    return resample_poly(audio.astype(np.float32) / 32768, 2, 1).astype(np.float32)


def theirs(samples):
    """The chances that the published network gives in ONNX Runtime, step by step."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    name = path("silero_vad/data/silero_vad.onnx")
    session = onnxruntime.InferenceSession(str(name), options)
    state, rate = np.zeros((2, 1, 128), np.float32), np.array(16_000)
    samples = np.pad(samples, (0, -len(samples) % 512))
    found, before = [], np.zeros(64, np.float32)
    for chunk in samples.reshape(-1, 512):
        seen = np.concatenate([before, chunk])[None]
        given = {"input": seen, "state": state, "sr": rate}
        chance, state = session.run(None, given)
        found.append(chance.item())
        before = chunk[-64:]
    return np.array(found), state[:, 0]


def same(samples):
    want, end = theirs(samples)
    network, steps = voice.load(), voice.chunks(samples)
    (state,), found = voice.step(network, steps)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.stack(state), end, rtol=0, atol=1e-3)
    return want, found


def test_made_sounds():
    samples = made(20, np.random.default_rng(0))[:-100]
    want, found = same(samples)
    assert want.min() < 0.1 and want.max() > 0.5
    # a stream, one step of sound after another
    network, state = voice.load(), None
    for steps, chance in zip(voice.chunks(samples)[:100], found, strict=False):
        state, one = voice.step(network, steps[None], state)
        np.testing.assert_allclose(one[0], chance, rtol=0, atol=1e-5)


@real
def test_minutes_of_speech():
    want, found = same(spoken(5))
    assert (want > 0.5).mean() > 0.5
    assert np.array_equal(want > 0.5, np.asarray(found) > 0.5)
