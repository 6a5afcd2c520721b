"""`jaxseq.linear_scan` against a loop in NumPy, on one device and over several."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jaxseq
from tests.cells import assert_close
from tests.test_collectives import sent

P = PartitionSpec
B, T, H = 3, 8, 2
RNG = np.random.default_rng(0)
MASK = RNG.random((B, T)) < 0.7
LENGTHS = np.array([8, 0, 5])
OPTIONS = [{}, {"lengths": LENGTHS}, {"lengths": LENGTHS, "mask": MASK}]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=["", "lengths", "mask"])
both_directions = pytest.mark.parametrize("reverse", [False, True])


def problem(dtype=np.float64):
    rng = np.random.default_rng(1)
    a, b = rng.uniform(-1, 1, (B, T, H)), rng.standard_normal((B, T, H))
    a[0, 3] = a[2, 1] = 0  # a fresh start
    state = rng.standard_normal((B, H))
    if dtype == np.complex128:
        return a * np.exp(1j * b), b + 1j * a, state + 0.5j
    return a, b, state


def expected(a, b, state, lengths=None, mask=None, reverse=False):
    end, y = state.copy(), np.zeros_like(b)
    B, T, _ = b.shape
    for i in range(B):
        for t in reversed(range(T)) if reverse else range(T):
            inside = lengths is None or t < lengths[i]
            if inside and (mask is None or mask[i, t]):
                end[i] = y[i, t] = a[i, t] * end[i] + b[i, t]
    return end, y


WEIGHTS = RNG.standard_normal((B, H)), RNG.standard_normal((B, T, H))


def weighted(out):
    return sum((w * a).sum() for w, a in zip(WEIGHTS, out, strict=True))


def slopes(options):
    """Of `weighted` of the loop, by differences along one random direction each."""
    given, rng = problem(), np.random.default_rng(2)
    found = []
    for k, a in enumerate(given):
        way = rng.standard_normal(a.shape)
        at = lambda s, k=k, way=way: weighted(
            expected(*given[:k], given[k] + s * way, *given[k + 1 :], **options)
        )
        found.append((way, (at(1e-5) - at(-1e-5)) / 2e-5))
    return found


def check(run, options):
    assert_close(run(*problem(), **options), expected(*problem(), **options))
    loss = lambda *args: weighted(run(*args, **options))
    grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*problem())
    for (way, slope), d in zip(slopes(options), grads, strict=True):
        np.testing.assert_allclose((way * d).sum(), slope, atol=1e-8)


@every_option
@both_directions
def test_equations(options, reverse):
    check(jaxseq.linear_scan, {**options, "reverse": reverse})


def mesh_of(kind=AxisType.Auto):
    return jax.make_mesh((2,), ("time",), axis_types=(kind,))


@pytest.mark.every(2)
@every_option
@both_directions
def test_over_devices(options, reverse):
    with jax.set_mesh(mesh_of()):
        run = partial(jaxseq.linear_scan, axis="time")
        check(run, {**options, "reverse": reverse})


def test_on_an_explicit_mesh():
    with jax.set_mesh(mesh_of(AxisType.Explicit)):
        run = jax.jit(partial(jaxseq.linear_scan, axis="time", **OPTIONS[1]))
        assert_close(run(*problem()), expected(*problem(), **OPTIONS[1]))
        over = jax.device_put(problem()[0], P(None, "time"))
        found = run(over, *problem()[1:])
        assert "time" in jax.typeof(found[1]).sharding.spec
        assert_close(found, expected(*problem(), **OPTIONS[1]))


@pytest.mark.parametrize("check_vma", [True, False])
@both_directions
def test_in_a_shard_map(check_vma, reverse):
    """Where the lengths are of the time of all devices, and the mask of this one's."""
    options = {**OPTIONS[2], "reverse": reverse}

    def each(a, b, state, mask):
        more = {"lengths": LENGTHS, "mask": mask, "reverse": reverse, "axis": "time"}
        return jaxseq.linear_scan(a, b, state, **more)

    over = P(None, "time")
    run = jax.shard_map(
        each, mesh=mesh_of(), in_specs=(over, over, P(), over), out_specs=(P(), over),
        check_vma=check_vma,
    )  # fmt: skip
    assert_close(run(*problem(), MASK), expected(*problem(), **options))
    y = lambda a, b: (WEIGHTS[1] * run(a, b, problem()[2], MASK)[1]).sum()
    alone = lambda a, b: (
        WEIGHTS[1] * jaxseq.linear_scan(a, b, problem()[2], **options)[1]
    ).sum()
    grad = lambda f: jax.jit(jax.grad(f, argnums=(0, 1))).lower(*problem()[:2])
    compiled = [grad(f).compile() for f in (y, alone)]
    assert_close(*(f(*problem()[:2]) for f in compiled))
    assert "reduce-scatter" not in {kind for kind, _, _ in sent(compiled[0])}


def test_constants_in_a_shard_map():
    """Which are the same on all devices, as a decay that is fixed."""
    a, b = np.full((B, T // 2, H), 0.5), np.ones((B, T // 2, H))
    each = lambda state: jaxseq.linear_scan(a, b, state, axis="time")
    specs = {"in_specs": P(), "out_specs": (P(), P(None, "time"))}
    found = jax.jit(jax.shard_map(each, mesh=mesh_of(), **specs))(problem()[2])
    twice = (np.concatenate([v, v], 1) for v in (a, b))
    assert_close(found, expected(*twice, problem()[2]))


@pytest.mark.parametrize("axis", [None, "time"])
def test_complex(axis):
    with jax.set_mesh(mesh_of()):
        found = jaxseq.linear_scan(*problem(np.complex128), axis=axis)
    assert_close(found, expected(*problem(np.complex128)))


def test_both_algorithms():
    """A tree of joined pieces is what other platforms than CPU run."""
    from jaxseq._scan import linear

    def tree(*args, cpu, default):
        return default(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear.lax, "platform_dependent", tree)
        for options in OPTIONS:
            for reverse in (False, True):
                check(jaxseq.linear_scan, {**options, "reverse": reverse})
        with jax.set_mesh(mesh_of()):
            run = partial(jaxseq.linear_scan, axis="time")
            check(run, {**OPTIONS[2], "reverse": True})


def test_padding_reaches_no_gradient():
    a, b, state = problem()
    padding = (np.arange(T) >= LENGTHS[:, None])[..., None]

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def run(a, b):
        return weighted(jaxseq.linear_scan(a, b, state, lengths=LENGTHS))

    clean, dirty = (
        run(np.where(padding, v, a), np.where(padding, v, b)) for v in (0.0, np.nan)
    )
    assert np.isfinite(clean[0])
    assert_close(dirty, clean)


def test_16_bits():
    a, b, state = (v.astype(np.float32) for v in problem())
    half = jnp.bfloat16
    end, y = jaxseq.linear_scan(jnp.asarray(a, half), jnp.asarray(b, half), state)
    assert (end.dtype, y.dtype) == (jnp.float32, half)
    wide = (np.asarray(jnp.asarray(v, half), np.float64) for v in (a, b))
    np.testing.assert_allclose(end, expected(*wide, state)[0], atol=1e-5)


@pytest.mark.parametrize("axis", [None, "time"])
def test_without_steps(axis):
    a, b, state = problem()
    end, y = jaxseq.linear_scan(a[:, :0], b[:, :0], state, axis=axis, mesh=mesh_of())
    np.testing.assert_array_equal(end, state)
    assert y.shape == (B, 0, H)


def test_one_step_on_each_device():
    a, b, state = problem()
    a, b = a[:, :2], b[:, :2]
    found = jaxseq.linear_scan(a, b, state, axis="time", mesh=mesh_of())
    assert_close(found, expected(a, b, state))


def test_narrow_lengths_of_all_devices():
    """The time of all devices is beyond what their dtype can hold."""
    rng = np.random.default_rng(3)
    a, b, state = rng.uniform(-1, 1, (2, 300, H)), np.ones((2, 300, H)), np.ones((2, H))
    lengths = np.array([200, 150], np.uint8)
    run = partial(jaxseq.linear_scan, axis="time", mesh=mesh_of())
    found = run(a, b, state, lengths=lengths)
    assert_close(found, expected(a, b, state, lengths))


def test_transforms():
    """Donated, under vmap, in forward mode, and a Hessian-vector product."""
    given, rng = problem(), np.random.default_rng(4)
    ways = tuple(rng.standard_normal(a.shape) for a in given)
    alone = jaxseq.linear_scan

    def over(*args):
        return jaxseq.linear_scan(*args, axis="time", mesh=mesh_of())

    def of(run):
        grad = jax.grad(lambda args: weighted(map(jnp.sin, run(*args))))
        return jax.jit(
            lambda args, ways: (
                jax.vmap(run)(*args),
                jax.jvp(run, args, ways),
                jax.jvp(grad, (args,), (ways,)),
            ),
            donate_argnums=0,
        )(jax.tree.map(jnp.array, given), ways)

    assert_close(of(over), of(alone))


def min_gru(params, x, state=None, *, resets=None, **options):
    """As in docs/long-inputs.md: Feng et al. 2024, https://arxiv.org/abs/2410.01201."""
    z = jax.nn.sigmoid(x @ params["z"])
    keep = 1 - z if resets is None else jnp.where(resets[..., None], 0, 1 - z)
    return jaxseq.linear_scan(keep, z * (x @ params["h"]), state, **options)


def test_layers_of_min_gru():
    rng = np.random.default_rng(5)
    params = [
        {"z": rng.standard_normal((D, H)), "h": rng.standard_normal((D, H))}
        for D in (3, H)
    ]
    x, resets = rng.standard_normal((B, T, 3)), rng.random((B, T)) < 0.3
    layers = [partial(min_gru, p, axis="time") for p in params]
    with jax.set_mesh(mesh_of()):
        over = jax.device_put(x, P(None, "time"))
        run = jax.jit(partial(jaxseq.stack, layers, lengths=LENGTHS, resets=resets))
        states, y = run(over)
    inside, want = np.arange(T) < LENGTHS[:, None], x
    for p, state in zip(params, states, strict=True):
        z, below = 1 / (1 + np.exp(-(want @ p["z"]))), want
        want, h = np.zeros((B, T, H)), np.zeros((B, H))
        for t in range(T):
            before = np.where(resets[:, t, None], 0, h)
            new = (1 - z[:, t]) * before + z[:, t] * (below[:, t] @ p["h"])
            h = np.where(inside[:, t, None], new, h)
            want[:, t] = np.where(inside[:, t, None], new, 0)
        assert_close(state, h)
    assert_close(y, want)


def test_one_gather_forward_and_one_sum_back():
    """Both of as much as there are devices, and no reduce-scatter."""
    a, b, state = problem()
    with jax.set_mesh(mesh_of()):
        put = lambda v: jax.device_put(v, jax.NamedSharding(mesh_of(), P(None, "time")))
        run = partial(jaxseq.linear_scan, axis="time")
        args = put(a), put(b), state
        forward = sent(jax.jit(run).lower(*args).compile())
        assert forward == [("all-gather", 1, "")]
        loss = lambda *args: weighted(run(*args))
        both = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*args).compile()
        kinds = [(kind, inside) for kind, _, inside in sent(both)]
        assert kinds.count(("all-gather", "")) == 1
        assert {kind for kind, _ in kinds} == {"all-gather", "all-reduce"}
        assert all(inside == "" for _, inside in kinds)


@pytest.mark.long
def test_on_eight_devices():
    """See `tests/eight_devices_long.py`."""
    command = [sys.executable, "-m", "tests.eight_devices_long"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "all are as on one device"


@pytest.mark.parametrize(
    "message, call",
    {
        "a: expected shape (..., T, H), got (3,)": lambda a, b: jaxseq.linear_scan(
            a[0, :3, 0], b
        ),
        "a: expected a float dtype, got int64": lambda a, b: jaxseq.linear_scan(
            a.astype(int), b
        ),
        "b: expected shape (3, 8, 2), got (3, 7, 2)": lambda a, b: jaxseq.linear_scan(
            a, b[:, 1:]
        ),
        "b: expected dtype float64, got float32": lambda a, b: jaxseq.linear_scan(
            a, b.astype(np.float32)
        ),
        "state: expected shape (3, 2), got (2,)": lambda a, b: jaxseq.linear_scan(
            a, b, np.zeros(2)
        ),
        "axis: expected None without a mesh, got 'time'": lambda a, b: (
            jaxseq.linear_scan(a, b, axis="time")
        ),
        "axis: expected an axis of the mesh, one of ('time',), got 't'": lambda a, b: (
            jaxseq.linear_scan(a, b, axis="t", mesh=mesh_of())
        ),
        "batch_axis: expected None where axis is None, got time": (
            lambda a, b: jaxseq.linear_scan(a, b, batch_axis="time", mesh=mesh_of())
        ),
        "batch_axis: expected an axis other than axis, with no shard_map over it, "
        "got time": lambda a, b: jaxseq.linear_scan(
            a, b, axis="time", batch_axis="time", mesh=mesh_of()
        ),
        "batch_axis: expected None in a shard_map over axis, got data": (
            lambda a, b: jax.shard_map(
                partial(jaxseq.linear_scan, axis="time", batch_axis="data"),
                mesh=jax.make_mesh((1, 2), ("data", "time")),
                in_specs=P(None, "time"),
                out_specs=(P(), P(None, "time")),
                axis_names={"time"},
            )(a, b)
        ),
        "a: expected a batch, its first axis, that is a multiple of 2, got (3, 8, 2)": (
            lambda a, b: jaxseq.linear_scan(
                a,
                b,
                axis="time",
                batch_axis="data",
                mesh=jax.make_mesh((2, 1), ("data", "time")),
            )
        ),
        "mesh: expected a mesh or None, got str": lambda a, b: jaxseq.linear_scan(
            a, b, axis="time", mesh="time"
        ),
        "a: expected T a multiple of 2, the number of devices, got 7": lambda a, b: (
            jaxseq.linear_scan(a[:, 1:], b[:, 1:], axis="time", mesh=mesh_of())
        ),
    }.items(),
)
def test_errors(message, call):
    with pytest.raises(ValueError) as e:
        call(*problem()[:2])
    assert str(e.value) == message
