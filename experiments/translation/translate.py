"""Translation with a trained model, by beam search."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import jaxseq
from experiments.buckets import bound
from experiments.checkpoint import Checkpoints, has_checkpoints
from experiments.errors import InputError
from experiments.training import saved_settings
from experiments.translation import batches
from experiments.translation.model import Model, make_model
from experiments.translation.settings import Settings
from experiments.translation.train import make_state
from experiments.translation.vocabulary import END, START, UNKNOWN, Vocabulary

VOCABULARIES = ("source.model", "target.model")


class Search(NamedTuple):
    beam: int = 5
    n_best: int = 1
    length_penalty: float = 1.0


class Translation(NamedTuple):
    text: str
    tokens: list[int]
    score: float


class Translator:
    """A model and its vocabularies."""

    def __init__(
        self,
        settings: Settings,
        weights: Any,
        vocabularies: tuple[Vocabulary, Vocabulary],
    ):
        self.settings, self.weights = settings, weights
        self.source, self.target = vocabularies
        self.model: Model = make_model(settings, *map(len, vocabularies))
        self.search = jax.jit(self._search, static_argnums=(3, 4))
        self.forward = jax.jit(self.model.forward)

    def _search(
        self, weights: Any, sources: Any, lengths: Any, max_length: int, how: Search
    ) -> jaxseq.Decoded:
        state = self.model.start(weights, sources, lengths, max_length)
        first = jnp.full(len(sources), START)

        def step(state: Any, token: Any) -> tuple[Any, Any]:
            state, logits = self.model.step(weights, state, token)
            return state, logits.at[:, jnp.array([UNKNOWN, START])].set(-jnp.inf)

        how_long: Any = {"max_length": max_length, "end": END}
        return jaxseq.beam_search(step, state, first, **how_long, **how._asdict())

    def check(self, text: str, place: str) -> None:
        """That a text is not longer than what the model was trained on."""
        n, limit = len(self.source.encode(self.prepared(text))), self.limit
        if n >= limit:
            raise InputError(
                f"{place}: a sentence of {n} tokens; the model takes {limit - 1}"
            )

    @property
    def limit(self) -> int:
        return self.settings.longest

    def unknown(self, text: str) -> str | None:
        """What to say of characters that the model does not know, if there are any."""
        strange = self.source.unknown(self.prepared(text))
        if not strange:
            return None
        names = ", ".join(map(repr, strange))
        return f"{names} not in the vocabulary, read as unknown"

    def prepared(self, text: str) -> str:
        return text.lower() if self.settings.lower else text

    def translate(
        self, texts: list[str], how: Search, *, progress: bool = False
    ) -> list[list[Translation]]:
        """The n best translations of each text."""
        examples = [(self.source.encode(self.prepared(text)), []) for text in texts]
        found: list[list[Translation]] = [[] for _ in texts]
        # a batch of training at a time; the states of the search are `beam` times that
        tokens = self.settings.tokens if len(texts) > 1 else 1
        bar = tqdm(total=len(texts), unit="sentence", disable=not progress)
        for batch, places in batches.once(examples, tokens):
            width = batch.sources.shape[1]
            most = min(2 * width + 10, self.limit)
            decoded = self.search(self.weights, batch.sources, batch.lengths, most, how)
            decoded = jax.tree.map(np.asarray, decoded)
            for row, place in enumerate(places):
                found[place] = [
                    self._translation(decoded, row, k) for k in range(how.n_best)
                ]
            bar.update(len(places))
        bar.close()
        return found

    def _translation(self, decoded: Any, row: int, k: int) -> Translation:
        tokens = decoded.tokens[row, k, : decoded.lengths[row, k]].tolist()
        tokens = [token for token in tokens if token != END]
        text = self.target.decode(tokens)
        return Translation(text, tokens, float(decoded.scores[row, k]))

    def attention(self, text: str, tokens: list[int]) -> tuple[Any, list, list] | None:
        """Weights `(target, source)` and the pieces on both sides, if there are any."""
        source = self.source.encode(self.prepared(text))
        width = bound(1 + max(len(source), len(tokens)), batches.FEWER)
        batch = batches.collate([(source, tokens)], 1, width, width)
        _, weights = self.forward(
            self.weights, batch.sources, batch.lengths, batch.inputs
        )
        if weights is None:
            return None
        sources = [*self.source.words(source), "⟨end⟩"]
        targets = [*self.target.words(tokens), "⟨end⟩"]
        shown = np.asarray(weights)[0, : len(targets), : len(sources)]
        return shown, sources, targets


def read_vocabularies(run: Path, digests: list[str]) -> tuple[Vocabulary, Vocabulary]:
    """The vocabularies of a run, which must be those its checkpoint was made with."""
    found = []
    for name, digest in zip(VOCABULARIES, digests, strict=True):
        path = run / name
        try:
            made = Vocabulary(path.read_bytes())
        except OSError as e:
            raise InputError(f"{path}: {e.strerror}") from e
        except RuntimeError as e:  # SentencePiece's
            raise InputError(f"{path}: not a vocabulary") from e
        if made.digest != digest:
            raise InputError(
                f"{path}: another vocabulary than that of the checkpoint in {run}"
            )
        found.append(made)
    return found[0], found[1]


def load(run: Path) -> tuple[Translator, dict[str, Any]]:
    """The newest checkpoint in the folder `run`, and its facts."""
    checkpoints = Checkpoints(run, read_only=True) if has_checkpoints(run) else None
    if checkpoints is None or checkpoints.newest is None:
        raise InputError(f"--run {run}: no checkpoint there")
    facts = checkpoints.facts()
    settings = saved_settings(Settings, facts, run)
    vocabularies = read_vocabularies(run, facts["vocabularies"])
    model = make_model(settings, *map(len, vocabularies))
    state = checkpoints.arrays(make_state(model, settings))
    return Translator(settings, state.weights, vocabularies), facts
