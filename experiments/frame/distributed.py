"""A run on several processes: what is special about it.

All processes run the same program, and one is the case of one. Process 0 alone decides,
prints and writes files; what it decides reaches the others as JSON. How they end
together is in watch.py.
"""

import itertools
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.frame.data import Same, Share, digest
from experiments.frame.errors import InputError

NAMES = itertools.count()  # of what is agreed on, the same in every process


def start(address: str | tuple[str, int, int], heartbeat: int) -> None:
    """Joins the other processes, before anything else of JAX."""
    # SIGTERM is left to Python, where it can end what is not a step
    jax.config.update("jax_enable_preemption_service", False)
    # JAX counts from the last heartbeat, of which there are two in this time, and then
    # aborts with many lines: so watch.py comes first
    how: dict[str, Any] = {"heartbeat_timeout_seconds": 2 * heartbeat + 10}
    if isinstance(address, tuple):
        # else the coordinator listens at every address that the machine has
        how |= {"coordinator_bind_address": address[0]} if address[2] == 0 else {}
        jax.distributed.initialize(*address, **how)
    else:
        try:
            jax.distributed.initialize(**how)
        except ValueError as e:  # of what JAX could not find out
            raise InputError(
                "auto: nothing here tells of other processes, as srun, mpirun of Open "
                "MPI 4, Kubernetes and Cloud TPU do; expected HOST:PORT,N,I"
            ) from e
    if devices() != count() * jax.local_device_count():
        own = f"{jax.local_device_count()} of all {devices()} devices are here"
        raise InputError(f"{own}: expected as many in each of {count()} processes")
    if not first():
        sys.stdout = sys.stderr = open(os.devnull, "w")
    meet("start")
    # connected now: whoever comes late to what follows is waited for
    fetch(greatest(0))


def count() -> int:
    return jax.process_count()


def first() -> bool:
    return jax.process_index() == 0


def devices() -> int:
    return len(jax.devices())


def client() -> Any:
    """That of JAX's coordination service, which JAX shows by no public name."""
    from jax._src import distributed

    return distributed.global_state.client


def wait_for(key: str) -> str:
    """What a process sets there, waited for in pieces, between which signals act."""
    while True:
        try:
            return client().blocking_key_value_get(key, 1000)
        except jax.errors.JaxRuntimeError as e:
            if "DEADLINE_EXCEEDED" not in str(e):
                raise


def meet(name: str) -> None:
    """Waits until all have come here."""
    if count() > 1:
        key = f"{name}/{next(NAMES)}"
        if client().key_value_increment(f"come/{key}", 1) == count():
            client().key_value_set(f"met/{key}", "all")
        wait_for(f"met/{key}")


def agree(decide: Callable[[], Any]) -> Any:
    """What process 0 decides, as JSON."""
    if count() == 1:
        return decide()
    key = f"agreed/{next(NAMES)}"
    if first():
        client().key_value_set(key, json.dumps(decide()))
    return json.loads(wait_for(key))


def same(name: str, values: Mapping[str, Any]) -> None:
    """Raises in a process some of whose values are not those of process 0."""
    own = {key: digest(value) for key, value in values.items()}
    others = agree(lambda: own)
    if wrong := sorted(k for k in own | others if own.get(k) != others.get(k)):
        which = ", ".join(wrong)
        raise InputError(f"the {name} differ from those of process 0: {which}")


def shared(out: Path, seconds: float = 60.0) -> None:
    """Raises in a process that does not see what process 0 writes in a folder."""
    if count() == 1:
        return
    mark = out / agree(lambda: f".{uuid.uuid4().hex}")
    if first():
        mark.touch()
    meet("marked")
    end = time.monotonic() + seconds  # file systems of a network show it late
    while not (out.is_dir() and mark.name in os.listdir(out)):
        if time.monotonic() > end:
            raise InputError(f"--out {out}: expected a folder that all processes share")
        time.sleep(0.5)
    meet("seen")
    if first():
        mark.unlink()


# arrays over the devices of all processes


@cache
def mesh() -> Mesh:
    # of one process side by side, as its rows are, which they need not be on TPUs
    order = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(order), ("data",))


def everywhere() -> NamedSharding:
    return NamedSharding(mesh(), PartitionSpec())


def over_rows() -> NamedSharding:
    return NamedSharding(mesh(), PartitionSpec("data"))


def share() -> Share:
    return Share(jax.process_index(), count(), devices())


def replicated(tree: Any) -> Any:
    """Arrays that each process has whole."""

    def place(a: Any) -> jax.Array:
        a = np.asarray(a)
        return jax.make_array_from_callback(a.shape, everywhere(), lambda at: a[at])

    return jax.tree.map(place, tree)


def by_rows(tree: Any) -> Any:
    """Arrays of all rows, of those that each process has; what has none stays."""

    def place(a: Any) -> Any:
        if isinstance(a, Same):
            return replicated(a)
        if np.ndim(a) == 0:
            return a
        return jax.make_array_from_process_local_data(over_rows(), np.asarray(a))

    return jax.tree.map(place, tree, is_leaf=lambda a: isinstance(a, Same))


def greatest(value: int) -> jax.Array:
    """The greatest of what the processes give, which all have to ask for."""
    own = by_rows(np.full(jax.local_device_count(), value, np.int32))
    return jax.jit(jnp.max, out_shardings=everywhere())(own)


def fetch(tree: Any) -> Any:
    """Arrays that each process has whole, as NumPy's."""
    # device_get alone waits with Python's lock, and so stops the threads of `Watch`
    return jax.device_get(jax.block_until_ready(tree))
