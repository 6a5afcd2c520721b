"""BLEU, by sacreBLEU; perplexity; exact match; and BLEU by length of the source."""

import time
from typing import Any

import jax
import numpy as np
from sacrebleu.metrics.bleu import BLEU

from experiments.data import Pair
from experiments.translation import batches
from experiments.translation.corpus import encoded
from experiments.translation.train import mean_loss, sums
from experiments.translation.translate import Search, Translator

# words of the source, inclusive
LENGTHS = ((1, 8), (9, 12), (13, 16), (17, 24), (25, 34), (35, 49), (50, 999))


def evaluate(translator: Translator, pairs: list[Pair], how: Search) -> dict[str, Any]:
    """What there is to know of a model on these pairs, as JSON."""
    start = time.monotonic()
    vocabularies = translator.source, translator.target
    examples = encoded(pairs, vocabularies, translator.limit)
    compiled = jax.jit(lambda weights, batch: sums(translator.model, weights, batch))
    parts = batches.once(examples, translator.settings.tokens)
    nats = mean_loss(compiled, translator.weights, parts)
    texts = [pair.source for pair in pairs]
    found = translator.translate(texts, how, progress=True)
    rows = [
        {
            "source": pair.source,
            "reference": pair.target,
            "hypothesis": best[0].text,
            "tokens": best[0].tokens,
            "score": best[0].score,
        }
        for pair, best in zip(pairs, found, strict=True)
    ]
    bleu, signature = bleu_of(rows, translator.settings.lower)
    exact = np.mean([row["hypothesis"] == row["reference"] for row in rows])
    return {
        "pairs": len(rows),
        "bleu": bleu,
        "signature": signature,
        "perplexity": float(np.exp(nats)),
        "exact": float(exact),
        "search": how._asdict(),
        "by_length": by_length(rows, translator.settings.lower),
        "seconds": time.monotonic() - start,
        "rows": rows,
    }


def bleu_of(rows: list[dict], lower: bool) -> tuple[float, str]:
    metric = BLEU(lowercase=lower)
    references = [[row["reference"] for row in rows]]
    score = metric.corpus_score([row["hypothesis"] for row in rows], references)
    return float(score.score), str(metric.get_signature())


def by_length(rows: list[dict], lower: bool, least: int = 20) -> list[dict[str, Any]]:
    """BLEU of the sentences of each range of lengths that has enough of them."""
    found = []
    for low, high in LENGTHS:
        part = [row for row in rows if low <= len(row["source"].split()) <= high]
        if len(part) >= least:
            mean = float(np.mean([len(row["source"].split()) for row in part]))
            score = bleu_of(part, lower)[0]
            found.append(
                {"low": low, "high": high, "n": len(part), "mean": mean, "bleu": score}
            )
    return found


def summary(result: dict[str, Any]) -> str:
    return (
        f"{result['pairs']:,} sentences: BLEU {result['bleu']:.2f}, perplexity "
        f"{result['perplexity']:.2f}, exact match {100 * result['exact']:.1f}%\n"
        f"{result['signature']}"
    )
