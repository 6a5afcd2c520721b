"""The page of one run: scores of each tag, mistakes, coloured source, transitions."""

import html
import itertools
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from nervaluate import Evaluator
from sklearn.metrics import precision_recall_fscore_support

import jaxseq
from experiments.frame.experiment import Evaluation, Run
from experiments.frame.page import grid, loss_figure, save_figure
from experiments.tagging.corpus import Sentence
from experiments.tagging.data import Corpus, title
from experiments.tagging.entities import scheme, spans

COLOURS = {
    "keyword": "#7b2fa0", "definition": "#0b5394", "builtin": "#1c7c7d",
    "name": "#222", "number": "#b35900", "string": "#38761d", "comment": "#888",
    "operator": "#a61c00", "space": "#222",
}  # fmt: skip
WRONG = "background:#fbd0c8;outline:1px solid #d33"
SHOWN = 4000  # characters of source on a page


def label(settings: dict[str, Any]) -> str:
    parts = ["BiLSTM"]
    if settings["letters"]:
        parts.append("letters and jamo" if settings["jamo"] else "letters")
    return ", ".join([*parts, "CRF"] if settings["crf"] else parts)


def coloured(text: str, tags: list[str], truth: list[str] | None = None) -> str:
    """Source in the colours of its tags; those that are not the truth are marked."""
    wrong = [truth is not None and t != r for t, r in zip(tags, truth or tags)]  # noqa: B905
    spans, at = [], 0
    for (tag, bad), group in itertools.groupby(zip(tags, wrong, strict=True)):
        n = len(list(group))
        piece, style = html.escape(text[at : at + n]), f"color:{COLOURS.get(tag)}"
        at += n
        if tag == "space" and not bad:
            spans.append(piece)
            continue
        style += f";{WRONG}" if bad else ""
        spans.append(f'<span style="{style}" title="{tag}">{piece}</span>')
    return f"<pre>{''.join(spans)}</pre>"


def legend() -> str:
    marks = (f'<span style="color:{c}">{tag}</span>' for tag, c in COLOURS.items())
    return f"<p>{', '.join(marks)}</p>"


def tag_table(truth: list[str], said: list[str]) -> str:
    """Precision, recall and F1 of each tag, the frequent first."""
    names = [tag for tag, _ in Counter(truth).most_common()]
    options: Any = {"labels": names, "zero_division": 0}
    found: Any = precision_recall_fscore_support(truth, said, **options)
    rows = [
        [name, f"{n:,}", *(f"{100 * value:.1f}" for value in values)]
        for name, *values, n in zip(names, *found, strict=True)
    ]
    return grid(["tag", "times", "precision", "recall", "F1"], rows)


def by_type(truth: list[list[str]], said: list[list[str]]) -> dict[str, Any]:
    """nervaluate's counts and scores of entities: of "all", and of each type."""
    both = [[spans(tags) for tags in rows] for rows in (truth, said)]
    types = sorted({span.kind for rows in both for row in rows for span in row})
    listed = lambda rows: [
        [{"label": s.kind, "start": s.start, "end": s.end - 1} for s in row]
        for row in rows
    ]
    results = Evaluator(*map(listed, both), tags=types, loader="dict").evaluate()
    own = {name: kind["strict"] for name, kind in sorted(results["entities"].items())}
    return {"all": results["overall"]["strict"], **own}


def type_table(truth: list[list[str]], said: list[list[str]]) -> str:
    """The same of each type of entity."""
    rows = [
        [name, f"{own.correct + own.incorrect + own.missed:,}",
         *(f"{100 * v:.1f}" for v in (own.precision, own.recall, own.f1))]
        for name, own in by_type(truth, said).items()
    ]  # fmt: skip
    return grid(["type", "entities", "precision", "recall", "F1"], rows)


def mistakes(truth: list[str], said: list[str]) -> str:
    """The commonest pairs of the tag that is right and the one that was said."""
    pairs = Counter((t, s) for t, s in zip(truth, said, strict=True) if t != s)
    rows = [[t, s, f"{n:,}"] for (t, s), n in pairs.most_common(10)]
    return grid(["truth", "answer", "times"], rows)


def marked(sentence: Sentence, tags: list[str]) -> str:
    """Words with their tags; of a wrong one the tag said and the right one."""
    words = []
    for word, truth, tag in zip(sentence.words, sentence.tags, tags, strict=True):
        word, tag = html.escape(word), html.escape(tag)
        if tag != html.escape(truth):
            mark = f"{word}<sub>{tag}, not {html.escape(truth)}</sub>"
            words.append(f'<span style="{WRONG}">{mark}</span>')
        else:
            words.append(word if tag == "O" else f"{word}<sub>{tag}</sub>")
    return f"<p>{' '.join(words)}</p>"


def crf_figure(crf: jaxseq.CRFParams, tags: list[str]) -> Figure:
    """The learnt transitions, the first tag above and the last one to the right."""
    K = len(tags)
    weights = np.full((K + 1, K + 1), np.nan)
    weights[0, :K], weights[1:, :K], weights[1:, K] = (
        np.asarray(x) for x in (crf.start, crf.transitions, crf.end)
    )
    size = 3.0 + 0.38 * K
    figure = Figure(figsize=(size, size * 0.9), layout="constrained")
    axes = figure.subplots()
    most = float(np.nanmax(np.abs(weights)))
    image = axes.imshow(weights, cmap="RdBu", vmin=-most, vmax=most)
    axes.set_xticks(range(K + 1), [*tags, "end"], rotation=90)
    axes.set_yticks(range(K + 1), ["start", *tags])
    axes.set(xlabel="tag", ylabel="tag before it")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.7, label="score")
    return figure


def examples(loaded: Corpus, said: list[list[str]]) -> str:
    """Of the test: the first source, or sentences, most of which have a mistake."""
    if not isinstance(loaded.test[0].words, list):
        text, tags, truth = str(loaded.test[0].words), said[0], loaded.test[0].tags
        source = coloured(text[:SHOWN], tags[:SHOWN], truth[:SHOWN])
        return f"<h2>Source of the test, mistakes marked</h2>\n{legend()}\n{source}"
    rows = [i for i, s in enumerate(loaded.test) if 5 <= len(s.words) <= 30]
    wrong = [i for i in rows if loaded.test[i].tags != said[i]]
    right = [i for i in rows if loaded.test[i].tags == said[i]]
    some = lambda rows, n: rows[:: max(1, len(rows) // n)][:n]
    lines = [marked(loaded.test[i], said[i]) for i in some(wrong, 9) + some(right, 3)]
    return "<h2>Sentences of the test, mistakes marked</h2>\n" + "\n".join(lines)


def page(run: Run, evaluation: Evaluation) -> tuple[str, str]:
    """The title, and the figures and tables of a run."""
    loaded, said = run.data.tests["test"], evaluation.answers
    tags, truth, unit = loaded.vocabulary.tags, loaded.truth, run.data.unit
    flat = [tag for row in truth for tag in row], [tag for row in said for tag in row]
    loss = loss_figure(run.facts, run.data.per_step, f"{unit}s", unit)
    parts = [save_figure(loss, run.out / "loss.png")]
    if scheme(tags):
        parts.append(f"<h2>Types of entities</h2>\n{type_table(truth, said)}")
    parts.append(f"<h2>Tags</h2>\n{tag_table(*flat)}")
    parts.append(f"<h2>Commonest mistakes</h2>\n{mistakes(*flat)}")
    if (crf := run.model.crf) is not None:
        figure = save_figure(crf_figure(crf.params, tags), run.out / "transitions.png")
        parts.append(f"<h2>What follows what: weights of the CRF</h2>\n{figure}")
    parts.append(examples(loaded, said))
    name = f"{label(asdict(run.settings))}: {title(run.settings)}"
    return name, "\n".join(parts)
