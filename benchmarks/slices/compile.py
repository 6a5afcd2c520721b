"""`python -m benchmarks compile-slice`: a training step compiled for a slice of TPUs.

No TPU is needed, nor as many hosts as the slice has. The step is that of the language
model of `experiments`: its batch is over all chips, its weights are whole on each. The
compiled program shows what the chips send each other, and what it has to fit into. A
chip is one device, but two of a v4, whose cores are compiled for one by one here.
"""

import time
from collections import Counter
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from benchmarks.device import commit
from benchmarks.errors import UsageError
from benchmarks.rows import Row, append
from benchmarks.slices.options import QUICK, SMALL, Sizes
from benchmarks.slices.sent import CALL, collectives, wrong
from benchmarks.slices.step import bytes_of, placed, training_step
from benchmarks.tpu_compile import recorded_tiles


def compile_step(topology: str, sizes: Sizes) -> Row:
    devices = topologies.get_topology_desc(topology, "tpu").devices
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    step, args = training_step(sizes, mesh)
    args = placed(mesh, args)
    start, cpu = time.monotonic(), time.process_time()
    with jax.set_mesh(mesh), recorded_tiles() as tiles:
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*args)
        middle = time.monotonic()
        compiled = lowered.compile()
    minutes = {
        "lowering": middle - start,
        "compilation": time.monotonic() - middle,
        "cpu": time.process_time() - cpu,
    }
    text, memory = compiled.as_text() or "", compiled.memory_analysis()
    names = "argument", "output", "alias", "temp", "generated_code"
    sizes_of = {name: getattr(memory, f"{name}_size_in_bytes") for name in names}
    sent = collectives(text)
    return {
        "topology": topology,
        "devices": mesh.size,
        **sizes._asdict(),
        "collectives": [
            {
                **dict(zip(("kind", "dtype", "loop"), key, strict=True)),
                "arrays": n,
                "bytes": sum(each.bytes for each in sent if each[:3] == key),
            }
            for key, n in sorted(Counter(each[:3] for each in sent).items())
        ],
        "operations": len(CALL.findall(text)),
        "wrong": wrong(sent),
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "tiles": tiles,
        "bytes": {**sizes_of, "counted_arguments": bytes_of(args)},
        "minutes": {name: round(t / 60, 2) for name, t in minutes.items()},
    }


def show(row: Row) -> str:
    took = row["minutes"]["lowering"] + row["minutes"]["compilation"]
    mib = lambda name: f"{row['bytes'][name] / 2**20:.1f}"
    sent = ", ".join(
        f"{each['arrays']} {each['dtype']} {each['bytes'] / 2**20:.2f} MiB"
        for each in row["collectives"]
        if each["kind"] == "all-reduce"
    )
    return (
        f"{row['topology']:10} {row['layers']} x {row['hidden']}"
        f"  {row['kernels']} kernels  all-reduce of {sent} in {row['operations']}"
        f"  MiB a device: arguments {mib('argument')}, temporaries {mib('temp')}, code "
        f"{mib('generated_code')}  {took:.1f} minutes"
        + "".join(f"\n  WRONG: {each}" for each in row["wrong"])
    )


def compile_slices(options: Any) -> int:
    """Returns how many of the programs send what they need not."""
    if find_spec("libtpu") is None:
        raise UsageError("libtpu is not installed: pip install 'jaxseq[tpu-compile]'")
    jax.config.update("jax_platforms", "cpu")
    # a cached program would have no compile time
    jax.config.update("jax_enable_compilation_cache", False)
    versions = {name: version(name) for name in ("jax", "jaxlib", "libtpu")}
    print(" ".join(map(" ".join, versions.items())))
    sizes = (
        SMALL if options.quick else Sizes(*(getattr(options, n) for n in Sizes._fields))
    )
    failed = 0
    for topology in [QUICK] if options.quick else options.topologies:
        row = compile_step(topology, sizes)
        failed += bool(row["wrong"])
        print(show(row), flush=True)
        if options.results is not None:
            append(options.results, [row], commit=commit(), versions=versions)
    return failed
