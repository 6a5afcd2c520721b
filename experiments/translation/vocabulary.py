"""Subword vocabularies, by SentencePiece."""

import base64
import io
from collections.abc import Iterable
from typing import Any

import sentencepiece

from experiments.frame.errors import InputError

END, UNKNOWN, START = 0, 1, 2


class Vocabulary:
    """Pieces of one language; `model` is all that there is of it, as bytes."""

    def __init__(self, model: bytes):
        self.model = model
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)

    def __len__(self) -> int:
        return self.pieces.vocab_size()

    def encode(self, text: str) -> list[int]:
        return self.pieces.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        return self.pieces.decode([int(token) for token in tokens])

    def words(self, tokens: Iterable[int]) -> list[str]:
        """The tokens as one reads them, the start of a word marked by a space."""
        pieces = (self.pieces.id_to_piece(int(token)) for token in tokens)
        return [piece.replace("▁", " ") for piece in pieces]

    def unknown(self, text: str) -> list[str]:
        """The characters of a text that no piece has."""
        characters = sorted(set(text))
        return [c for c in characters if not c.isspace() and UNKNOWN in self.encode(c)]


def make(sentences: Iterable[str], size: int) -> Vocabulary:
    """Byte-pair pieces, `size` at most; single characters if `size` is 0."""
    model, texts = io.BytesIO(), list(sentences)
    try:
        train(texts, model, size)
    except RuntimeError as e:
        n = len(set("".join(texts)))
        raise InputError(
            f"--pieces {size}: too few for texts of {n} characters; 0 makes each "
            "character a piece"
        ) from e
    return Vocabulary(model.getvalue())


def train(texts: list[str], model: io.BytesIO, size: int) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe" if size else "char",
        vocab_size=size or 1_000_000,
        hard_vocab_limit=False,
        use_all_vocab=False if size else True,
        character_coverage=1.0,
        eos_id=END,
        unk_id=UNKNOWN,
        bos_id=START,
        pad_id=-1,
        minloglevel=2,
        num_threads=1,
    )


def to_text(vocabularies: Iterable[Vocabulary]) -> list[str]:
    """As they stand among the facts of a checkpoint."""
    return [base64.b64encode(made.model).decode() for made in vocabularies]


def of_facts(facts: dict[str, Any]) -> tuple[Vocabulary, Vocabulary]:
    """Of sources and of targets."""
    source, target = map(base64.b64decode, facts["vocabularies"])
    return Vocabulary(source), Vocabulary(target)
