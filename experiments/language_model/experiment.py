"""The experiment: the loss of a text held out, a sample, and `generate`."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.frame.errors import InputError
from experiments.frame.experiment import Evaluation, Experiment, Result, Run, load
from experiments.language_model import data, model, page
from experiments.language_model.model import LanguageModel
from experiments.language_model.settings import Settings, preset


def check(settings: Settings, given: dict[str, Any]) -> None:
    if given["prompt"]:  # told now, not after the training
        text = data.read(settings.data, given["data_dir"])
        check_prompt(given["prompt"], set(text))


def check_prompt(prompt: str, known: set[str]) -> None:
    if strange := sorted(set(prompt) - known):
        raise InputError(
            f"--prompt: {', '.join(map(repr, strange))} not among the {len(known)} "
            "characters that the model knows"
        )


def write(
    model_of: LanguageModel, vocabulary: str, prompt: str, length: int,
    temperature: float, top_p: float, seed: int,
) -> str:  # fmt: skip
    """The prompt and what the model writes after it."""
    # without a prompt it starts as after a line's end
    first = prompt or ("\n" if "\n" in vocabulary else vocabulary[0])
    tokens = model.generate(
        model_of,
        jnp.asarray(data.encode(first, vocabulary)),
        jax.random.key(seed),
        temperature,
        top_p,
        length=length,
    )
    return prompt + data.decode(np.asarray(tokens), vocabulary)


def evaluate(run: Run) -> Evaluation:
    vocabulary, seed = run.facts["vocabulary"], run.settings.seed
    written = write(run.model, vocabulary, **run.asked, seed=seed)
    print(f"\n{written}\n")
    nats = run.facts["held_out"][-1]["loss"]
    bits, perplexity = nats / float(np.log(2)), float(np.exp(nats))
    scores = {"nats": nats, "bits": bits, "perplexity": perplexity}
    title = f"{data.title(run.settings)}, held out"
    course = {"course": run.facts["held_out"]}
    result = Result(title, run.data.digests["all"], scores, "held-out", course)
    headline = (
        f"Held-out text: **{nats:.4f}** nats, **{bits:.4f}** bits per character, "
        f"perplexity **{perplexity:.3f}**."
    )
    return Evaluation([result], headline, written)


DIGITS = {"nats": 3, "bits": 3, "perplexity": 2}
EXPERIMENT = Experiment(
    "Language model", preset, data, model, page, evaluate, check, DIGITS,
    start=model.start,
)  # fmt: skip


def generate(run: Path, prompt: str, seed: int, **how: Any) -> int:
    """Writes text from a checkpoint, which alone is enough."""
    found = load(EXPERIMENT, run)
    vocabulary = found.facts["vocabulary"]
    check_prompt(prompt, set(vocabulary))
    print(write(found.model, vocabulary, prompt, **how, seed=seed))
    return 0
