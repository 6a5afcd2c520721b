"""nagisa: Japanese words and their parts of speech, by LSTMs of DyNet."""

import pickle
from types import ModuleType

import numpy as np
import pytest

from jaxseq.convert import from_dynet, to_dynet
from tests.networks.published import imported, path, quietly

TEXTS = """Pythonで簡単に使えるツールです
ニューラルネットワークは人間の脳の神経回路を真似た数理モデルである。
吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。
すもももももももものうち
東京都に住んでいる友人が、来週の日曜日に遊びに来るそうだ。
3月10日、午前9時から会議を開きます。
親譲りの無鉄砲で小供の時から損ばかりしている。
国境の長いトンネルを抜けると雪国であった。""".split("\n")
# of words, of parts of speech, of the characters of a word
PARTS = {"ws_model": "/birnn/", "pos_model": "/birnn_1/", "char_seq_model": "/birnn_2/"}


@pytest.fixture(scope="module")
def text():
    return path("nagisa/data/nagisa_v001.model").read_text()


@pytest.fixture(scope="module")
def theirs():
    """Its tagger, without the part that trains."""
    package, moves = ModuleType("nagisa"), ModuleType("six.moves")
    package.__path__ = [str(path("nagisa"))]
    moves.cPickle = pickle
    others = {"nagisa": package, "six": ModuleType("six"), "six.moves": moves}
    module = imported("nagisa.tagger", **others)
    with quietly():
        return module.Tagger()


@pytest.mark.parametrize("part", PARTS)
def test_the_outputs_are_its_own(theirs, text, part):
    network = from_dynet(text, prefix=PARTS[part])
    D = network.layers[0][0].w_x.shape[0]
    x = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    _, y = network(x)
    want = getattr(theirs._model, part).transduce(x)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_the_file_comes_back(text, part):
    prefix = PARTS[part]
    again = to_dynet(from_dynet(text, prefix=prefix), prefix=prefix)
    start = text.index(f"#Parameter# {prefix}")
    assert again == text[start : start + len(again)] and again.endswith(" \n")
    assert not text[start + len(again) :].startswith(f"#Parameter# {prefix}")


class Ours:
    """Gives the sequences of one of its networks to jaxseq."""

    def __init__(self, text, prefix):
        self.network = from_dynet(text, prefix=prefix)
        self.layers = ()  # its shortcut is for layers of its own kind
        self.runs = 0

    def transduce(self, x):
        self.runs += 1
        padded = np.zeros((64, x.shape[1]), np.float32)  # compiled once
        padded[: len(x)] = x
        _, y = self.network(padded, lengths=np.int32(len(x)))
        return np.array(y)[: len(x)]


def test_words_and_parts_of_speech_are_its_own(theirs, text):
    want = [(tokens.words, tokens.postags) for tokens in map(theirs.tagging, TEXTS)]
    ours = {part: Ours(text, prefix) for part, prefix in PARTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        for part, network in ours.items():
            patch.setattr(theirs._model, part, network)
        found = [(t.words, t.postags) for t in map(theirs.tagging, TEXTS)]
    assert found == want
    assert "名詞" in found[0][1] and len(found[1][0]) > 10
    assert ours["ws_model"].runs == ours["pos_model"].runs == len(TEXTS)
    assert ours["char_seq_model"].runs > 50
