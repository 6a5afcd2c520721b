"""Letters to phonemes: the encoder and decoder of g2p-en.

Park and Kim, g2p: a GRU of 256 reads the letters of a word, and another writes its
phonemes from the state in which the first one ends. https://github.com/Kyubyong/g2p
"""

import re
import unicodedata
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxseq
from experiments.pretrained.weights import arrays
from jaxseq.convert import Network, from_torch

INSTALL = "pip install --no-deps g2p-en==2.1.0"
LONGEST = 20  # phonemes of a word
# the phones of the CMU dictionary, vowels with no, first and second stress
PHONES = """AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S
SH T TH UH UW V W Y Z ZH""".split()
UNKNOWN, START, END = 1, 2, 3
LETTER_END = 2
LETTERS = {letter: n for n, letter in enumerate(ascii_lowercase, 3)}


def phonemes() -> list[str]:
    """All that the decoder may write, by number."""
    found = ["<pad>", "<unk>", "<s>", "</s>"]
    for phone in PHONES:
        vowel = phone[0] in "AEIOU"
        found += ["UW"] if phone == "UW" else []  # which has a form without a stress
        found += [f"{phone}{stress}" for stress in range(3)] if vowel else [phone]
    return found


class Speller(NamedTuple):
    letters: Any  # embeddings, (29, 256)
    encoder: Network
    phonemes: Any  # embeddings, (74, 256)
    decoder: Network
    w: Any  # from the state to logits, (256, 74)
    b: Any


def load() -> Speller:
    found = arrays("g2p_en", "checkpoint20.npz", INSTALL)
    # the names of one part, as PyTorch has them
    named = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih"}
    named["b_hh"] = "bias_hh"
    of = lambda part: from_torch({v: found[f"{part}_{k}"] for k, v in named.items()})
    encoder, decoder = of("enc"), of("dec")
    w, b = found["fc_w"].T, found["fc_b"]
    return Speller(found["enc_emb"], encoder, found["dec_emb"], decoder, w, b)


def words(text: str) -> tuple[list[str], list[str]]:
    """The words of a text in small letters without accents, and what is no word."""
    plain = unicodedata.normalize("NFD", text.lower().replace("’", "'"))
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    found = re.findall(r"[a-z]+(?:'[a-z]+)*", plain)
    # signs around words are no loss, as a digit is
    left = [part for part in plain.split() if re.search(r"[^\W_a-z]", part)]
    return found, left


def say(speller: Speller, words: Sequence[str]) -> list[list[str]]:
    """The phonemes of each word."""
    lengths = np.array([len(word) + 1 for word in words])
    tokens = np.zeros((len(words), lengths.max()), np.int32)
    for row, word in zip(tokens, words, strict=True):
        row[: len(word)] = [LETTERS.get(letter, UNKNOWN) for letter in word]
        row[len(word)] = LETTER_END
    found = jax.device_get(_decoded(speller, tokens, lengths))
    names = phonemes()
    said = [found.tokens[i, :n].tolist() for i, n in enumerate(found.lengths)]
    return [[names[k] for k in row if k != END] for row in said]


@jax.jit
def _decoded(speller: Speller, tokens: Any, lengths: Any) -> jaxseq.Decoded:
    speller = jax.tree.map(jnp.asarray, speller)
    (state,), _ = speller.encoder(speller.letters[tokens], lengths=lengths)

    def step(state: Any, token: Any) -> Any:
        (state,), y = speller.decoder(speller.phonemes[token][:, None], (state,))
        return state, y[:, 0] @ speller.w + speller.b

    first = jnp.full(tokens.shape[0], START)
    return jaxseq.greedy(step, state, first, max_length=LONGEST, end=END)
