"""The experiment: what its parts are, how well a model spells, and `caption`."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxseq
from experiments.captions import data, model, names, page
from experiments.captions.data import Part
from experiments.captions.model import Captioner
from experiments.captions.names import END, LANGUAGES, LONGEST, START, TABLE
from experiments.captions.settings import Settings
from experiments.frame.errors import InputError
from experiments.frame.experiment import Evaluation, Experiment, Result, Run, load


def captions(model: Captioner, images: np.ndarray, beam: int) -> list[list[str]]:
    """The name of each image in each language; greedily where `beam` is 1."""
    N, K = len(images), len(LANGUAGES)

    def decode(model: Captioner, images: Any) -> jax.Array:
        state = model.start(jnp.repeat(images, K, 0))
        token = jnp.tile(jnp.arange(START, START + K, dtype=jnp.int32), N)
        options: Any = {"max_length": LONGEST, "end": END}
        if beam == 1:
            return jaxseq.greedy(model.step, state, token, **options).tokens
        found = jaxseq.beam_search(model.step, state, token, **options, beam=beam)
        return found.tokens[:, 0]

    tokens = np.asarray(nnx.jit(decode)(model, images)).tolist()
    spelt = [names.text(row) for row in tokens]
    return [spelt[i : i + K] for i in range(0, N * K, K)]


def scores(
    greedy: list[list[str]], beam: list[list[str]], part: Part
) -> dict[str, float]:
    """Names that are right to the letter, in percent: of all languages and of each.

    `agree` is the share of images whose names are of one digit in all languages.
    """
    right = lambda said: np.array(
        [page.right(row, digit) for row, digit in zip(said, part.digits, strict=True)]
    )
    of_one_digit = [[names[digit] for names in TABLE] for digit in range(10)]
    exact = 100 * right(greedy).mean(0)
    return {
        "all": float(exact.mean()),
        "all, beam": 100 * float(right(beam).mean()),
        "agree": 100 * float(np.mean([row in of_one_digit for row in greedy])),
        **dict(zip(LANGUAGES, exact.tolist(), strict=True)),
    }


def evaluate(run: Run) -> Evaluation:
    test, title = run.data.tests["test"], "digits in ten languages, test"
    greedy = captions(run.model, test.images, 1)
    beam = captions(run.model, test.images, run.settings.beam)
    found = scores(greedy, beam, test)
    headline = (
        f"{title}: **{found['all']:.2f}%** of the names right, by beam search "
        f"**{found['all, beam']:.2f}%**; {found['agree']:.2f}% of the images named "
        "alike in all, whether rightly or not."
    )
    result = Result(title, run.data.digests["test"], found)
    return Evaluation([result], headline, greedy)


preset = lambda given: Settings()
EXPERIMENT = Experiment("Captions", preset, data, model, page, evaluate)


def caption(
    run: Path, images: list[int], languages: list[str] | None, beam: int | None
) -> int:
    """Writes the number of each image of the test, its digit, and its names."""
    test = data.parts()[2]
    for number in images:
        if number >= len(test.images):
            last = len(test.images) - 1
            raise InputError(f"--images {number}: the test has images 0 to {last}")
    for name in languages or ():
        if name not in LANGUAGES:
            known = ", ".join(LANGUAGES)
            raise InputError(f"--languages {name}: not one of {known}")
    _, settings, _, model, *_ = load(EXPERIMENT, run)
    said = captions(model, test.images[images], beam or settings.beam)
    chosen = [LANGUAGES.index(name) for name in languages or LANGUAGES]
    for number, row in zip(images, said, strict=True):
        fields = [number, test.digits[number], *(row[k] for k in chosen)]
        print("\t".join(map(str, fields)))
    return 0
