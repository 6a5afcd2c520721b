"""Published networks as commands. That they give what they gave: tests/networks."""

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.io import wavfile

from experiments.pretrained import pronunciation, voice, weights
from experiments.pretrained.__main__ import main
from experiments.pretrained.figure import envelope, speech_figure
from experiments.pretrained.pronunciation import Speller
from experiments.pretrained.voice import Voice
from jaxseq.convert import from_torch
from tests.experiments.helpers import error, refused


def drawn(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32) / 4


def module(rng, gates, D, H):
    """The state of a layer of PyTorch."""
    shapes = {"weight_ih": (D,), "weight_hh": (H,), "bias_ih": (), "bias_hh": ()}
    return {k: drawn(rng, gates * H, *rest) for k, rest in shapes.items()}


@pytest.fixture
def speller(monkeypatch):
    """One that has learned nothing, narrower than the published one."""
    rng = np.random.default_rng(0)
    layer = lambda: from_torch(module(rng, 3, 4, 8))
    made = Speller(drawn(rng, 29, 4), layer(), drawn(rng, 74, 4), layer(),
                   drawn(rng, 8, 74), drawn(rng, 74))  # fmt: skip
    monkeypatch.setattr(pronunciation, "load", lambda: made)
    return made


@pytest.fixture
def ear(monkeypatch):
    """One that has learned nothing, but is loud of loud sounds."""
    rng = np.random.default_rng(0)
    rest = {"stft.forward_basis_buffer": drawn(rng, 258, 1, 256)}
    for n, (out, into) in enumerate([(6, 129), (6, 6), (6, 6), (5, 6)]):
        rest[f"encoder.{n}.reparam_conv.weight"] = drawn(rng, out, into, 3)
        rest[f"encoder.{n}.reparam_conv.bias"] = drawn(rng, out)
    rest["decoder.decoder.2.weight"] = drawn(rng, 1, 7, 1)
    rest["decoder.decoder.2.bias"] = drawn(rng, 1)
    made = Voice(rest, from_torch(module(rng, 4, 5, 7)))
    monkeypatch.setattr(voice, "load", lambda: made)
    return made


def test_pronounce(speller, capsys):
    assert main(["pronounce", "Über-cool: don’t,", "don't 24/7 & q"]) == 0
    printed = capsys.readouterr()
    rows = [line.split("\t") for line in printed.out.splitlines()]
    assert [word for word, _ in rows] == ["uber", "cool", "don't", "don't", "q"]
    assert rows[2] == rows[3]
    known = {*pronunciation.phonemes()}
    for word, said in rows:
        assert known.issuperset(said.split()) and len(said.split()) <= 20
        # alone as among others
        assert [said.split()] == pronunciation.say(speller, [word])
    assert "left out, for the network reads letters only: 24/7\n" in printed.err
    assert "no word of English letters" in error(capsys, main(["pronounce", "24 ?"]))
    assert "text" in refused(capsys, main, "pronounce")


def sound(path, seconds, rate=8000):
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(int(seconds * rate)) * 3000
    wavfile.write(path, rate, samples.astype(np.int16))
    return path


def test_speech(ear, tmp_path, capsys, monkeypatch):
    file, out = sound(tmp_path / "a.wav", 1.3), tmp_path / "new" / "a.png"
    chances = np.repeat([0.1, 0.9, 0.2, 0.5], [10, 12, 8, 11]).astype(np.float32)
    heard = []

    def given(network, samples):
        heard.append((network, samples))
        return chances

    monkeypatch.setattr(voice, "chances", given)
    assert main(["speech", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "0.32\t0.70\n0.96\t1.31\n"
    assert f"{file}: 0.7 of 1.3 seconds are speech; {out}" in printed.err
    assert heard[0][0] is ear and len(heard[0][1]) == 1.3 * 16_000
    assert imread(out).shape[2] == 4
    (axes, line) = speech_figure(heard[0][1], chances).axes
    (drawn, _) = line.lines
    at, shown = drawn.get_data()
    assert at[0] == 0 and at[-1] == pytest.approx(41 * 0.032)
    np.testing.assert_array_equal(shown[::2], chances)
    shaded = [p.get_x() for p in axes.patches]
    assert shaded == pytest.approx([0.32, 0.96])


def test_a_stream_is_as_the_whole(ear):
    samples = np.random.default_rng(1).standard_normal(5 * 512 + 100).astype("f")
    steps = voice.chunks(samples)
    assert steps.shape == (6, 576)
    np.testing.assert_array_equal(steps[0, :64], 0)
    np.testing.assert_array_equal(steps[1], samples[448:1024])
    np.testing.assert_array_equal(steps[5, 64 + 100 :], 0)
    whole, state = voice.chances(ear, samples), None
    assert np.ptp(whole) > 1e-3
    for one, chance in zip(steps, whole, strict=True):
        state, found = voice.step(ear, one[None], state)
        np.testing.assert_allclose(found[0], chance, rtol=0, atol=1e-6)


def test_stretches_and_envelope():
    assert voice.stretches(np.zeros(3)) == []
    assert voice.stretches(np.ones(5)) == [(0, pytest.approx(0.16))]
    t, low, high = envelope(np.array([0, 3, -2], np.float32))
    np.testing.assert_allclose(t * 16_000, [0, 1, 2])
    np.testing.assert_array_equal(low, high)
    t, low, high = envelope(np.tile([1, -1], 50_000).astype(np.float32))
    assert len(t) <= 1200 and (low == -1).all() and (high == 1).all()


def test_bad_options_and_files(ear, tmp_path, capsys):
    speech = lambda *options: error(capsys, main(["speech", *map(str, options)]))
    file = sound(tmp_path / "a.wav", 0.2)
    assert "a.jpg: the name of a figure ends in .png" in speech(file, "--out", "a.jpg")
    assert "none.wav: No such file" in speech(tmp_path / "none.wav")
    (tmp_path / "b.wav").write_text("no sound")
    assert "b.wav: not a sound file" in speech(tmp_path / "b.wav")
    (tmp_path / "file").touch()
    assert "cannot write there" in speech(file, "--out", tmp_path / "file" / "a.png")


def test_weights_that_are_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(weights, "APART", tmp_path)
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    line = error(capsys, main(["pronounce", "word"]))
    assert "checkpoint20.npz of g2p_en is not here; try: pip install --no-deps" in line
    line = error(capsys, main(["speech", str(sound(tmp_path / "a.wav", 0.2))]))
    assert "silero_vad is not here; try: pip install --no-deps silero-vad" in line
    for path in ("g2p_en/checkpoint20.npz", "silero_vad/data/silero_vad_16k_op15.onnx"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"\xff no weights")
    assert "npz: not the weights of g2p_en" in error(
        capsys, main(["pronounce", "word"])
    )
    line = error(capsys, main(["speech", str(tmp_path / "a.wav")]))
    assert "onnx: not the weights of silero_vad" in line
