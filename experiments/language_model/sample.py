"""Text from a trained model."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkpoint import Checkpoints, has_checkpoints
from experiments.errors import InputError
from experiments.language_model.data import decode, encode
from experiments.language_model.model import LanguageModel, generate
from experiments.language_model.settings import Settings
from experiments.language_model.train import make_parts
from experiments.training import saved_settings


class Sampling(NamedTuple):
    prompt: str
    length: int
    temperature: float
    top_p: float
    seed: int

    def check_prompt(self, vocabulary: str) -> None:
        strange = sorted(set(self.prompt) - set(vocabulary))
        if strange:
            raise InputError(
                f"--prompt: {', '.join(map(repr, strange))} not among the "
                f"{len(vocabulary)} characters that the model knows"
            )


def sample(model: LanguageModel, vocabulary: str, sampling: Sampling) -> str:
    """The prompt and what the model writes after it."""
    # without a prompt it starts as after a line's end
    prompt = sampling.prompt or ("\n" if "\n" in vocabulary else vocabulary[0])
    tokens = generate(
        model,
        jnp.asarray(encode(prompt, vocabulary)),
        jax.random.key(sampling.seed),
        sampling.temperature,
        sampling.top_p,
        length=sampling.length,
    )
    return sampling.prompt + decode(np.asarray(tokens), vocabulary)


def load(run: Path) -> tuple[LanguageModel, str]:
    """The model and the vocabulary of the newest checkpoint in the folder `run`."""
    checkpoints = Checkpoints(run, read_only=True) if has_checkpoints(run) else None
    if checkpoints is None or checkpoints.newest is None:
        raise InputError(f"--run {run}: no checkpoint there")
    facts = checkpoints.facts()
    settings = saved_settings(Settings, facts, run)
    parts = make_parts(settings, len(facts["vocabulary"]))
    state = checkpoints.arrays(parts.state)
    return parts.model(state.weights), facts["vocabulary"]
