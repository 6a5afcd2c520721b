"""From settings to a run, and from its model to answers."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from sklearn.metrics import f1_score

from experiments import buckets
from experiments.buckets import Bucket
from experiments.classification import corpus
from experiments.classification.corpus import Corpus, Example
from experiments.classification.model import Classifier, loss
from experiments.classification.settings import Settings
from experiments.fit import Fit


class Batch(NamedTuple):
    x: np.ndarray  # tokens (B, T), or inputs (B, T, D)
    lengths: np.ndarray  # (B,), 0 for what only fills the batch
    labels: np.ndarray  # (B,)


def bucketed(examples: list[Example], size: int) -> list[Bucket]:
    widths = corpus.widths(examples)

    def bucket(width: int, rows: list[int]) -> Bucket:
        def collate(rows: Any) -> Batch:
            x, lengths = buckets.pad([examples[i].x for i in rows], size, width)
            labels = [examples[i].label for i in rows]
            labels += [0] * (size - len(rows))
            return Batch(x, lengths, np.array(labels, np.int32))

        return Bucket(rows, size, collate)

    by_width = buckets.by_width([len(e.x) for e in examples], widths)
    return [bucket(width, rows) for width, rows in by_width.items()]


def make_model(settings: Settings, facts: dict[str, Any]) -> Classifier:
    """The model for the labels and the vocabulary, or features, among the facts."""
    vocabulary = facts["vocabulary"]
    return Classifier(
        settings,
        len(facts["labels"]),
        vocabulary=None if vocabulary is None else len(vocabulary) + 2,
        features=facts["features"],
        rngs=nnx.Rngs(settings.seed),
    )


def make(settings: Settings, loaded: Corpus) -> tuple[Fit, dict[str, Any]]:
    """A run over the data, and its facts."""
    x = loaded.train[0].x
    facts = {
        "vocabulary": loaded.vocabulary,
        "labels": loaded.labels,
        "features": None if isinstance(x, list) else x.shape[1],
        "digest": loaded.digests[0],
    }
    batches = buckets.endless(bucketed(loaded.train, settings.batch), settings.seed)
    held_out = buckets.once(bucketed(loaded.validation, settings.batch))
    held_out = [batch for batch, _ in held_out]
    model, per_step = make_model(settings, facts), settings.batch
    return Fit(settings, model, loss, batches, held_out, per_step=per_step), facts


@nnx.jit
def softmax(model: Classifier, batch: Any) -> jax.Array:
    return jax.nn.softmax(model(batch.x, batch.lengths))


def probabilities(model: Classifier, examples: list[Example], size: int) -> np.ndarray:
    """Of each label for each example, `(N, K)`."""
    found: list[Any] = [None] * len(examples)
    for batch, rows in buckets.once(bucketed(examples, size)):
        for row, p in zip(rows, np.asarray(softmax(model, batch)), strict=False):
            found[row] = p
    return np.array(found)


def scores(p: np.ndarray, examples: list[Example]) -> dict[str, float]:
    truth, said = np.array([e.label for e in examples]), p.argmax(-1)
    return {
        "accuracy": 100 * float((truth == said).mean()),
        "macro F1": 100 * float(f1_score(truth, said, average="macro")),
    }


def title(settings: Settings) -> str:
    name = Path(settings.data).name
    return f"{name}, words shuffled" if settings.shuffled else name
