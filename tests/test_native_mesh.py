"""The native kernels on the devices of a mesh: each runs its own rows, or members."""

import os
import socket
import subprocess
import sys
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxseq
from jaxseq._engine.types import Devices
from jaxseq._kernels.cpu import build, spread
from tests.cells import assert_close
from tests.native.problems import normal, random_weights
from tests.test_collectives import sent

pytestmark = pytest.mark.usefixtures("native_library")

P = PartitionSpec
B, T, D, H = 4, 5, 3, 7
KINDS = [AxisType.Auto, AxisType.Explicit]
MASKS = ["", "lengths", "mask resets"]


def masks(names, *batch):
    every = {
        "lengths": jnp.asarray(np.random.default_rng(2).integers(0, T + 1, batch)),
        "mask": normal(3, *batch, T) > -0.5,
        "resets": normal(4, *batch, T) > 0.5,
    }
    return {name: every[name] for name in names.split()}


def both(op, params, x, more, name):
    """What a layer gives, and all gradients of a sum of it."""

    def loss(params, x):
        _, y = out = getattr(jaxseq, op)(params, x, **more, implementation=name)
        return jnp.sin(y).sum(), out

    return jax.grad(loss, (0, 1), has_aux=True)(params, x)


def program(op, name):
    return jax.jit(lambda params, x, more: both(op, params, x, more, name))


def weights(op):
    return random_weights(getattr(jaxseq, f"{op}_init"), D, H)


def put(tree, mesh, *axes):
    return jax.device_put(tree, NamedSharding(mesh, P(*axes)))


@pytest.mark.every(4)
@pytest.mark.parametrize("names", MASKS)
@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize(
    "kind, is_set",
    [(AxisType.Auto, True), (AxisType.Auto, False), (AxisType.Explicit, True)],
)
def test_rows_over_devices(op, names, kind, is_set):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(kind,))
    params, x, more = weights(op), normal(1, B, T, D), masks(names, B)
    want = program(op, "scan")(params, x, more)
    given = put(params, mesh), put(x, mesh, "d"), put(more, mesh, "d")
    with jax.set_mesh(mesh) if is_set else nullcontext():
        lowered = program(op, "native").lower(*given)
        text, compiled = lowered.as_text(), lowered.compile()
        got = compiled(*given)
    assert_close(got, want)
    # forward and backward, and nothing in a loop
    assert text.count(f"@{build.TARGET}") == 2 and "while(" not in (
        compiled.as_text() or ""
    )
    # each device keeps its rows, and sends gradients of weights only
    _, (_, y) = got
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, P("d")), y.ndim)
    some = sent(compiled)
    assert {(what, inside) for what, _, inside in some} == {("all-reduce", "")}


@pytest.mark.parametrize("kind", KINDS)
def test_two_axes_of_rows(kind):
    """The first is split, and an axis of `vmap` is folded behind it."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(kind,))
    params, x, more = weights("gru"), normal(1, 2, 3, T, D), masks("lengths", 2, 3)

    def run(name):
        one = lambda x, more: jaxseq.gru(params, x, **more, implementation=name)
        return jax.jit(one), jax.jit(jax.vmap(one, in_axes=1, out_axes=1))

    with jax.set_mesh(mesh):
        given = put(x, mesh, "d"), put(more, mesh, "d")
        for native, scan in zip(run("native"), run("scan"), strict=True):
            assert_close(native(*given), scan(x, more))
            assert native.lower(*given).as_text().count(f"@{build.TARGET}") == 1


@pytest.mark.parametrize("split, members", [("members", 4), ("rows", 4), ("rows", 3)])
def test_members_over_devices(split, members):
    """An ensemble, whose weights are split over devices, or whose rows are."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    params = jax.tree.map(
        lambda a: a + normal(6, members, *a.shape) / 9, weights("lstm")
    )
    x, more = normal(1, B, T, D), masks("mask resets", B)

    def run(name):
        one = lambda params: both("lstm", params, x, more, name)
        return jax.jit(jax.vmap(one))

    given = put(params, mesh, *(["d"] if split == "members" else []))
    x = x if split == "members" else put(x, mesh, "d")
    assert_close(run("native")(given), run("scan")(params))
    assert run("native").lower(given).as_text().count(f"@{build.MEMBERS}") == 2


@pytest.mark.every(2)
@pytest.mark.parametrize("shape", [(2, 1), (1, 2)])
@pytest.mark.parametrize("manual", ["d", "e"])
def test_some_axes_of_a_shard_map(shape, manual):
    mesh = jax.make_mesh(shape, ("d", "e"), axis_types=(AxisType.Auto,) * 2)
    params, x, more = weights("lstm"), normal(1, B, T, D), masks("mask resets", B)

    def run(name):
        def each(x, more):
            (_, d_x), out = both("lstm", params, x, more, name)
            return d_x, out

        split = {"in_specs": (P(manual), P(manual)), "out_specs": P(manual)}
        return jax.jit(jax.shard_map(each, mesh=mesh, axis_names={manual}, **split))

    assert_close(run("native")(x, more), run("scan")(x, more))
    assert f"@{build.TARGET}" in run("native").lower(x, more).as_text()


def test_pmap():
    params, x = weights("gru"), normal(1, 2, B, T, D)
    run = lambda name: lambda x: both("gru", params, x, {}, name)
    assert_close(jax.pmap(run("native"))(x), jax.vmap(run("scan"))(x))


def refused(mesh, rows):
    params, x = put(weights("lstm"), mesh), put(normal(1, rows, T, D), mesh)
    run = lambda name: program("lstm", name)(params, x, {})
    with pytest.raises(ValueError) as error:
        run("native")
    assert_close(run(None), run("scan"))
    return str(error.value)


def test_what_is_not_split():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    assert "3 rows are not split over 2 devices" in refused(mesh, 3)
    mesh = jax.sharding.AbstractMesh((2, 2), ("d", "e"), (AxisType.Auto,) * 2)
    assert spread.limit(Devices(4, mesh), 4) == "the mesh has several axes"


PROCESS = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import tests.test_native_mesh as t
mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
rows, whole = NamedSharding(mesh, P("d")), NamedSharding(mesh, P())
with jax.enable_x64(True):
    own = slice(2 * int(sys.argv[2]), 2 * int(sys.argv[2]) + 2)
    params, x = t.weights("lstm"), t.normal(1, t.B, t.T, t.D)
    there = jax.make_array_from_process_local_data(rows, np.asarray(x[own]))
    whole = jax.device_put(params, whole)
    (d, _), (_, y) = t.program("lstm", "native")(whole, there, {})
    (want_d, _), (_, want) = t.program("lstm", "scan")(params, x, {})
    local = lambda a: a.addressable_data(0)
    t.assert_close((jax.tree.map(local, d), local(y)), (want_d, want[own]))
"""


def test_several_processes():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    some = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(i)],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=600)[1] for process in some]
    assert [process.returncode for process in some] == [0, 0], errors
