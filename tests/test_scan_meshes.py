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


@pytest.mark.every(5)
@pytest.mark.parametrize("name", on_a_mesh)
def test_on_an_explicit_mesh(name, monkeypatch):
    """Values, gradients and layouts, whether the mesh is set or not."""
    make, given = problem(name)
    mesh, told = mesh_of(AxisType.Explicit), []
    given = put(given, over_devices(name, monkeypatch), mesh)
    # JAX 0.12 differentiates its own scan only where the mesh is set
    with jax.set_mesh(mesh):
        want = jax.jit(partial(gradients, lax.scan, make))(given)
    with jax.set_mesh(mesh) if len(name) % 2 else nullcontext():
        got = jax.jit(partial(gradients, explained(told), make))(given)
    assert "in the loop" in told[0]
    assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, want)
    assert_same(got, want)


@pytest.mark.every(9)
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
        (sums_over_devices, "it sends between devices"),
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


def test_remat_on_devices(monkeypatch):
    """On an explicit mesh, and in shards."""
    make, given = problem("vanilla")
    in_pieces = partial(jaxseq.scan, remat=3)
    specs = over_devices("vanilla", monkeypatch)
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        placed = put(given, specs, mesh)
        got, want = (
            jax.jit(partial(gradients, run, make))(placed)
            for run in (in_pieces, lax.scan)
        )
    assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, want)
    assert_same(got, want)

    def loss(run, *given):
        each = lambda w, h, x: lax.psum(total(run(make(w), h, x)), "d")
        more = {"mesh": mesh_of(AxisType.Auto), "in_specs": specs, "out_specs": P()}
        return jax.shard_map(each, **more)(*given)

    assert_same(
        *(
            jax.jit(jax.value_and_grad(partial(loss, run)))(*given)
            for run in (in_pieces, lax.scan)
        )
    )


def test_vmap_over_devices():
    """With a name for the axis, as `jax.pmap` had it, of plain and explicit meshes."""
    w, h, x = vanilla(np.random.default_rng(3))
    h, x = jnp.stack([h, 2 * h]), jnp.stack([x, 3 * x])
    for kind in (AxisType.Auto, AxisType.Explicit):

        def both(run, kind=kind):
            one = lambda h, x: total(run(lambda h, x: (core(w, h, x), h), h, x))
            name = None if kind == AxisType.Explicit else "d"
            return lambda h, x: jax.vmap(one, spmd_axis_name=name)(h, x).sum()

        mesh = mesh_of(kind)
        with jax.set_mesh(mesh):
            rows = put((h, x), (P("d"), P("d")), mesh)
            got, want = (
                jax.jit(jax.value_and_grad(both(run), argnums=(0, 1)))(*rows)
                for run in (jaxseq.scan, lax.scan)
            )
        assert_same(got, want)


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_donated(wrap):
    """The state and the inputs, to a function that differentiates the scan."""
    w, h, x = vanilla(np.random.default_rng(3))
    body = lambda w: lambda h, x: (core(w, h, x), h)

    def step(run, w, h, x):
        loss = wrap(lambda w: (lambda out: (total(out), out[0]))(run(body(w), h, x)))
        d, h = jax.grad(loss, has_aux=True)(w)
        return d, h, 2 * x

    want = jax.jit(partial(step, lax.scan))(w, h, x)
    kept = jax.tree.map(jnp.copy, (h, x))
    got = jax.jit(partial(step, jaxseq.scan), donate_argnums=(1, 2))(w, *kept)
    assert kept[0].is_deleted() and kept[1].is_deleted()
    assert_same(got, want)


def test_a_body_with_static_arguments():
    w, h, x = vanilla(np.random.default_rng(3))

    @partial(jax.jit, static_argnums=0)
    def named(activation, h, x):
        return getattr(jnp, activation)(h @ w["h"] + x @ w["x"] + w["b"])

    for activation in ("tanh", "sin"):
        body = lambda h, x, name=activation: (named(name, h, x), h)
        told = jaxseq.explain(body, h, x)
        assert "1 product in the loop" in told
        assert_same(jaxseq.scan(body, h, x), lax.scan(body, h, x))


@pytest.mark.parametrize("reverse", [False, True])
def test_remat_of_symbolic_steps(reverse):
    """Some of the last piece stand still."""
    w, h, x = vanilla(np.random.default_rng(3))
    (t,) = jax.export.symbolic_shape("t")

    def both(run):
        def loss(w, h, x):
            out = run(lambda h, x: (core(w, h, x), h), h, x, reverse=reverse)
            return total(out)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))

    shape = lambda a, *lead: jax.ShapeDtypeStruct((*lead, *a.shape[len(lead) :]), float)
    args = jax.tree.map(shape, w), shape(h), shape(x, t)
    exported = jax.export.export(both(partial(jaxseq.scan, remat=3)))(*args)
    for steps in (1, 3, 4):
        given = w, h, x[:steps]
        assert_same(exported.call(*given), both(lax.scan)(*given))


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Manual])
def test_values_of_many_rows(kind, monkeypatch):
    """Which are computed in another form than gradients; a counter is the same."""
    monkeypatch.setenv("JAXSEQ_NATIVE", "0")  # the engine computes it in the same
    monkeypatch.setattr(bodies, "B", 256)
    w, h, x = vanilla(np.random.default_rng(3))

    def body(s, x):
        h = core(w, s["h"], jnp.tanh(x @ w["x"])[:, : x.shape[1]]) * (s["n"] % 2 + 1)
        return {"h": h, "n": s["n"] + 1.0}, (h, s["n"])

    state, mesh = {"h": h, "n": jnp.zeros(())}, mesh_of(AxisType.Explicit)
    specs = {"h": P("d"), "n": P()}, P(None, "d")
    grad = lambda f: jax.grad(lambda *a: total(f(*a)), argnums=(0, 1))

    text = jaxseq.explain(body, {"h": h[:128], "n": jnp.zeros(())}, x[:, :128])
    assert "without a gradient" in text

    def both(scan):
        run = lambda s, x: (scan(body, s, x), grad(lambda *a: scan(body, *a))(s, x))
        if kind == AxisType.Explicit:
            return run
        one = {"h": P("d"), "n": P()}, (P(None, "d"), P())
        more = {"in_specs": specs, "out_specs": (one, specs)}
        return jax.shard_map(run, **more)

    with jax.set_mesh(mesh if kind == AxisType.Explicit else mesh_of(AxisType.Auto)):
        given = put((state, x), specs, jax.sharding.get_mesh())
        got, want = (jax.jit(both(run))(*given) for run in (jaxseq.scan, lax.scan))
    assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, want)
    assert_same(got, want)


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


@pytest.mark.every(5)
@pytest.mark.parametrize(
    "name, free",
    [*((name, "bt") for name in SYMBOLIC), *(("vanilla", a) for a in "bt")],
)
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
    for b, t in ((2, 7), (130, 2)):
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


@pytest.mark.parametrize("rows, name", [(1, "vanilla"), (128, "an encoder first")])
def test_symbolic_steps_of_few_and_of_many_rows(rows, name, monkeypatch):
    """Whose values alone are computed in other forms."""
    monkeypatch.setattr(bodies, "B", rows)
    make, (w, h, x) = problem(name)
    (t,) = jax.export.symbolic_shape("t")
    run = jax.jit(lambda w, h, x: jaxseq.scan(make(w), h, x))
    shape = lambda a, *lead: jax.ShapeDtypeStruct((*lead, *a.shape[len(lead) :]), float)
    exported = jax.export.export(run)(jax.tree.map(shape, w), shape(h), shape(x, t))
    assert_same(exported.call(w, h, x[:3]), lax.scan(make(w), h, x[:3]))
