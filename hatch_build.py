"""Puts the native engine into a wheel, if JAXSEQ_WHEEL=native asks for it.

Without it the wheel is pure, and the engine is built where it runs: docs/cpu.md.
"""

import importlib.util
import os
import re
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CPU = Path(__file__).parent / "jaxseq" / "_kernels" / "cpu"


class NativeHook(BuildHookInterface):
    def asked(self) -> bool:
        return os.environ.get("JAXSEQ_WHEEL") == "native"

    def dependencies(self) -> list[str]:
        """The oldest jaxlib that is supported, for the headers that it brings."""
        if not self.asked() or self.target_name != "wheel":
            return []
        text = " ".join(self.metadata.core.dependencies)
        oldest = re.search(r"jax>=([\d.]+)", text)
        assert oldest is not None, text
        return [f"jaxlib=={oldest[1]}"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not self.asked() or self.target_name != "wheel" or version == "editable":
            return
        compilers, target = module(CPU / "compilers.py"), sysconfig.get_platform()
        command = compilers.compiler()
        if command is None:
            raise RuntimeError("JAXSEQ_WHEEL=native, and no C++ compiler was found")
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name, "native.so")
        compilers.build(command, include(), path, compilers.machine())
        self.app.display_info(f"the native engine, compiled by {' '.join(command)}")
        build_data["force_include"][str(path)] = "jaxseq/_kernels/cpu/native.so"
        build_data["pure_python"] = False
        # of no use of Python's interface, so for every Python
        build_data["tag"] = f"py3-none-{re.sub(r'[-.]', '_', target)}"

    def finalize(self, version: str, build_data: dict[str, Any], path: str) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


def module(path: Path) -> ModuleType:
    """A file of the library, which imports no other and nothing of jax."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def include() -> str:
    """The headers of XLA, which lie in jaxlib."""
    spec = importlib.util.find_spec("jaxlib")
    assert spec is not None and spec.submodule_search_locations is not None
    return str(Path(spec.submodule_search_locations[0], "include"))
