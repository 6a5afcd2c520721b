"""What eight devices send each other, as a table, in a process of its own.

`python -m tests.eight_collectives [FIRST EVERY]` prints the table, or every so many of
its rows from the first on, and fails if anything is sent that does not have to be: see
`main`.
"""

import re
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxseq
from tests.test_collectives import LOSSES, descent, sent

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")

B, T, D, H = 8, 6, 3, 16
SHORT = ("lstm", "gru", "bidirectional", "crf", "luong", "bahdanau", "fed")
SHORT += "transformer", "language model"


def placed(tree, mesh, spec):
    return jax.tree.map(lambda a: jax.device_put(a, NamedSharding(mesh, spec(a))), tree)


def in_words(found):
    """The collectives in loops and those outside, counted, as text."""
    parts = []
    for in_loop in (True, False):
        some = Counter(kind for kind, _, inside in found if bool(inside) == in_loop)
        text = ", ".join(f"{n} {kind}" for kind, n in sorted(some.items()))
        parts.append(text or "none")
    return parts


def narrow_sums(lowered):
    """The types of 16-bit arrays that are summed over devices.

    XLA widens such sums on a CPU, so this reads the program that is partitioned, before
    XLA changes it further.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd-partitioning"}
        lowered.compile(compiler_options=options)
        (file,) = Path(folder).glob("*after_spmd-partitioning*")
        text = file.read_text()
    assert "all-reduce(" in text
    return re.findall(r"= (b?f16\[\d[\d,]*\])\S* all-reduce\(", text)


def over_rows(name):
    """A training step with the batch split over all devices."""
    loss, params, data = LOSSES[name]
    data = jax.tree.map(lambda a: np.concatenate([a] * 4), data)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    for dtype in (jnp.float32, jnp.bfloat16):
        cast = lambda a, dtype=dtype: a.astype(dtype) if a.dtype == np.float32 else a
        args = jax.tree.map(cast, (params, *data))
        at = lambda tree, spec: placed(tree, mesh, lambda _: spec)
        args = at(args[0], P()), *at(args[1:], P("d"))
        lowered = jax.jit(descent(loss)).lower(*args)
        if dtype == jnp.bfloat16:
            assert not narrow_sums(lowered), name
        else:
            in_loop, outside = in_words(sent(lowered.compile()))
            assert in_loop == "none", name
            assert re.fullmatch(r"\d all-reduce", outside), (name, outside)
            print(f"| {name} | 8 | none | {in_loop} | {outside} |", flush=True)


def gated_step(z_x, h, w_h, _):
    """An update with two products, each with a matrix of its own."""
    f = jax.nn.sigmoid(z_x["f"] + w_h["f"](h))
    return (1 - f) * h + f * jnp.tanh(z_x["n"] + w_h["n"](f * h))


def side_by_side(z_x, h, w_h, _):
    """An update with one product, which has the gates of each unit side by side."""
    f, n = (z_x + w_h(h)).reshape(-1, 2).T
    return h + jax.nn.sigmoid(f) * (jnp.tanh(n) - h)


def units():
    """Losses of cells, their weights, and how many products a step has."""
    rng = np.random.default_rng(0)
    w: Any = lambda *shape: rng.normal(0, 0.4, shape)

    def loss(run):
        return lambda params, x: jnp.sin(run(params, x)[1]).sum()

    def own(update):
        return loss(partial(jaxseq.cell, update, zeros=H))

    def both_ways(params, x):
        runs = (partial(jaxseq.lstm, own) for own in params)
        return jaxseq.bidirectional(*runs, x, merge="sum")

    two = {"f": w(D, H), "n": w(D, H)}, {"f": w(H, H), "n": w(H, H)}
    lstm = jaxseq.LSTMParams(w(D, 4, H), w(H, 4, H), w(4, H), w(4, H))
    gru = jaxseq.GRUParams(w(D, 3, H), w(H, 3, H), w(3, H), w(H))
    both = jaxseq.CellParams(*two, {"f": w(H), "n": w(H)})
    one = jaxseq.CellParams(w(D, 2 * H), w(H, 2 * H), w(2 * H))
    rnn = jaxseq.RNNParams(w(D, H), w(H, H), w(H))
    return {
        "rnn": (loss(jaxseq.rnn), rnn, 1),
        "lstm": (loss(jaxseq.lstm), lstm, 1),
        "gru": (loss(jaxseq.gru), gru, 1),
        "bidirectional, a sum": (loss(both_ways), (lstm, lstm), 2),
        "a cell with two products": (own(gated_step), both, 2),
        "a cell with one": (own(side_by_side), one, 1),
    }


def over_units(name, loss, params, products):
    """A training step with the hidden units split over an axis of the mesh."""
    x = np.random.default_rng(1).normal(size=(B, T, D))
    want = jax.jit(jax.value_and_grad(loss))(params, x)
    for shape in ((2, 4), (1, 8)):
        mesh = jax.make_mesh(shape, ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
        by_unit = placed(params, mesh, lambda a: P(*[None] * (a.ndim - 1), "tensor"))
        args = by_unit, placed(x, mesh, lambda _: P("data"))
        forward = sent(jax.jit(loss).lower(*args).compile())
        both = jax.jit(jax.value_and_grad(loss)).lower(*args).compile()
        step = sent(both)
        kinds = lambda found: Counter(kind for kind, _, inside in found if inside)
        assert kinds(forward) == {"all-gather": products}, (name, forward)
        assert kinds(step) == {"all-gather": products, "all-reduce": products}, name
        assert {kind for kind, *_ in step} <= {"all-gather", "all-reduce"}, name
        for a, b in zip(*map(jax.tree.leaves, (both(*args), want)), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
        in_loop, outside = in_words(step)
        n = " x ".join(map(str, shape))
        forward, _ = in_words(forward)
        print(f"| {name} | {n} | {forward} | {in_loop} | {outside} |", flush=True)


def main(first=0, every=1):
    """Checks models with a split batch, then cells with split hidden units.

    A split batch takes one sum of gradients over the devices, after the loops and in
    float32. With split units, each time step gathers h once for each product and sums
    its gradient once, and the results are those of one device.
    """
    print("| model | devices | in a loop, forward | in loops, step | outside, step |")
    print("|---|---|---|---|---|")
    for name in SHORT[first::every]:
        over_rows(name)
    with jax.enable_x64(True):
        for name, case in list(units().items())[first::every]:
            over_units(name, *case)
    print("no more is sent than has to be")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
