"""Sound, and what a network hears of it: log-mel bands of short windows."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft
from scipy.io import wavfile
from scipy.signal import resample_poly
from scipy.sparse import csr_array

from experiments.frame.errors import InputError
from experiments.speech.header import check_header

RATE = 8000  # samples a second
LOWEST, HIGHEST = 1_000, 1_000_000  # of a file
WINDOW, HOP = 200, 80  # 25 and 10 ms
FFT = 256
BANDS, LOW, HIGH = 40, 50.0, 4000.0
QUIET = 1e-6  # of the power of the loudest band: what is below is silence


def read_wav(path: Path, wanted: int = RATE) -> np.ndarray:
    """A sound as samples between -1 and 1 at one rate, of several channels the mean."""
    check_header(path)
    try:
        with warnings.catch_warnings():  # of parts of the file that hold no sound
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except Exception as e:  # scipy fails in many ways
        why = f" ({e})" if isinstance(e, ValueError) else ""
        raise InputError(
            f"{path}: not a sound file (.wav) that can be read{why}"
        ) from e
    if not LOWEST <= rate <= HIGHEST:
        raise InputError(
            f"{path}: {rate:,} samples a second in its header, {LOWEST:,} to "
            f"{HIGHEST:,} expected"
        )
    if samples.dtype.kind in "iu":
        width = 8 * samples.dtype.itemsize - 1
        offset = 1 << width if samples.dtype.kind == "u" else 0
        samples = (samples.astype(np.float32) - offset) / (1 << width)
    samples = samples.astype(np.float32)
    samples = samples.mean(1) if samples.ndim == 2 else samples
    if not samples.size:
        raise InputError(f"{path}: no sound in it")
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: samples that are not finite numbers")
    if rate != wanted:
        samples = resample_poly(samples, wanted, rate).astype(np.float32)
    return samples


def wav(samples: np.ndarray) -> bytes:
    """The sound as a file of 16 bits a sample, as loud as that allows."""
    buffer = io.BytesIO()
    loudest = max(float(np.abs(samples).max()), 1e-9)
    wavfile.write(buffer, RATE, (samples / loudest * 32767).astype(np.int16))
    return buffer.getvalue()


def mel(hertz: np.ndarray | float) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def mel_bands() -> np.ndarray:
    """Corners of the bands in hertz, `(BANDS + 2,)`: low end, peaks, high end."""
    corners = np.linspace(mel(LOW), mel(HIGH), BANDS + 2)
    return 700 * (10 ** (corners / 2595) - 1)


def mel_filters() -> np.ndarray:
    """Triangles over the frequencies of the FFT, `(FFT / 2 + 1, BANDS)`."""
    corners = mel_bands()
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    f = np.fft.rfftfreq(FFT, 1 / RATE)[:, None]
    rise, fall = (f - low) / (peak - low), (high - f) / (high - peak)
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


FILTERS = csr_array(mel_filters())  # a frequency lies in two bands at most
HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def power(samples: np.ndarray) -> np.ndarray:
    """The power of each frequency in each window, `(T, FFT / 2 + 1)`."""
    if len(samples) < WINDOW:
        samples = np.pad(samples, (0, WINDOW - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum: Any = fft.rfft(windows * HANN, FFT)
    return spectrum.real**2 + spectrum.imag**2


def log_mel(samples: np.ndarray, center: bool = False) -> np.ndarray:
    """Log-mel frames `(T, BANDS)`, from -2, silence, to 2, the loudest band.

    If `center`, each band has the mean 0 instead, and all together the variance 1.
    """
    bands = power(samples) @ FILTERS
    shares = np.maximum(bands / max(float(bands.max()), 1e-12), QUIET)
    frames = 2 - 4 * np.log(shares) / np.log(QUIET)
    if center:
        frames -= frames.mean(0)
        frames /= frames.std() + 1e-3
    return frames.astype(np.float32)


def stacked(frames: np.ndarray, n: int) -> np.ndarray:
    """Each `n` frames as one step, `(ceil(T / n), n * BANDS)`."""
    short = -len(frames) % n
    frames = np.pad(frames, ((0, short), (0, 0)), mode="edge")
    return frames.reshape(len(frames) // n, -1)


def changed(chance: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    """The sound at another speed, and so another pitch, with noise."""
    n = round(len(samples) / chance.uniform(0.8, 1.25))
    at = np.linspace(0, len(samples) - 1, n)
    samples = np.interp(at, np.arange(len(samples)), samples)
    noise = 10 ** (-chance.uniform(15, 50) / 20) * np.std(samples)
    return (samples + noise * chance.standard_normal(n)).astype(np.float32)


def left_out(chance: np.random.Generator) -> list[slice]:
    """Two runs of up to six bands, to be set to 0 (Park and others, 2019)."""
    runs = []
    for _ in range(2):
        width = int(chance.integers(0, 7))
        start = int(chance.integers(0, BANDS - width))
        runs.append(slice(start, start + width))
    return runs
