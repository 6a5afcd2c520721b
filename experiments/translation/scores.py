"""BLEU, by sacreBLEU, of all sentences and by the length of their source."""

from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

# words of the source, inclusive
LENGTHS = ((1, 8), (9, 12), (13, 16), (17, 24), (25, 34), (35, 49), (50, 999))


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
