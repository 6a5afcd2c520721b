"""The device measured on, its name, and the commit measured."""

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import jax

from benchmarks.errors import UsageError

# that is jax.Device, which is not a type for type checkers
Device = Any
ROOT = Path(__file__).parent.parent


def find_device(name: str) -> Device:
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"platform {name} is absent: {reason}") from error


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def refuse_busy(most: float) -> None:
    load = os.getloadavg()[0]
    if load > most:
        raise UsageError(
            f"the machine is busy: {load:.1f} processes on {cores()} cores over the "
            f"last minute, and at most {most:g} leave times that mean something; wait, "
            "or measure all the same with --max-load"
        )


def processor() -> str:
    info = Path("/proc/cpuinfo")
    found = info.exists() and re.search(r"model name\s*: (.*)", info.read_text())
    return found[1] if found else platform.processor() or platform.machine()


def device_name(device: Device) -> str:
    """A short name in lower case, good for a file: `cpu-intel-xeon-2`."""
    if device.platform == "cpu":
        noise = r"\((r|tm|c)\)|@.*|\b(processor|cpu)\b"
        text = f"cpu {re.sub(noise, ' ', processor(), flags=re.I)} {cores()}"
    elif device.platform in device.device_kind.lower():
        text = device.device_kind
    else:
        text = f"{device.platform} {device.device_kind}"
    return "-".join(re.findall(r"[a-z0-9.]+", text.lower()))


def commit(*more: str) -> str | None:
    """The commit, with `+dirty` if any code measured differs from it.

    That is the library's and the benchmarks', and `more` patterns of files.
    """
    kinds = ("jaxseq/*.py", "jaxseq/*.cc", "jaxseq/*.h", "benchmarks/*.py")
    try:
        name = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "--", *kinds, *more)
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+dirty" if changed else "")


def code(folder: Path = ROOT / "jaxseq") -> str:
    """A hash of JAX's version and the library's sources, committed or not."""
    found = hashlib.sha256(jax.__version__.encode())
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".cc", ".h"):
            found.update(str(path.relative_to(folder)).encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def git(*args: str) -> str:
    command = ["git", "-C", str(ROOT), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
