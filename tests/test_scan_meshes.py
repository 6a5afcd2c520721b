"""`jaxseq.scan` of arrays on several devices, and of symbolic sizes: as `lax.scan`."""

import subprocess
import sys
from contextlib import nullcontext
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

import jaxseq
from jaxseq._base.dtypes import floats, is_float, with_floats
from tests import bodies
from tests.bodies import BODIES, core, vanilla
from tests.test_collectives import sent
from tests.test_scan import assert_same, steps_of, total

P = PartitionSpec
B = 4  # two devices can share it


@pytest.fixture(autouse=True)
def batch(monkeypatch):
    monkeypatch.setattr(bodies, "B", B)


def problem(name):
    make, *given = BODIES[name](np.random.default_rng(3))
    return make, tuple(given)


def over_devices(name, monkeypatch):
    """The layout of each array, by its batch."""
    shapes = []
    for n in (B, 2):
        monkeypatch.setattr(bodies, "B", n)
        shapes.append(jax.tree.map(lambda a: P(*a.shape), problem(name)[1]))
    monkeypatch.setattr(bodies, "B", B)
    one = lambda a, b: P(*("d" if n != m else None for n, m in zip(a, b, strict=True)))
    return jax.tree.map(one, *shapes)


def put(given, specs, mesh):
    place = lambda a, spec: jax.device_put(a, jax.NamedSharding(mesh, spec))
    return jax.tree.map(place, given, specs)


def mesh_of(kind):
    return jax.make_mesh((2,), ("d",), axis_types=(kind,))


def gradients(run, make, given):
    """What a scan gives, and the gradients of a sum of it by all floats."""

    def loss(moving):
        w, state, xs = with_floats(moving, given)
        out = run(make(w), state, xs, steps_of(xs))
        return total(out), out

    return jax.grad(loss, has_aux=True)(floats(given))


def explained(told):
    """`jaxseq.scan`, after `jaxseq.explain`."""

    def scan(body, state, xs, length=None):
        told.append(jaxseq.explain(body, state, xs, length))
        return jaxseq.scan(body, state, xs, length)

    return scan


# JAX wants to be told the layout of what these take from a table, and from Python
SAY_MORE = {"tokens", "callback"}
on_a_mesh = [name for name in BODIES if name not in SAY_MORE]
# this one closes over an array of the whole batch
in_shards = [n for n in BODIES if n not in {"callback", "one mask over time"}]


@pytest.mark.every(3)
@pytest.mark.parametrize("name", on_a_mesh)
def test_on_an_explicit_mesh(name, monkeypatch):
    """Values, gradients and layouts, whether the mesh is set or not."""
    make, given = problem(name)
    mesh, told = mesh_of(AxisType.Explicit), []
    given = put(given, over_devices(name, monkeypatch), mesh)
    with jax.set_mesh(mesh) if len(name) % 2 else nullcontext():
        got, want = (
            jax.jit(partial(gradients, run, make))(given)
            for run in (explained(told), lax.scan)
        )
    assert "in the loop" in told[0]
    assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, want)
    assert_same(got, want)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", in_shards)
@pytest.mark.parametrize("check_vma", [True, False])
def test_in_shards(name, check_vma, monkeypatch):
    """Values, gradients and their types, with sums over devices as in `lax.scan`."""
    make, given = problem(name)
    mesh, told = mesh_of(AxisType.Auto), []
    specs = over_devices(name, monkeypatch)
    given = put(given, specs, mesh)
    moving = jax.tree.map(lambda a: a if is_float(a) else jnp.zeros(()), given)
    monkeypatch.setattr(bodies, "B", B // 2)

    def compared(run):
        types = []

        def on_each(moving, given):
            chosen = lambda a, b: a if is_float(b) else b
            w, state, xs = jax.tree.map(chosen, moving, given)
            out = run(make(w), state, xs, steps_of(xs))
            types.append([str(jax.typeof(a)) for a in jax.tree.leaves(out)])
            return lax.psum(total(out), "d")

        own = jax.tree.map(lambda a, s: s if is_float(a) else P(), given, specs)
        sizes = {"in_specs": (own, specs), "out_specs": P(), "check_vma": check_vma}
        loss = jax.shard_map(on_each, mesh=mesh, **sizes)
        return jax.jit(jax.value_and_grad(loss))(moving, given), types[0]

    (got, types), (want, want_types) = map(compared, (explained(told), lax.scan))
    assert "in the loop" in told[0]
    assert types == want_types
    assert_same(got, want)


def loss_of(name, run):
    make, given = problem(name)
    return lambda *args: total(run(make(args[0]), *args[1:])), given


SENT = ["nnx OptimizedLSTMCell", "linen GRUCell"]


@pytest.mark.parametrize("name", SENT)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_one_sum_over_devices_behind_the_loop(name, kind, monkeypatch):
    """Of the gradient of each weight at most one, and of the loss."""
    loss, given = loss_of(name, jaxseq.scan)
    mesh = mesh_of(kind)
    given = put(given, over_devices(name, monkeypatch), mesh)
    with jax.set_mesh(mesh):
        some = sent(jax.jit(jax.grad(loss)).lower(*given).compile())
    assert {(what, inside) for what, _, inside in some} == {("all-reduce", "")}
    assert sum(n for _, n, _ in some) <= len(jax.tree.leaves(given[0]))


@pytest.mark.parametrize("name", SENT)
@pytest.mark.parametrize("check_vma", [True, False])
def test_one_sum_in_shards(name, check_vma, monkeypatch):
    loss, given = loss_of(name, jaxseq.scan)
    mesh = mesh_of(AxisType.Auto)
    specs = over_devices(name, monkeypatch)
    given = put(given, specs, mesh)

    def grad(*args):
        def each(*args):
            d = jax.grad(loss)(*args)
            return d if check_vma else lax.psum(d, "d")  # else JAX does it

        more = {"in_specs": specs, "out_specs": P(), "check_vma": check_vma}
        return jax.shard_map(each, mesh=mesh, **more)(*args)

    some = sent(jax.jit(grad).lower(*given).compile())
    assert {(what, inside) for what, _, inside in some} == {("all-reduce", "")}
    assert sum(n for _, n, _ in some) <= len(jax.tree.leaves(given[0]))


def sums_over_devices(w):
    return lambda h, x: (core(w, lax.psum(h, "d") / 2, x), None)


@jax.custom_vjp
def shared(a):
    return a


shared.defvjp(lambda a: (a, None), lambda _, d: (lax.psum(d, "d"),))


def sums_on_the_way_back(w):
    return lambda h, x: (core(w, shared(h), x), None)


def made_of_what_is_the_same(w):
    def body(s, x):
        h, c = s
        return (core(w, h, x), jnp.tanh(c @ w["h"])), None

    return body


@pytest.mark.parametrize(
    "make, why",
    [
        (sums_over_devices, "effects"),
        (BODIES["callback"](np.random.default_rng(3))[0], "it has a pure_callback"),
        (sums_on_the_way_back, "a derivative of its own has effects"),
        (made_of_what_is_the_same, "a product is the same on several devices"),
    ],
)
def test_left_in_shards(make, why):
    w, h, x = vanilla(np.random.default_rng(3))
    told, mesh = [], mesh_of(AxisType.Auto)
    state = (h, h[:2]) if make is made_of_what_is_the_same else h
    spec = (P("d"), P()) if make is made_of_what_is_the_same else P("d")

    def run(scan):
        def each(w, state, x):
            return lax.psum(total(scan(make(w), state, x)), "d")

        more = {"in_specs": (P(), spec, P(None, "d")), "out_specs": P()}
        more["check_vma"] = make in (sums_over_devices, made_of_what_is_the_same)
        loss = jax.shard_map(each, mesh=mesh, **more)
        return jax.jit(jax.value_and_grad(loss))(w, state, x)

    assert_same(run(explained(told)), run(lax.scan))
    assert why in told[0]


def test_left_on_an_explicit_mesh():
    """A `shard_map` in the body."""
    w, h, x = vanilla(np.random.default_rng(3))
    mesh, told = mesh_of(AxisType.Explicit), []

    def make(w):
        def body(h, x):
            each = jax.shard_map(core, in_specs=(P(), P("d"), P("d")), out_specs=P("d"))
            return each(w, h, x), None

        return body

    given = put((w, h, x), ({k: P() for k in w}, P("d"), P(None, "d")), mesh)
    with jax.set_mesh(mesh):
        runs = explained(told), lax.scan
        assert_same(*(jax.jit(partial(gradients, f, make))(given) for f in runs))
    assert told == ["run by lax.scan: it has a shard_map"]


def test_steps_on_several_devices():
    w, h, x = vanilla(np.random.default_rng(3))
    body = lambda h, x: (core(w, h, x), None)
    with jax.set_mesh(mesh_of(AxisType.Explicit)):
        x = jax.device_put(x, P("d"))
        assert jaxseq.explain(body, h, x).endswith("the steps lie on several devices")
        with pytest.raises(ValueError, match="0th dimension of all xs"):
            jaxseq.scan(body, h, x)


def test_outside_of_jit_on_an_explicit_mesh():
    make, (w, h, x) = problem("vanilla")
    mesh = mesh_of(AxisType.Explicit)
    given = put((w, h, x), ({k: P() for k in w}, P("d"), P(None, "d")), mesh)
    w, h, x = given
    got, want = (run(make(w), h, x) for run in (jaxseq.scan, lax.scan))
    assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, want)
    assert_same(got, want)


def test_on_eight_devices():
    """Two axes, with weights over one of them: see `tests/eight_devices.py`."""
    command = [sys.executable, "-m", "tests.eight_devices"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "all are as those of lax.scan"


def sizes_of(name, monkeypatch):
    """Of each array the names of its sizes: "b" or "t" where that changes it."""
    shapes = []
    for n, steps in ((3, 4), (5, 4), (3, 6)):
        monkeypatch.setattr(bodies, "B", n)
        monkeypatch.setattr(bodies, "T", steps)
        shapes.append(jax.tree.map(lambda a: P(*a.shape), problem(name)[1]))
    pick = lambda n, b, t: "b" if b != n else "t" if t != n else None
    one = lambda *specs: P(*map(pick, *specs))
    return jax.tree.map(one, *shapes)


SYMBOLIC = [
    "linen OptimizedLSTMCell",
    "linen GRUCell",
    "a head behind",
    "heads",
    "blocks and norms",
    "concatenation",
    "attention",
    "weight in a norm",
    "counter in the state",
    "branch",
    "scan inside",
    "ensemble",
]


@pytest.mark.every(3)
@pytest.mark.parametrize("name", SYMBOLIC)
@pytest.mark.parametrize("free", ["bt", "b", "t"])
def test_export_with_symbolic_sizes(name, free, monkeypatch):
    """Values and gradients at two sizes, through bytes."""
    sizes, told = sizes_of(name, monkeypatch), []
    symbols = dict(zip(free, jax.export.symbolic_shape(", ".join(free)), strict=True))

    def of_size(b, t):
        monkeypatch.setattr(bodies, "B", b if "b" in free else 3)
        monkeypatch.setattr(bodies, "T", t if "t" in free else 4)
        return problem(name)

    def symbolic(a, names):
        shape = tuple(map(symbols.get, names, a.shape))
        return jax.ShapeDtypeStruct(shape, a.dtype)

    make, given = of_size(3, 4)
    monkeypatch.setattr(bodies, "B", symbols.get("b", 3))

    def both(run):
        value = lambda given: total(run(make(given[0]), *given[1:], steps_of(given[2])))
        return jax.jit(lambda given: (value(given), gradients(run, make, given)))

    run = both(explained(told))
    exported = jax.export.export(run)(jax.tree.map(symbolic, given, sizes))
    exported = jax.export.deserialize(exported.serialize())
    assert "in the loop" in told[0]
    for b, t in ((2, 7), (130, 1)):
        make, given = of_size(b, t)
        assert_same(exported.call(given), both(lax.scan)(given))


def test_a_body_exported_twice():
    """Its sizes are symbols of two scopes."""
    body = lambda h, x: (jnp.tanh(h @ jnp.eye(3) + x), h)
    run = jax.jit(partial(jaxseq.scan, body))
    for _ in range(2):
        (b,) = jax.export.symbolic_shape("b")
        shapes = [jax.ShapeDtypeStruct(s, float) for s in ((b, 3), (5, b, 3))]
        exported = jax.export.export(run)(*shapes)
        given = jnp.ones((2, 3)), jnp.ones((5, 2, 3))
        assert_same(exported.call(*given), lax.scan(body, *given))
