"""What devices send each other when a batch is over them, read from compiled HLO."""

import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from tests.calls import OWN, OWN_ZEROS, RECURRENT, floats, own_update, tokens, weights

B, T, D, H, V = 4, 5, 2, 4, 5
P = jax.sharding.PartitionSpec
COLLECTIVES = "all-reduce all-gather all-to-all collective-permute reduce-scatter"
X, TOKENS = floats(B, T, D), tokens(B, T)
LENGTHS = np.array([5, 3, 1, 4], np.int32)

lstm, gru = (weights(f, D, H) for f in (jaxseq.lstm_init, jaxseq.gru_init))
second = weights(jaxseq.gru_init, H, H)
translator = partial(weights, jaxseq.seq2seq_init, **RECURRENT)
SIZES = {"features": 4, "num_heads": 2, "ff_features": 3, "num_decoder_layers": 1}
ENCODER = {"source_vocab": V, "num_encoder_layers": 1, "tied": False}
transformer = partial(weights, jaxseq.transformer_init, **SIZES)


def total(y):
    return jnp.sin(y).sum()


def layers(params, x, lengths):
    run = [partial(jaxseq.lstm, params[0]), partial(jaxseq.gru, params[1])]
    return total(jaxseq.stack(run, x, lengths=lengths)[1])


def both(params, x, lengths):
    forward, backward = partial(jaxseq.lstm, params[0]), partial(jaxseq.gru, params[1])
    return total(jaxseq.bidirectional(forward, backward, x, lengths=lengths)[1])


def own(params, x, lengths):
    run = partial(jaxseq.cell, own_update, zeros=OWN_ZEROS, lengths=lengths)
    return total(run(params, x)[1])


def built_in(name):
    run = getattr(jaxseq, name)
    return lambda params, x, lengths: total(run(params, x, lengths=lengths)[1])


def crf(params, scores, tags, lengths):
    return jaxseq.crf_loss(params, scores, tags, lengths=lengths).sum()


def translate(params, source, target, lengths):
    state = jaxseq.seq2seq_encode(params, source, source_lengths=lengths)
    return total(jaxseq.seq2seq_decode(params, state, target)[1])


def read(params, source, target, lengths):
    memory = jaxseq.transformer_encode(params, source, source_lengths=lengths)
    return total(jaxseq.transformer_decode(params, memory, target)[1])


def language(params, target, lengths):
    logits = jaxseq.transformer_decode(params, None, target, lengths=lengths)[1]
    return total(logits)


TAGGED = floats(B, T, V), TOKENS, LENGTHS
PAIR = TOKENS, TOKENS, LENGTHS
# the loss, its weights, and its data
LOSSES = {
    "rnn": (built_in("rnn"), weights(jaxseq.rnn_init, D, H), (X, LENGTHS)),
    "lstm": (built_in("lstm"), lstm, (X, LENGTHS)),
    "gru": (built_in("gru"), gru, (X, LENGTHS)),
    "a cell of one's own": (own, weights(OWN.init, D, H), (X, LENGTHS)),
    "stack": (layers, (lstm, second), (X, LENGTHS)),
    "bidirectional": (both, (lstm, gru), (X, LENGTHS)),
    "crf": (crf, weights(jaxseq.crf_init, V), TAGGED),
    "no attention": (translate, translator(attention=None), PAIR),
    "luong": (translate, translator(attention="luong"), PAIR),
    "bahdanau": (translate, translator(), PAIR),
    "fed": (translate, translator(attention="luong", feed=True), PAIR),
    "transformer": (
        read,
        transformer(positions="learned", max_positions=T, **ENCODER),
        PAIR,
    ),
    "language model": (language, transformer(target_vocab=V), (TOKENS, LENGTHS)),
}
# weights that have two sums: those of a CRF, embeddings that are read in two places,
# and the map of an input of which a part is made in the loop
READ_TWICE = {"crf": 3, "no attention": 1, "luong": 1, "bahdanau": 2, "fed": 2}
READ_TWICE |= {"transformer": 2, "language model": 1}


@pytest.fixture(autouse=True, scope="module")
def float32():
    """As most users have it."""
    with jax.enable_x64(False):
        yield


def sent(compiled):
    """Of each collective its name, the arrays that it sends, and where it stands."""
    found, inside = [], ""
    for line in compiled.as_text().splitlines():
        if re.match(r"(ENTRY )?%?[\w.-]+ .*\{$", line):
            inside = "" if line.startswith("ENTRY") else line.split()[0]
        each = "|".join(COLLECTIVES.split())
        match = re.search(rf"= (.*?) ({each})(-start)?\(", line)
        if match:
            found.append((match[2], len(re.findall(r"\w+\[", match[1])), inside))
    return found


def on_devices(mesh, params, data):
    place = lambda tree, spec: jax.device_put(tree, jax.NamedSharding(mesh, spec))
    return place(params, P()), *place(data, P("d"))


def descent(loss):
    def step(params, *data):
        grads = jax.grad(loss)(params, *data)
        return jax.tree.map(lambda w, d: w - 0.1 * d, params, grads)

    return step


@pytest.mark.every(2)
@pytest.mark.parametrize("name", LOSSES)
def test_one_sum_over_devices_behind_the_loops(name):
    """Of each gradient once, and nothing else is sent."""
    loss, params, data = LOSSES[name]
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    args = on_devices(mesh, params, data)
    lowered = jax.jit(descent(loss)).lower(*args)
    some = sent(lowered.compile())
    assert {(kind, inside) for kind, _, inside in some} == {("all-reduce", "")}
    most = len(jax.tree.leaves(params)) + READ_TWICE.get(name, 0)
    assert sum(n for _, n, _ in some) <= most
    forward = sent(jax.jit(loss).lower(*args).compile())
    assert forward in ([], [("all-reduce", 1, "")])  # that of the loss


@pytest.mark.every(2)
@pytest.mark.parametrize("name", LOSSES)
def test_one_sum_in_shards(name):
    loss, params, data = LOSSES[name]
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = P(), *(P("d") for _ in data)
    whole = lambda *args: jax.lax.psum(loss(*args), "d")
    run = jax.shard_map(whole, mesh=mesh, in_specs=specs, out_specs=P())
    args = on_devices(mesh, params, data)
    some = sent(jax.jit(descent(run)).lower(*args).compile())
    assert {(kind, inside) for kind, _, inside in some} == {("all-reduce", "")}


@pytest.mark.every(4)
@pytest.mark.parametrize("first", range(4))
def test_on_eight_devices(first):
    """In 16 bits, and with hidden units split; see `tests/eight_collectives.py`."""
    command = [sys.executable, "-m", "tests.eight_collectives", str(first), "4"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "no more is sent than has to be"
