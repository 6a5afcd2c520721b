"""The libraries compared, a file each: `prepare(problem, device, repeats)`."""

import importlib
import importlib.metadata
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.cases import Case
from benchmarks.contender import Contender, prepare_layer
from benchmarks.errors import UsageError
from benchmarks.problem import Problem

Prepare = Callable[[Problem, Any, int], Contender]

# name of the contender: package it is of
CONTENDERS = {
    "jaxseq": "jaxseq",
    "jaxseq scan": "jaxseq",
    "jaxseq vmap": "jaxseq",
    "flax": "flax",
    "linen": "flax",
    "equinox": "equinox",
    "haiku": "dm-haiku",
    "keras": "keras",
    "cudnn": "jax",
    "torch": "torch",
}


def load(name: str, platform: str) -> Prepare:
    try:
        module: Any = importlib.import_module(
            f"benchmarks.contenders.{name.replace(' ', '_')}"
        )
    except ModuleNotFoundError as error:
        raise UsageError(
            f"contender {name}: no module {error.name!r}; "
            "pip install 'jaxseq[benchmarks]'"
        ) from error
    if name == "torch":
        if not module.runs_on(platform):
            raise UsageError(
                f"contender torch: this build does not run on {platform}; "
                "leave it out with --contenders"
            )
        return module.prepare
    return partial(prepare, module.layer)


def prepare(layer: Callable, problem: Problem, device: Any, repeats: int) -> Contender:
    return prepare_layer(layer(problem), problem, device, repeats)


def usual(case: Case, platform: str) -> list[str]:
    """Who is measured in a case if nobody is named."""
    if platform != "cpu":
        return ["jaxseq", "jaxseq scan", "flax", "cudnn", "torch"][
            : 4 if platform == "tpu" else None
        ]
    if case.mode == "decode":
        return ["jaxseq", "jaxseq scan", "flax", "torch"]
    if case.resets:
        return ["jaxseq", "jaxseq vmap", "linen"]
    return ["jaxseq", "flax", "equinox", "haiku", "keras", "torch"]


def version(name: str) -> str:
    return importlib.metadata.version(CONTENDERS.get(name, name))
