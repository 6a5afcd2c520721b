"""Digits in Morse code, as many a sender keys them.

The code and its times are those of ITU-R M.1677-1: a dash is as long as three dots,
the space within a digit as one, that between two digits as three.
"""

import numpy as np

from experiments.speech.audio import RATE

DASH, GAP = 3, 3  # dots
EDGE = 0.004  # seconds in which a tone comes and goes


def code(digit: int) -> str:
    """Five dots and dashes: dots first up to 5, dashes first from 6 on."""
    dots = "." * digit + "-" * (5 - digit)
    return dots if digit <= 5 else "-" * (digit - 5) + "." * (10 - digit)


def keyed(
    digits: list[int],
    dot: float,
    *,
    dash: float = DASH,
    jitter: float = 0.0,
    chance: np.random.Generator,
) -> list[tuple[bool, float]]:
    """Whether the key is down and for how many seconds, in turn.

    A dot takes `dot` seconds. Each time differs by chance, by a share of about
    `jitter`.
    """
    times = []
    for i, digit in enumerate(digits):
        for j, mark in enumerate(code(digit)):
            if i + j:
                times.append((False, 1 if j else GAP))
            times.append((True, dash if mark == "-" else 1))
    shares = np.exp(jitter * chance.standard_normal(len(times)))
    return [(on, dot * n * s) for (on, n), s in zip(times, shares, strict=True)]


def tone(times: list[tuple[bool, float]], pitch: float) -> np.ndarray:
    """The sound of a key, `pitch` in hertz, without noise."""
    ends = np.cumsum([round(RATE * seconds) for _, seconds in times])
    loud = np.zeros(ends[-1] if len(ends) else 0)
    for (on, _), start, end in zip(times, [0, *ends], ends, strict=False):
        loud[start:end] = on
    n = round(EDGE * RATE)
    hann = np.hanning(n + 2)[1:-1]
    loud = np.convolve(np.pad(loud, n), hann / hann.sum(), "same")[n:-n]
    return loud * np.sin(2 * np.pi * pitch * np.arange(len(loud)) / RATE)


def sent(chance: np.random.Generator, digits: list[int]) -> np.ndarray:
    """The digits by a sender drawn by chance: speed, pitch, hand and noise."""
    words_a_minute = chance.uniform(25, 40)
    dot = 1.2 / words_a_minute  # seconds: PARIS and its space are 50 dots
    dash, jitter = chance.uniform(2.7, 3.3), chance.uniform(0, 0.12)
    before, after = chance.uniform(0.05, 0.25, 2)
    times = keyed(digits, dot, dash=dash, jitter=jitter, chance=chance)
    times = [(False, before), *times, (False, after)]
    sound = tone(times, chance.uniform(400, 1000))
    noise = 10 ** (-chance.uniform(0, 20) / 20) * 0.5**0.5  # to the tone's power
    return (sound + noise * chance.standard_normal(len(sound))).astype(np.float32)
