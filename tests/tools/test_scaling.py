"""The model of a step's cost by hand-computed numbers, and what it is made from."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks.__main__ import main
from benchmarks.scaling import model, processes
from benchmarks.scaling.chips import CHIPS, COUNTS
from benchmarks.scaling.model import Chip, Net
from benchmarks.scaling.processes import Machine
from benchmarks.slices.options import Sizes
from benchmarks.slices.sent import Collective, collectives, wrong
from benchmarks.slices.step import bytes_of, placed, training_step

pytestmark = pytest.mark.usefixtures("as_users_have_it")
NET = Net(hidden=2, layers=1, embedding=3, vocabulary=5, window=7)
SLICES = {4: (4,), 8: (2, 4)}
CHIP = Chip("none", 100.0, 10.0, 10.0, 4.0, SLICES, wraps=4)


def test_sizes():
    assert NET.recurrent == 16
    assert NET.matrices == 16 + 24 + 10
    assert NET.weights == 50 + 8 + 5 + 15
    assert Net(layers=2).matrices - Net(layers=1).matrices == 8 * 1024**2
    assert model.operations(NET, rows=2) == 6 * 50 * 14
    assert model.vmem_bytes(NET) == 2 * 2 * 16 * 7
    assert model.hbm_bytes(NET, rows=2) == 78 * 32 + 14 * (68 * 2 + 16 * 5)


@pytest.mark.parametrize(
    ("axes", "seconds", "hops"),
    [
        ((1,), 0.0, 0),
        ((4,), 2 * 40 * 3 / 4 / 20, 4),
        ((2, 2), 2 * 40 * 3 / 4 / 20, 4),
        ((2, 4), 2 * 40 * 7 / 8 / 30, 6),
        ((4, 4), 2 * 40 * 15 / 16 / 40, 8),
        ((2, 4, 4), 2 * 40 * 31 / 32 / 30, 14),  # no whole cube
        ((4, 4, 4), 2 * 40 * 63 / 64 / 60, 12),
    ],
)
def test_all_reduce_over_a_torus(axes, seconds, hops):
    assert model.all_reduce(40, axes, CHIP) == pytest.approx(seconds)
    assert model.hops(axes, CHIP) == hops


def test_step_and_its_bound():
    cost = model.step(NET, CHIP, 8, rows=2)
    in_slice = 2 * 312 * 7 / 8 / 30
    assert cost == pytest.approx((42, 448 / 220, 552, in_slice, 6e-6))
    assert cost.chip == 552 and cost.bound == "hbm"
    assert cost.total == pytest.approx(552 + in_slice + 6e-6)
    fast = CHIP._replace(hbm=1e9, operations=1e9)
    assert model.step(NET, fast, 8, rows=2).bound == "sum"
    # each of four slices sends an eighth of the sum in each chip
    more = model.step(NET, CHIP, 32, rows=2)
    assert more.sum - cost.sum == pytest.approx(2 * 312 / 8 * 3 / 4 / 4)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_slices_have_their_chips(chip):
    assert all(np.prod(axes) == n for n, axes in chip.slices.items())
    assert set(chip.slices) == {n for n in COUNTS if n <= max(chip.slices)}


def test_processes():
    machine = Machine(rate=100.0, start=1.0, message=0.5, link=10.0, turn=2.0)
    assert processes.step(NET, machine, 2, 1) == (1 + 42, 0, 0)
    found = processes.step(NET, machine, 2, 4)
    assert found == pytest.approx((43, 6 * (0.5 + 78 / 10), 8))


def rows_of(machine):
    for n in (1, 2, 4):
        for batch, hidden in ((2, 4), (8, 8), (4, 16)):
            net = Net(hidden, 1, 3, window=5)
            share = processes.step(net, machine, batch, n)
            one = processes.all_reduce(0, machine, n)
            yield {
                "processes": n, "batch": batch, "hidden": hidden, "layers": 1,
                "embedding": 3, "window": 5,
                "step_ms": {"median": 1e3 * sum(share)},
                "sum_ms": {"median": 1e3 * share.sum},
                "sum_of_one_ms": {"median": 1e3 * one},
            }  # fmt: skip


def test_fit_finds_what_rows_were_made_of(tmp_path, capsys):
    machine = Machine(rate=1e6, start=1e-2, message=1e-3, link=1e5, turn=3e-3)
    rows = [*rows_of(machine)]
    assert processes.fit(processes.runs(rows)) == pytest.approx(machine)
    path, figure = tmp_path / "rows.jsonl", tmp_path / "figure.png"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["scaling", "--measured", str(path), "--figure", str(figure)]) == 0
    assert capsys.readouterr().out.count("0 % |") == 9
    assert figure.stat().st_size > 10_000


def test_weights_of_the_step_are_those_of_the_model():
    sizes = Sizes(hidden=4, layers=2, embedding=3, rows=2, window=5)
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
    step, args = training_step(sizes, mesh, dtype=jnp.float32)
    args = placed(mesh, args)
    weights = sum(a.size for a in jax.tree.leaves(args[0].weights))
    assert weights == Net(4, 2, 3, window=5).weights
    # with both moments, two counts, and of each device half of the carry and the batch
    whole = 4 * (3 * weights + 2)
    rows = 2 * (2 * 2 * 4 * 4 + 2 * 5 * 4)
    assert whole + rows <= bytes_of(args) <= whole + rows + 64
    sent = collectives(jax.jit(step).lower(*args).compile().as_text())
    assert {(each.kind, each.dtype, each.loop) for each in sent} == {
        ("all-reduce", "f32", False)
    }
    # of all gradients, and the loss
    assert sum(each.bytes for each in sent) == pytest.approx(4 * weights, abs=64)


def test_what_is_sent_in_a_loop_is_told():
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))

    def body(h, x):
        return h + lax.psum(x @ x.T, "batch"), None

    @partial(jax.shard_map, mesh=mesh, in_specs=P(None, "batch"), out_specs=P())
    def run(x):
        h = lax.scan(body, jnp.zeros((3, 3)), x.reshape(-1, 3, 1))[0]
        return lax.psum(x.sum(), "batch") + h

    sent = collectives(jax.jit(run).lower(jnp.ones((9, 4))).compile().as_text())
    assert Collective("all-reduce", "f32", True, 36) in sent
    assert Collective("all-reduce", "f32", False, 4) in sent
    assert wrong(sent) == ["all-reduce in a loop"]
    gather = Collective("all-gather", "f32", False, 4)
    assert wrong([gather, sent[0]._replace(loop=False)]) == ["all-gather"]
