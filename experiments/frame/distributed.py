"""A run on several processes: what is special about it.

All processes run the same program, and one is the case of one. Process 0 alone decides,
prints and writes files; what it decides reaches the others as JSON. How they end
together is in watch.py.
"""

import itertools
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.frame.data import Same, Share, digest
from experiments.frame.errors import InputError

DAY = 24 * 3600
NAMES = itertools.count()  # of what is agreed on, the same in every process


def start(address: str | tuple[str, int, int], heartbeat: int) -> None:
    """Joins the other processes, before anything else of JAX."""
    # JAX counts from the last heartbeat, of which there are two in this time, and then
    # aborts with many lines: so watch.py comes first
    how: dict[str, Any] = {"heartbeat_timeout_seconds": 2 * heartbeat + 10}
    if isinstance(address, tuple):
        # else the coordinator listens at every address that the machine has
        how |= {"coordinator_bind_address": address[0]} if address[2] == 0 else {}
        jax.distributed.initialize(*address, **how)
    else:
        jax.distributed.initialize(**how)
    if not first():
        sys.stdout = sys.stderr = open(os.devnull, "w")
    meet("start")
    # connected now: whoever comes late to what follows is waited for
    jax.block_until_ready(
        jax.jit(jnp.sum, out_shardings=everywhere())(by_rows(np.ones(devices())))
    )


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


def meet(name: str, seconds: float = DAY) -> None:
    """Waits until all have come here."""
    if count() > 1:
        client().wait_at_barrier(f"{name}/{next(NAMES)}", int(1000 * seconds))


def agree(decide: Callable[[], Any]) -> Any:
    """What process 0 decides, as JSON."""
    if count() == 1:
        return decide()
    key = f"agreed/{next(NAMES)}"
    if first():
        client().key_value_set(key, json.dumps(decide()))
    return json.loads(client().blocking_key_value_get(key, 1000 * DAY))


def same(name: str, value: Any) -> None:
    """Raises in a process whose value is not that of process 0."""
    own = digest(value)
    if agree(lambda: own) != own:
        raise InputError(f"the {name} differ from those of process 0")


# arrays over the devices of all processes


@cache
def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("data",))


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


def fetch(tree: Any) -> Any:
    """Arrays that each process has whole, as NumPy's."""
    # device_get alone waits with Python's lock, and so stops the threads of `Watch`
    return jax.device_get(jax.block_until_ready(tree))
