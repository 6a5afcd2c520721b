"""Compiles the layers, times them side by side, and keeps a row of each."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from tqdm import tqdm

import jaxseq
from benchmarks.contender import Contender, compile_call, temp_mb
from benchmarks.device import commit, device_name
from benchmarks.timing import median_iqr, take_turns
from experiments.cost.settings import HEADS, Case, Settings, cases, flops
from experiments.frame import results

Row = dict[str, Any]
KEYS = (*Case._fields, "rounds", "device", "temp_mb", "median_ms", "weights")
CELLS = {
    "rnn": (jaxseq.rnn_init, jaxseq.rnn),
    "gru": (jaxseq.gru_init, jaxseq.gru),
    "lstm": (jaxseq.lstm_init, jaxseq.lstm),
}


def layer(case: Case) -> tuple[Any, Callable[[Any, Array], Array]]:
    """Weights, and the function of them and of inputs `(B, T, H)` to outputs alike."""
    key, H = jax.random.key(0), case.H
    if case.model == "transformer":
        params = jaxseq.transformer_init(
            key,
            features=H,
            num_heads=HEADS,
            ff_features=2 * H,
            source_vocab=1,
            num_encoder_layers=1,
        )
        return params, transformer
    init, run = CELLS[case.model]
    return init(key, H, H), lambda params, x: run(params, x, remat=case.remat)[1]


def transformer(params: jaxseq.TransformerParams, x: Array) -> Array:
    """The encoder over vectors: each is the embedding of a token of its own."""
    B, T, H = x.shape
    assert params.encoder is not None
    encoder = params.encoder._replace(embed=x.reshape(B * T, H))
    tokens = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T)
    params = params._replace(encoder=encoder)
    return jaxseq.transformer_encode(params, tokens).values


def compiled(case: Case) -> tuple[Any, Any]:
    """The compiled layer, or its gradient, and its arguments, as shapes."""
    params, run = layer(case)

    gradient = lambda params, x, dy: jax.vjp(run, params, x)[1](dy)
    x = jax.ShapeDtypeStruct((case.B, case.T, case.H), jnp.float32)
    forward = case.mode == "forward"
    args = (params, x) if forward else (params, x, x)
    return compile_call(run if forward else gradient, args)[0], params


def measure(group: list[Case], rounds: int, most_mb: int) -> list[Row]:
    """Rows of cases of one shape, timed in turns; without a time if too large."""
    rows, contenders, x = [], {}, None
    for case in group:
        function, params = compiled(case)
        temp = temp_mb(function)
        if temp is None or temp <= most_mb:
            if x is None:
                x = jax.random.normal(jax.random.key(1), (case.B, case.T, case.H))
            args = (params, x) if case.mode == "forward" else (params, x, x)
            launch = lambda f=function, args=args: f(*args)
            contenders[str(len(rows))] = Contender(launch, dict)
        weights = sum(w.size for w in jax.tree.leaves(params))
        weights -= case.H if case.model == "transformer" else 0  # its one token
        row = {**case._asdict(), "gflop": flops(case) / 1e9, "temp_mb": temp}
        rows.append(row | {"weights": weights, "median_ms": None, "iqr_ms": None})
    for i, times in take_turns(contenders, rounds, sample_ms=20).items():
        ms, iqr = median_iqr(times)
        rows[int(i)] |= {"median_ms": ms, "iqr_ms": iqr}
    return rows


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in (*Case._fields, "rounds", "device"))


def measure_all(settings: Settings, path: Path) -> list[Row]:
    """Rows of all cases; those that stand in `path` are not measured again."""
    rows = results.read_rows(path, KEYS) if path.exists() else []
    shared = {"rounds": settings.rounds, "device": device_name(jax.devices()[0])}
    now = lambda row: row["temp_mb"] is None or row["temp_mb"] <= settings.most_mb
    rows = [row for row in rows if row["median_ms"] is not None or not now(row)]
    known = {key(row): row for row in rows}
    wanted = [key({**case._asdict(), **shared}) for case in cases(settings)]
    missing = [
        case
        for case, name in zip(cases(settings), wanted, strict=True)
        if name not in known
    ]
    if len(missing) < len(wanted):
        print(f"{len(wanted) - len(missing)} of {len(wanted)} rows are in {path}.")
    shape = lambda case: (case.part, case.mode, case.B, case.T)
    with tqdm(total=len(missing), unit="row", disable=not missing) as bar:
        for _, group in groupby(missing, shape):
            group = [*group]
            bar.set_postfix_str(f"T = {group[0].T}, B = {group[0].B}")
            found = measure(group, settings.rounds, settings.most_mb)
            made = {"jax": jax.__version__, "commit": commit("experiments/*.py")}
            rows += [row | shared | made for row in found]
            results.write_rows(path, rows)  # a kill loses the group at work
            bar.update(len(group))
    known = {key(row): row for row in rows}
    return [known[name] for name in wanted]
