"""g2p-en: a GRU reads the letters of a word, another writes its phonemes."""

from unittest.mock import MagicMock

import numpy as np
import pytest

from experiments.pretrained import pronunciation
from tests.networks.published import imported, path, quietly

# the words of its licence, and some that are in no dictionary
WORDS = """jaxseq activationist recurrence dreamily xylophonist zzyzx queue q tensorly
antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis i'm
o'neill"""


@pytest.fixture(scope="module")
def theirs():
    """Its own NumPy code, without the dictionary and the tagger around it."""
    nltk = MagicMock()
    names = ("nltk", "nltk.corpus", "nltk.tokenize")
    g2p = imported("g2p_en.g2p", inflect=MagicMock(), **dict.fromkeys(names, nltk))
    nltk.corpus.cmudict.dict.return_value = {}
    with quietly():
        found = g2p.G2p()
        found.variables.close()
    return found


def test_the_phonemes_are_its_own(theirs):
    licence = path("g2p_en-2.1.0.dist-info/LICENSE.txt").read_text().lower()
    words = sorted({*pronunciation.words(licence)[0], *WORDS.split()})
    assert len(words) > 300
    want = [theirs.predict(word) for word in words]
    speller = pronunciation.load()
    assert pronunciation.say(speller, words) == want
    assert max(map(len, want)) == 20  # where it stops in any case
    assert pronunciation.phonemes() == theirs.phonemes


def test_the_states_are_its_own(theirs):
    speller = pronunciation.load()
    x = np.random.default_rng(0).standard_normal((3, 9, 256)).astype(np.float32)
    for name, network in (("enc", speller.encoder), ("dec", speller.decoder)):
        weights = [getattr(theirs, f"{name}_{k}") for k in ("w_ih", "w_hh")]
        weights += [getattr(theirs, f"{name}_{k}") for k in ("b_ih", "b_hh")]
        want = theirs.gru(x, 9, *weights)
        (h,), y = network(x)
        np.testing.assert_allclose(y, want, rtol=0, atol=2e-6)
        np.testing.assert_array_equal(h, y[:, -1])
