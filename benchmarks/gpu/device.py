"""The machine: versions, rates, and how many clusters fit on it at once."""

import importlib.metadata
import platform
import subprocess

from benchmarks.device import commit
from benchmarks.gpu.lines import error_text
from benchmarks.gpu.occupancy import clusters_at_once
from benchmarks.gpu.task import Task

PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "flax")
PACKAGES += ("torch", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
QUERY = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit"


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return error_text(error)
    return done.stdout.strip() or done.stderr.strip()


def main(task: Task) -> None:
    versions = {name: version(name) for name in PACKAGES}
    task.lines.write(
        python=platform.python_version(),
        versions=versions,
        nvidia_smi=nvidia_smi(),
        commit=commit(),
    )
    try:
        for row in clusters_at_once():
            task.lines.write(**row)
    except Exception as error:
        task.lines.write(measure="clusters at once", error=error_text(error))
    device = task.device()
    if device is None:
        return
    from benchmarks.gpu.floors import measure_rates

    rates = measure_rates(task, device)
    task.lines.write(
        device=device.device_kind,
        tflops={name: round(rate / 1e12, 1) for name, rate in rates.flops.items()},
        memory_tb_s=rates.bytes / 1e12,
    )
