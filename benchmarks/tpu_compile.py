"""`python -m benchmarks compile-tpu`: compiles the TPU kernels for chips not here.

The compiler of TPUs, libtpu, needs no TPU. What it takes runs; how fast is not known.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

# libtpu reads these when it is loaded, and asks the network for what is missing
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

import jaxseq
from benchmarks.device import commit
from benchmarks.errors import UsageError
from benchmarks.rows import Row, append
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU
from jaxseq._kernels.tpu import scan

TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
EIGHT = "v5e:2x4"  # over which a batch is split
BUILT_IN = "rnn", "lstm", "gru"
WRITTEN = {
    "peephole": PEEPHOLE_LSTM,
    "projected": PROJECTED_LSTM,
    "reset before": RESET_BEFORE_GRU,
}
QUICK = "lstm", "peephole", "reset before"
MODES = ("forward", "forward+backward")
WIDTHS = (128, 256, 512, 1024)
B, T, D = 64, 256, 128


class Case(NamedTuple):
    chip: str
    cell: str
    H: int
    mode: str


def struct(sharding: Any, *shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def work(case: Case, whole: Any, batched: Any) -> tuple[Callable, tuple[Any, ...]]:
    """A function that runs the kernels of a case, and shapes for it.

    The two are how weights lie on the devices, and what has a batch.
    """
    if case.cell in BUILT_IN:
        names = (f"{case.cell}{part}" for part in ("", "_init", "_zeros"))
        sequence, init, zeros = (getattr(jaxseq, name) for name in names)
    else:
        update, init, zeros = WRITTEN[case.cell]
        sequence = partial(jaxseq.cell, update)
    sequence = partial(sequence, implementation="pallas")
    placed = lambda sharding, tree: jax.tree.map(
        lambda a: struct(sharding, *a.shape, dtype=a.dtype), tree
    )
    init = partial(init, D=D, H=case.H, dtype=jnp.bfloat16)
    params = placed(whole, jax.eval_shape(init, jax.random.key(0)))
    state = placed(batched, jax.eval_shape(lambda p: zeros(p, (B,)), params))
    x = struct(batched, B, T, D, dtype=jnp.bfloat16)
    lengths = struct(batched, B, dtype=jnp.int32)
    resets = struct(batched, B, T, dtype=jnp.bool_)

    def forward(params: Any, x: Any, state: Any, lengths: Any, resets: Any) -> Any:
        return sequence(params, x, state, lengths=lengths, resets=resets)

    def both(d: Any, *args: Any) -> Any:
        out, back = jax.vjp(lambda *some: forward(*some, *args[3:]), *args[:3])
        return out, back(d)

    args = params, x, state, lengths, resets
    if case.mode == "forward":
        return forward, args
    y = struct(batched, B, T, case.H, dtype=jnp.bfloat16)
    return both, ((state, y), *args)


def mesh_of(topology: str, n: int) -> jax.sharding.Mesh:
    devices = topologies.get_topology_desc(topology, "tpu").devices
    return jax.sharding.Mesh(np.array(devices)[:n], ("batch",))


def compile_case(case: Case) -> Row:
    mesh = mesh_of(TOPOLOGIES[case.chip], 1)
    whole = NamedSharding(mesh, PartitionSpec())
    run, shapes = work(case, whole, whole)
    # the mesh in context is what tells the kernels which chip it is
    with jax.set_mesh(mesh):
        return {**describe(case), **attempt(run, shapes)}


def compile_shared() -> Row:
    """Forward and backward of a batch that `jit` splits over eight chips."""
    case = Case("v5e x 8", "lstm", 128, MODES[1])
    mesh = mesh_of(EIGHT, 8)
    whole, batched = (NamedSharding(mesh, PartitionSpec(*a)) for a in ((), ("batch",)))
    run, shapes = work(case, whole, batched)
    with jax.set_mesh(mesh):
        return {**describe(case), **attempt(run, shapes)}


def compile_training_step() -> Row:
    """A step of SGD of the Flax module, its batch split over eight chips."""
    from flax import nnx

    from jaxseq.nn import LSTM

    case = Case("v5e x 8", "nn.LSTM", 128, "training step")
    mesh = mesh_of(EIGHT, 8)
    make = lambda: LSTM(D, case.H, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graph, weights = nnx.split(nnx.eval_shape(make), nnx.Param)

    def loss(weights: Any, x: Any, target: Any) -> Any:
        _, y = nnx.merge(graph, weights)(x)
        return jnp.mean((y - target).astype(jnp.float32) ** 2)

    def step(weights: Any, x: Any, target: Any) -> Any:
        grads = jax.grad(loss)(weights, x, target)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, grads)

    whole = partial(struct, NamedSharding(mesh, PartitionSpec()))
    batched = partial(struct, NamedSharding(mesh, PartitionSpec("batch")))
    weights = jax.tree.map(lambda w: whole(*w.shape, dtype=w.dtype), weights)
    x, target = (batched(B, T, W, dtype=jnp.bfloat16) for W in (D, case.H))
    with jax.set_mesh(mesh):
        return {**describe(case), **attempt(step, (weights, x, target))}


def describe(case: Case) -> Row:
    return {**case._asdict(), "B": B, "T": T, "dtype": "bfloat16"}


class recorded_tiles:
    """The tiles that kernels were compiled with, and the VMEM counted for them."""

    def __enter__(self) -> list[Any]:
        self.rule, found = scan.tiles, []

        def tiles(B: int, T: int, size: Any, chip: Any) -> Any:
            tile = self.rule(B, T, size, chip)
            found.append((*tile, size.total(*tile), chip.vmem) if tile else None)
            return tile

        scan.tiles = tiles
        return found

    def __exit__(self, *_: Any) -> None:
        scan.tiles = self.rule


def attempt(run: Callable, shapes: Any) -> Row:
    start = time.perf_counter()
    try:
        with recorded_tiles() as tiles:
            compiled = jax.jit(run).lower(*shapes).compile()
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        if isinstance(error, ValueError) and reason.startswith("implementation: "):
            return {"result": "limit", "reason": reason.partition("got ")[2]}
        return {"result": "fails", "reason": f"{type(error).__name__}: {reason}"}
    seconds = time.perf_counter() - start
    text = compiled.as_text() or ""
    return {
        "result": "compiles",
        "seconds": round(seconds, 2),
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "all_gathers": text.count(" all-gather("),
        "tiles": tiles,
    }


def rows(quick: bool) -> Iterator[Row]:
    chips = ["v5e"] if quick else list(TOPOLOGIES)
    for chip in chips:
        for cell in QUICK if quick else [*BUILT_IN, *WRITTEN]:
            for H in WIDTHS[:1] if quick else WIDTHS:
                for mode in MODES:
                    yield compile_case(Case(chip, cell, H, mode))
    yield compile_shared()
    if find_spec("flax") is not None:
        yield compile_training_step()


def show(row: Row) -> str:
    def mib(n: int) -> str:
        return f"{n / 2**20:.1f}"

    name = f"{row['chip']:8} {row['cell']:12} {row['H']:5} {row['mode']:17}"
    if row["result"] != "compiles":
        return f"{name} {row['result']}: {row['reason']}"
    tiles = ", ".join(f"{b}x{t} {mib(n)} of {mib(m)}" for b, t, n, m in row["tiles"])
    return (
        f"{name} compiles {row['seconds']:6.1f} s  {row['kernels']} kernels"
        f"  {row['all_gathers']} all-gathers  tiles and MiB: {tiles or 'none'}"
    )


def compile_all(quick: bool, path: Path | None) -> int:
    """Returns how many cases do not compile; one above a limit need not."""
    if find_spec("libtpu") is None:
        raise UsageError("libtpu is not installed: pip install 'jaxseq[tpu-compile]'")
    jax.config.update("jax_platforms", "cpu")
    # a cached program would have no compile time
    jax.config.update("jax_enable_compilation_cache", False)
    versions = {name: version(name) for name in ("jax", "jaxlib", "libtpu")}
    print(f"B={B} T={T} bfloat16 " + " ".join(map(" ".join, versions.items())))
    failed = 0
    for row in rows(quick):
        failed += row["result"] == "fails"
        print(show(row), flush=True)
        if path is not None:
            append(path, [row], commit=commit(), versions=versions)
    return failed
