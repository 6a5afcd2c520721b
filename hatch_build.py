"""Puts the native engine into a wheel, if JAXSEQ_WHEEL asks for it.

JAXSEQ_WHEEL=native compiles it for this machine, with its compiler. JAXSEQ_WHEEL=x86_64
and JAXSEQ_WHEEL=aarch64 compile it by Zig for Linux on that processor, on any machine.
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

ZIG = "x86_64", "aarch64"
CPU = Path(__file__).parent / "jaxseq" / "_kernels" / "cpu"


class NativeHook(BuildHookInterface):
    def asked(self) -> str | None:
        named = os.environ.get("JAXSEQ_WHEEL") if self.target_name == "wheel" else None
        if named and named not in ("native", *ZIG):
            expected = "native, x86_64 or aarch64"
            raise RuntimeError(f"JAXSEQ_WHEEL: expected {expected}, got {named!r}")
        return named or None

    def dependencies(self) -> list[str]:
        """The oldest jaxlib that is supported, for the headers that it brings."""
        asked, needs = self.asked(), self.metadata.core
        if asked is None:
            return []
        oldest = re.search(r"jax>=([\d.]+)", " ".join(needs.dependencies))
        assert oldest is not None, needs.dependencies
        zig = needs.optional_dependencies["native"] if asked in ZIG else []
        return [f"jaxlib=={oldest[1]}", *zig]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        asked = self.asked()
        if asked is None or version == "editable":
            return
        compilers, system = module(CPU / "compilers.py"), sysconfig.get_platform()
        target, command = compilers.machine(), compilers.compiler()
        if asked in ZIG:
            target, command = asked, compilers.zig(asked)
            system = f"manylinux_{compilers.GLIBC}_{asked}"
        if command is None:
            raise RuntimeError(f"JAXSEQ_WHEEL={asked}, and no C++ compiler was found")
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name, "native.so")
        compilers.build(command, include(), path, target)
        self.app.display_info(
            f"the native engine, compiled by {compilers.name_of(command)}"
        )
        build_data["force_include"][str(path)] = "jaxseq/_kernels/cpu/native.so"
        build_data["pure_python"] = False
        # of no use of Python's interface, so for every Python
        build_data["tag"] = f"py3-none-{re.sub(r'[-.]', '_', system)}"

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
