"""Translation with a trained model, by beam search."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from tqdm import tqdm

import jaxseq
from experiments.frame.buckets import bound
from experiments.frame.errors import InputError
from experiments.frame.experiment import Run
from experiments.translation import data
from experiments.translation.model import EncoderDecoder
from experiments.translation.vocabulary import END, START, UNKNOWN, of_facts


class Search(NamedTuple):
    beam: int = 5
    length_penalty: float = 1.0
    n_best: int = 1


@nnx.jit(static_argnames=("longest", "how"))
def search(
    model: EncoderDecoder, sources: Any, lengths: Any, longest: int, how: Search
) -> jaxseq.Decoded:
    graph, weights = nnx.split(model)

    def step(state: Any, token: Array) -> tuple[Any, Array]:
        state, logits = nnx.merge(graph, weights).step(state, token)
        return state, logits.at[:, jnp.array([UNKNOWN, START])].set(-jnp.inf)

    start = model.start(sources, lengths, longest), jnp.full(len(sources), START)
    how_long: Any = {"max_length": longest, "end": END}
    return jaxseq.beam_search(step, *start, **how_long, **how._asdict())


attend = nnx.jit(EncoderDecoder.__call__)


class Translation(NamedTuple):
    text: str
    tokens: list[int]
    score: float


class Translator:
    """A model and its vocabularies."""

    def __init__(self, run: Run):
        self.settings, self.model = run.settings, run.model
        self.source, self.target = of_facts(run.facts)

    def check(self, text: str, place: str) -> None:
        """That a text is not longer than what the model was trained on."""
        n, limit = len(self.encode(text)), self.settings.longest
        if n >= limit:
            raise InputError(
                f"{place}: a sentence of {n} tokens; the model takes {limit - 1}"
            )

    def encode(self, text: str) -> list[int]:
        return self.source.encode(self.prepared(text))

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
        examples = [(self.encode(text), []) for text in texts]
        found: list[list[Translation]] = [[] for _ in texts]
        # a batch of training at a time; the states of the search are `beam` times that
        tokens = self.settings.tokens if len(texts) > 1 else 1
        bar = tqdm(total=len(texts), unit="sentence", disable=not progress)
        for batch, places in data.once(examples, tokens):
            width = batch.sources.shape[1]
            most = min(2 * width + 10, self.settings.longest)
            decoded = search(self.model, batch.sources, batch.lengths, most, how)
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
        source = self.encode(text)
        width = bound(1 + max(len(source), len(tokens)), data.FEWER)
        batch = data.collate([(source, tokens)], 1, width, width)
        _, weights = attend(self.model, *map(jnp.asarray, batch[:3]))
        if weights is None:
            return None
        sources = [*self.source.words(source), "⟨end⟩"]
        targets = [*self.target.words(tokens), "⟨end⟩"]
        shown = np.asarray(weights)[0, : len(targets), : len(sources)]
        return shown, sources, targets
