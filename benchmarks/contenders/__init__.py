"""The libraries compared, a file each: `prepare(problem, mode, device)`."""

import importlib
import importlib.metadata
from collections.abc import Callable

from benchmarks.device import Device
from benchmarks.errors import UsageError
from benchmarks.prepare import Prepared
from benchmarks.problem import Problem

Prepare = Callable[[Problem, str, Device], Prepared]

# name of the file here: name of the package
CONTENDERS = {
    "jaxseq": "jaxseq",
    "flax": "flax",
    "equinox": "equinox",
    "haiku": "dm-haiku",
    "keras": "keras",
    "torch": "torch",
}


def load(name: str, platform: str) -> Prepare:
    try:
        module = importlib.import_module(f"benchmarks.contenders.{name}")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"contender {name}: no module {error.name!r}; "
            "pip install 'jaxseq[benchmarks]'"
        ) from error
    if name == "torch" and not module.runs_on(platform):
        raise UsageError(
            f"contender torch: this build does not run on {platform}; "
            "leave it out with --contenders"
        )
    return module.prepare


def version(name: str) -> str:
    return importlib.metadata.version(CONTENDERS.get(name, name))
