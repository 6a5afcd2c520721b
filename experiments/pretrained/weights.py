"""Where the weights of published networks lie: in their installed packages."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from experiments.frame.errors import InputError

# what `make test` fetches
APART = Path(sys.prefix) / "networks"


def arrays(package: str, name: str, install: str) -> Mapping[str, Any]:
    """The arrays in a file of a package, whose code is not run.

    Args:
        package: the package.
        name: the file's path in it.
        install: what installs it, for the one who has it not.
    """
    spec = find_spec(package)
    folders = [Path(p) for p in (spec and spec.submodule_search_locations) or []]
    found = [p for f in [*folders, APART / package] if (p := f / name).is_file()]
    if not found:
        raise InputError(f"{name} of {package} is not here; try: {install}")
    try:
        if found[0].suffix == ".onnx":
            graph = onnx.load(found[0]).graph
            return {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
        with np.load(found[0], allow_pickle=False) as file:
            return dict(file)
    except (OSError, EOFError, ValueError, DecodeError) as e:
        raise InputError(f"{found[0]}: not the weights of {package}") from e
