"""Speech as its user runs it: train, stop, resume, transcribe, mistakes."""

import itertools
import json
import re
import struct
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal
from scipy.io import wavfile

from experiments.frame.errors import InputError
from experiments.speech import audio, data, morse
from experiments.speech.__main__ import main
from experiments.speech.audio import HOP, RATE, WINDOW
from experiments.speech.data import Batch, Example
from experiments.speech.model import Heard, loss, scores
from experiments.speech.recordings import Recording, split
from experiments.speech.recordings import recordings as read
from experiments.speech.settings import Settings, preset
from tests.experiments.helpers import error, refused, resumes

# two digits of Morse code in one width
SMALL = """--hidden 4 --layers 1 --batch 4 --digits 2 --strings 4 --stack 6
--beam 2 --dropout 0.2 --steps 5""".split()
SPEAKERS = ("ann", "bob")
NUMBERS = (0, 4, 5, 7, 8)


@pytest.fixture(autouse=True, scope="module")
def one_width():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "WIDTHS", (64,))
        yield


def trained(out, *options):
    return main(["train", "--out", str(out), *SMALL, *map(str, options)])


def said(digit, speaker, number):
    """A "recording": a tone for each digit, at a level for each speaker."""
    n = 1200 + 40 * number
    wave = np.sin(2 * np.pi * (300 + 250 * digit) * np.arange(n) / RATE)
    return (8000 * (1 + SPEAKERS.index(speaker)) * wave).astype(np.int16)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdd") / "recordings"
    folder.mkdir()
    for digit, speaker, number in itertools.product(range(10), SPEAKERS, NUMBERS):
        path = folder / f"{digit}_{speaker}_{number}.wav"
        wavfile.write(path, RATE, said(digit, speaker, number))
    (folder / "notes.wav").write_bytes(b"not one of them")
    return folder.parent


# sound


def test_power_is_that_of_the_signal():
    """Parseval; and SciPy's own spectrogram."""
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    found = audio.power(x)
    assert len(found) == 1 + (1000 - WINDOW) // HOP
    hann = signal.get_window("hann", WINDOW)
    both_sides = np.full(audio.FFT // 2 + 1, 2.0)
    both_sides[[0, -1]] = 1
    for t in (0, 7, len(found) - 1):
        energy = ((x[t * HOP : t * HOP + WINDOW] * hann) ** 2).sum()
        np.testing.assert_allclose(found[t] @ both_sides / audio.FFT, energy, rtol=1e-4)
    _, _, other = signal.spectrogram(
        x, RATE, "hann", WINDOW, WINDOW - HOP, audio.FFT, detrend=False,
        scaling="spectrum",
    )  # fmt: skip
    other = other.T / both_sides * hann.sum() ** 2
    np.testing.assert_allclose(found, other, rtol=2e-3, atol=1e-3)


def test_mel_filters():
    filters, corners = audio.mel_filters(), audio.mel_bands()
    assert filters.shape == (audio.FFT // 2 + 1, 40) and filters.min() == 0
    assert (filters.sum(0) > 0).all()
    f = np.arange(len(filters)) * RATE / audio.FFT
    inside = (f >= corners[1]) & (f <= corners[-2])
    np.testing.assert_allclose(filters[inside].sum(1), 1, rtol=1e-5)  # none is lost
    assert audio.mel(1000) == pytest.approx(1000, abs=0.1)  # as the scale is defined
    np.testing.assert_allclose(np.diff(audio.mel(corners)), np.diff(
        audio.mel(corners))[0])  # fmt: skip


@pytest.mark.parametrize("band", [4, 12, 20, 30, 38])
def test_a_tone_is_in_its_band(band):
    hertz = audio.mel_bands()[1 + band]
    tone = np.sin(2 * np.pi * hertz * np.arange(4000) / RATE)
    quiet = 0.5 * np.sin(2 * np.pi * audio.mel_bands()[1] * np.arange(4000) / RATE)
    bands = audio.power(tone + quiet * (np.arange(4000) > 2000)) @ audio.FILTERS
    assert (bands.argmax(1) == band).all()


def test_log_mel():
    chance = np.random.default_rng(0)
    x = chance.standard_normal(3000)
    found = audio.log_mel(x)
    bands = audio.power(x) @ audio.FILTERS
    decibels = 10 * np.log10(bands / bands.max())
    np.testing.assert_allclose(found, 2 + decibels / 15, atol=1e-3)  # 60 dB are 4
    np.testing.assert_allclose(audio.log_mel(50 * x), found, rtol=1e-3, atol=1e-4)
    centered = audio.log_mel(x, center=True)
    np.testing.assert_allclose(centered.mean(0), 0, atol=1e-5)
    assert centered.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(centered[:, 3], found[:, 3])[0, 1] == pytest.approx(1)
    assert audio.log_mel(x[:10]).shape == (1, 40)
    assert (audio.log_mel(np.zeros(500)) == -2).all()
    steps = audio.stacked(found[:8], 3)
    assert steps.shape == (3, 120)
    np.testing.assert_array_equal(steps[0], found[:3].ravel())
    np.testing.assert_array_equal(steps[2, 80:], found[7])
    runs = [run for _ in range(200) for run in audio.left_out(chance)]
    assert {run.stop - run.start for run in runs} == {0, 1, 2, 3, 4, 5, 6}
    assert min(run.start for run in runs) == 0
    assert 35 <= max(run.stop for run in runs) <= audio.BANDS
    assert 0.8 <= len(x) / len(audio.changed(chance, x)) <= 1.25


def test_sound_files(tmp_path):
    path = tmp_path / "a.wav"
    x = np.sin(2 * np.pi * 440 * np.arange(1600) / RATE)
    path.write_bytes(audio.wav(0.1 * x))
    np.testing.assert_allclose(audio.read_wav(path), x / x.max(), atol=1e-4)
    wavfile.write(path, RATE, np.stack([x, 0 * x], 1).astype(np.float32))
    np.testing.assert_allclose(audio.read_wav(path), x / 2, atol=1e-6)
    wavfile.write(path, RATE, (128 + 100 * x).astype(np.uint8))
    np.testing.assert_allclose(audio.read_wav(path), 100 / 128 * x, atol=0.01)
    fast = np.sin(2 * np.pi * 440 * np.arange(3200) / 16000)
    wavfile.write(path, 16000, fast.astype(np.float32))
    np.testing.assert_allclose(audio.read_wav(path)[100:-100], x[100:-100], atol=0.01)


def header(rate=RATE, channels=1, bits=16, size=3200, riff=3236, kind=1, mark="<"):
    """Of a sound file, as Microsoft and IBM define it."""
    align = channels * bits // 8
    fmt = struct.pack(f"{mark}IHHIIHH", 16, kind, channels, rate,
                      rate * align & 0xFFFFFFFF, align, bits)  # fmt: skip
    first = {"<": b"RIFF", ">": b"RIFX"}[mark]
    parts = [first, struct.pack(f"{mark}I", riff), b"WAVEfmt ", fmt]
    return b"".join([*parts, b"data", struct.pack(f"{mark}I", size)])


SOUND = np.sin(np.arange(1600) / 3)
SAMPLES = (20_000 * SOUND).astype("<i2").tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(rate=0) + SAMPLES, "0 samples a second in its header"),
        (header(rate=0, kind=3, bits=32) + SAMPLES, "0 samples a second in its header"),
        (header(rate=1) + SAMPLES, "1 samples a second in its header, 1,000 to"),
        (header(rate=2_000_000) + SAMPLES, "2,000,000 samples a second in its"),
        (header(rate=4_000_000_000) + SAMPLES, "can be read"),
        (header(channels=0) + SAMPLES, "0 channels in its header"),
        (header(bits=0) + SAMPLES, "0 bytes a sample in its header"),
        (header(size=0) + SAMPLES, "no sound by its header, after which there are 3,2"),
        (header(size=0, mark=">") + SAMPLES, "no sound by its header, after which"),
        (header(riff=0) + SAMPLES, "no sound by its header, after which there are 3,2"),
        (header(size=0, riff=36), "no sound in it"),
        (header(kind=7, bits=8) + SAMPLES, "can be read .Unknown wave file format: MU"),
        (header(bits=32, kind=3) + b"\x00\x00\xc0\x7f" * 800, "not finite numbers"),
        (header()[:30], "can be read"),
        (header()[:40], "can be read"),
        (b"", "not a sound file"),
        (b"ID3\x04" + bytes(100), "not a sound file"),
    ],
)
def test_headers_that_cannot_be(tmp_path, capsys, content, message):
    """One line, whatever it is."""
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    command = ["transcribe", "--run", str(tmp_path / "run"), str(path)]
    line = error(capsys, main(command))
    assert re.search(f"a.wav: .*{message}", line)


def test_headers_of_sounds_that_are_read(tmp_path, capsys):
    """One sent while it was made, and one that is cut off or goes on, which is told."""
    path, whole = tmp_path / "a.wav", 20_000 / 32768 * SOUND
    most = 0xFFFFFFFF
    for content in (header(size=most, riff=most), header(), header(size=most - 36)):
        path.write_bytes(content + SAMPLES)
        np.testing.assert_allclose(audio.read_wav(path), whole, atol=1e-4)
    path.write_bytes(header(riff=3236 + 34) + SAMPLES + b"LIST\x1a\0\0\0" + bytes(26))
    np.testing.assert_allclose(audio.read_wav(path), whole, atol=1e-4)
    assert capsys.readouterr().err == ""
    path.write_bytes(header() + SAMPLES[:1000])
    np.testing.assert_allclose(audio.read_wav(path), whole[:500], atol=1e-4)
    told = capsys.readouterr().err
    assert told == f"{path}: cut off, 1,000 of 3,200 bytes of sound are there\n"
    path.write_bytes(header(size=1000, riff=1036) + SAMPLES)
    np.testing.assert_allclose(audio.read_wav(path), whole[:500], atol=1e-4)
    told = capsys.readouterr().err
    assert told == f"{path}: 2,200 bytes after the sound are left out\n"


# Morse code, as the recommendation prints it
CODE = {1: ".----", 2: "..---", 3: "...--", 4: "....-", 5: ".....",
        6: "-....", 7: "--...", 8: "---..", 9: "----.", 0: "-----"}  # fmt: skip


def test_code():
    assert {digit: morse.code(digit) for digit in range(10)} == CODE


def test_keying_is_read_from_the_sound():
    """By lengths of tone and silence, with neither the network nor our times."""
    digits = [7, 7, 0, 4]
    chance = np.random.default_rng(0)
    sound = morse.tone(morse.keyed(digits, 0.04, chance=chance), 600)
    loud = np.abs(signal.hilbert(sound)) > 0.5
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]])))
    dots = np.diff(edges) / (0.04 * RATE)
    np.testing.assert_allclose(dots, np.round(dots), atol=0.2)
    marks, gaps = np.round(dots[::2]), np.round(dots[1::2])
    assert set(marks) == {1, 3} and set(gaps) == {1, 3}
    text = "".join(".-"[int(m == 3)] for m in marks)
    ends = np.flatnonzero(gaps == 3) + 1
    assert [text[a:b] for a, b in itertools.pairwise([0, *ends, 20])] == [
        CODE[d] for d in digits
    ]
    spectrum = np.abs(np.fft.rfft(sound))
    assert spectrum.argmax() * RATE / len(sound) == pytest.approx(600, abs=5)


def test_senders_differ_and_come_again():
    draw = data.of_senders
    one, two = (draw(np.random.default_rng(s), 3) for s in (0, 1))
    assert len(one.sound) != len(two.sound) and len(one.digits) == 3
    again = draw(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(one.sound, again.sound)
    # none is longer than the steps of a network of 10 ms, three at a time, are wide
    longest = max(len(draw(np.random.default_rng(s), 3).sound) for s in range(200))
    assert longest / RATE < 128 * 0.03


# recordings


def test_recordings_of_both_kinds(recordings, tmp_path):
    found = read(recordings)
    assert len(found) == 10 * len(SPEAKERS) * len(NUMBERS)
    one = next(r for r in found if r[1:] == (3, "bob", 7))
    np.testing.assert_allclose(one.sound * 32768, said(3, "bob", 7))
    parts = [(f"{r.digit}_{r.speaker}_{r.number}", said(*r[1:])) for r in found]
    names, sounds = zip(*parts, strict=True)
    offsets = np.cumsum([0, *map(len, sounds)])
    path = tmp_path / "fsdd" / "fsdd.npz"
    path.parent.mkdir()
    np.savez(path, audio=np.concatenate(sounds), offsets=offsets, names=names)
    packed = read(tmp_path)
    assert [r[1:] for r in packed] == [r[1:] for r in found]
    for a, b in zip(packed, found, strict=True):
        np.testing.assert_array_equal(a.sound, b.sound)


def test_split():
    make = lambda d, s, n: Recording(np.zeros(1), d, s, n)
    every = [make(d, s, n) for d in range(10) for s in "abc" for n in range(50)]
    train_, validation, test = split(every, None)
    assert [len(p) for p in (train_, validation, test)] == [1290, 60, 150]
    assert {r.number for r in test} == {0, 1, 2, 3, 4}
    names = lambda part: {r[1:] for r in part}
    assert len(names(train_) | names(validation) | names(test)) == len(every)
    train_, validation, test = split(every, "b")
    assert len(test) == 500 and {r.speaker for r in test} == {"b"}
    assert {r.speaker for r in [*train_, *validation]} == {"a", "c"}


def test_joined_strings(recordings):
    """Each digit of a string is heard where its recording lies, of one speaker."""
    parts = data.by_speaker(read(recordings))
    chance = np.random.default_rng(0)
    heard = set()
    for _ in range(20):
        sound, digits = data.joined(parts, chance, 3)
        f, _, p = signal.spectrogram(sound, RATE, nperseg=200, noverlap=180)
        tones = np.round((f[p.argmax(0)] - 300) / 250).astype(int)
        loud = p.max(0) > 0.1 * p.max()
        runs = [digit for digit, _ in itertools.groupby(np.where(loud, tones, -1))]
        assert [digit for digit in runs if digit >= 0] == digits
        levels = [p[:, loud & (tones == digit)].max() for digit in digits]
        assert max(levels) < 2 * min(levels)  # the other's are four times as loud
        heard.add(round(float(np.abs(sound).max()), 1))
    assert heard == {0.2, 0.5}


def test_strings_hold_no_training_recording(recordings, monkeypatch):
    every = lambda examples, settings: [(example, []) for example in examples]
    monkeypatch.setattr(data, "batches", every)
    settings = replace(preset({"data": "fsdd"}), strings=8, digits=3)
    loaded = data.load(settings, recordings)
    own = {len(said(0, "ann", n)): n for n in NUMBERS}
    numbers = lambda examples: {own[n] for e in examples for n in pieces(e.sound, own)}
    assert numbers(loaded.tests["single digits"]) == {0, 4}
    assert numbers(loaded.tests["strings"]) == {0, 4}
    assert numbers(loaded.held_out) == {5}
    chance = np.random.default_rng(0)
    assert numbers([loaded.train.draw(chance, 2) for _ in range(9)]) == {7, 8}
    assert {len(e.digits) for e in loaded.tests["strings"]} == {2, 3}
    again = data.load(settings, recordings)
    assert again.digests == loaded.digests
    other = data.load(replace(settings, speaker="ann"), recordings)
    assert len(other.tests["single digits"]) == 50
    assert not {*other.digests.values()} & {*loaded.digests.values()}


def pieces(sound, lengths):
    """The lengths of what is loud in a string."""
    loud = np.convolve(np.abs(sound) > 0.05, np.ones(60)) > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]])))
    for start, end in edges.reshape(-1, 2):
        n = min(lengths, key=lambda n: abs(n + 59 - (end - start)))
        assert abs(n + 59 - (end - start)) < 15
        yield n


# network


def test_loss_is_that_of_all_paths():
    """Summed over every path; what fills a batch counts nothing."""
    T, lengths, strings = 4, [4, 3, 0], [[2, 2], [9], []]
    logits = np.random.default_rng(0).standard_normal((3, T, 11)).astype(np.float32)
    xs = [np.zeros((n, 2), np.float32) for n in lengths]
    made = data.batch([*zip(xs, strings, strict=True)], 3, T, 2)
    np.testing.assert_array_equal(made.labels, [[3, 3], [10, 0], [0, 0]])
    total, n = loss(lambda x, lengths: jnp.asarray(logits), made)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    expected = 0.0
    for row in range(2):
        wanted, tokens = [d + 1 for d in strings[row]], {0, *made.labels[row].tolist()}
        p = 0.0
        for path in itertools.product(tokens, repeat=lengths[row]):
            if [t for t, _ in itertools.groupby(path) if t] == wanted:
                p += np.exp(sum(log_p[row, t, k] for t, k in enumerate(path)))
        expected -= np.log(p)
    assert n == 3
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@pytest.mark.parametrize("digits", [[], [1], [1, 2], [1, 1], [1, 1, 1], [2, 1, 1]])
def test_what_ctc_can_align(digits):
    """Against all paths: whether one of them spells the digits."""
    for steps in range(6):
        paths = itertools.product([None, 1, 2], repeat=steps)
        spelt = ([d for d, _ in itertools.groupby(p) if d is not None] for p in paths)
        assert data.fits(steps, digits) == any(s == digits for s in spelt)


def test_strings_that_ctc_cannot_align_are_left_out():
    settings = Settings(stack=60, digits=8, batch=8, strings=80)
    loaded = data.load(settings, None)
    short = lambda part: [
        e for e in part
        if not data.fits(len(data.features(e.sound, settings)), e.digits)
    ]  # fmt: skip
    train, test = loaded.train.first(8), loaded.tests["strings"]
    held_out = data.strings(data.of_senders, 3, 20, 1, 8)
    parts = [(len(short(part)), len(part)) for part in (train, held_out, test)]
    assert all(0 < n < most for n, most in parts)
    told = loaded.about.splitlines()[1]
    assert [
        tuple(map(int, p)) for p in re.findall(r"(\d+) of the (\d+)", told)
    ] == parts
    assert "--stack 60" in told
    batches = [*loaded.held_out, *(loaded.train[step] for step in range(12))]
    for batch in batches:
        rows = zip(batch.lengths, batch.labels, batch.sizes, strict=True)
        assert all(data.fits(t, labels[:n].tolist()) for t, labels, n in rows)
        assert batch.sizes.any()
    kept = sum((batch.sizes > 0).sum() for batch in loaded.held_out)
    assert kept == len(held_out) - len(short(held_out))
    # the sounds of a string are the same, whatever is left out
    draw = lambda stack: data.load(replace(settings, stack=stack), None)
    assert len(draw(3).about.splitlines()) == 1
    assert draw(3).digests == loaded.digests
    with pytest.raises(InputError, match=r"--stack 900: too few steps for the digits"):
        draw(900)


def test_drawn_batches_are_known_by_their_number():
    settings = Settings(batch=3, digits=2, stack=6, augment=True)
    drawn = [data.Drawn(data.of_senders, settings) for _ in range(2)]
    made = [train_[5] for train_ in drawn]
    for a, b in zip(*made, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(made[0].x, drawn[0][6].x)
    assert {int(n) for step in range(12) for n in drawn[0][step].sizes} == {1, 2}


def test_scores():
    heard = [Heard("1 2", "1 2", "1 2"), Heard("3", "", "3"),
             Heard("4 4 4", "4 4 5", "4 4 4")]  # fmt: skip
    found = scores(heard)
    assert found["WER"] == pytest.approx(100 * 2 / 6) and found["WER, beam"] == 0
    assert found["right"] == pytest.approx(100 / 3) and found["right, beam"] == 100


def test_learns_and_transcribes(recordings, tmp_path, capsys):
    """Digits that are tones, in strings of one and two, by the sum over paths."""
    out = tmp_path / "run"
    options = """--data fsdd --hidden 16 --strings 32 --stack 4 --batch 16 --dropout 0
--no-augment --steps 260 --learning-rate 2e-2 --beam 4""".split()
    assert trained(out, "--data-dir", recordings, *options) == 0
    for name in ("single-digits", "strings"):
        found = json.loads((out / f"result-{name}.json").read_text())["scores"]
        assert found["right, beam"] > 80 and found["WER, beam"] < 10
        # no step of an even tone is the one to name it in, so that the likeliest path
        # is silent where the sum over all is sure
        assert found["right, beam"] >= found["right"]
    capsys.readouterr()
    paths = [
        str(recordings / "recordings" / f"{digit}_ann_0.wav") for digit in range(10)
    ]
    paths += [str(out / f"example-{i}.wav") for i in (1, 2)]  # that it wrote itself
    assert main(["transcribe", "--run", str(out), *paths]) == 0
    rows = [row.split("\t") for row in capsys.readouterr().out.splitlines()]
    assert [path for path, _ in rows] == paths
    assert sum(heard == str(digit) for digit, (_, heard) in enumerate(rows)) >= 8


# commands


def test_train_transcribe_report(recordings, tmp_path, capsys):
    """Of recordings; the test of a stop is of Morse code."""
    out = tmp_path / "fsdd"
    options = ["--data", "fsdd", "--data-dir", recordings]
    options += ["--speaker", "bob"]
    assert trained(out, *options) == 0
    printed = capsys.readouterr().out
    rates = re.findall(r"word error rate ([\d.]+)%", printed)
    page = (out / "report.html").read_text()
    assert all(f"<b>{rate}%</b>" in page for rate in rates)
    assert "data:image/png;base64," in page and "data:audio/wav;base64," in page
    results = [
        json.loads((out / f"result-{name}.json").read_text())
        for name in ("single-digits", "strings")
    ]
    assert [f"{r['scores']['WER']:.2f}" for r in results] == rates
    both = ["report", "--runs", str(out), "--out", str(tmp_path / "both")]
    assert main(both) == 0
    page = (tmp_path / "both" / "report.html").read_text()
    assert "fsdd, bob not in training: strings" in page
    assert "BiLSTM, 1 layer of 4, other speeds and noise" in page


@pytest.mark.long
def test_a_stopped_run_goes_on(tmp_path):
    whole = tmp_path / "whole"
    assert trained(whole, "--augment") == 0
    resumes(main, whole, tmp_path / "cut", *SMALL, "--augment")


def test_mistakes(recordings, tmp_path, capsys):
    out = tmp_path / "run"
    line = error(capsys, trained(out, "--data", "fsdd"))
    assert "--data-dir takes a folder" in line and "free-spoken-digit" in line
    line = error(capsys, trained(out, "--data", "fsdd", "--data-dir", tmp_path))
    assert f"--data-dir {tmp_path}: no recordings there, {{digit}}_" in line
    own = ["--data", "fsdd", "--data-dir", recordings]
    line = error(capsys, trained(out, *own, "--speaker", "eve"))
    assert "--speaker eve: the recordings are of ann, bob" in line
    for option in (["--speaker", "a"], ["--data-dir", recordings]):
        line = error(capsys, trained(out, *option))
        assert f"{option[0]}: changes nothing with the data morse" in line
    (tmp_path / "fsdd.npz").write_bytes(b"none")
    line = error(capsys, trained(out, "--data", "fsdd", "--data-dir", tmp_path))
    assert "fsdd.npz: not the recordings in one file" in line
    path = tmp_path / "0_eve_0.wav"
    path.write_bytes(b"RIFF")
    line = error(capsys, trained(out, "--data", "fsdd", "--data-dir", tmp_path))
    assert "0_eve_0.wav: not a sound file (.wav) that can be read" in line
    wavfile.write(path, RATE, said(0, "ann", 0))
    line = error(capsys, trained(out, "--data", "fsdd", "--data-dir", tmp_path))
    assert "no recording with a number of 5 to 6" in line
    run = ["transcribe", "--run", str(out)]
    assert "no checkpoint" in error(capsys, main([*run, str(path)]))
    assert "none.wav" in error(capsys, main([*run, str(tmp_path / "none.wav")]))
    assert "FILE" in refused(capsys, main, *run)
    assert "--data" in refused(capsys, main, "train", "--data", "timit")
    assert "--digits" in refused(capsys, main, "train", "--digits", "1")
    assert not out.exists()


def test_sound_files_of_other_names_are_told(recordings, tmp_path, capsys):
    found = read(recordings)
    told = capsys.readouterr().err
    assert "recordings: sound files of other names, left out: 1 (the first is n" in told
    for path in (recordings / "recordings").glob("?_ann_*.wav"):
        (tmp_path / path.with_suffix(".WAV").name).write_bytes(path.read_bytes())
    assert len(read(tmp_path)) == len(found) // 2
    assert capsys.readouterr().err == ""


def test_parts_that_lack_recordings():
    one = [Recording(np.zeros(1), 0, "a", n) for n in (0, 5)]
    with pytest.raises(InputError, match="7 and up"):
        split(one, None)
    with pytest.raises(InputError, match="no other to train on"):
        split(one, "a")


def test_batch_type():
    """Filled rows have length 0, and no digits."""
    made = data.batches([Example(np.ones(900), [1, 2])], Settings(batch=2, stack=6))
    (batch, rows), *more = made
    assert isinstance(batch, Batch) and rows == [0] and not more
    assert batch.x.shape == (2, 64, 240) and batch.lengths.tolist() == [2, 0]
    assert batch.labels.tolist() == [[2, 3], [0, 0]] and batch.sizes.tolist() == [2, 0]
