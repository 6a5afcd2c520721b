"""Training of Flax modules, from settings to a tested checkpoint."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax import Array

from experiments import files
from experiments.checkpoint import Checkpoints, has_checkpoints
from experiments.errors import InputError
from experiments.training import (
    make_optimizer,
    open_run,
    saved_settings,
    settle,
    train,
)


class State(NamedTuple):
    """What a run carries from step to step, and a checkpoint holds."""

    weights: Any
    optimizer: Any


def parts(
    module: nnx.Module, optimizer: optax.GradientTransformation
) -> tuple[Any, State, Any]:
    graph, weights, rest = nnx.split(module, nnx.Param, ...)
    return graph, State(weights, optimizer.init(weights)), rest


def in_use(graph: Any, weights: Any, rest: Any) -> Any:
    """The module with these weights, without dropout."""
    model = nnx.merge(graph, weights, rest, copy=True)
    model.eval()
    return model


class Fit:
    """A run of a module, to be trained.

    `loss(model, batch)` gives the sum of the losses in a batch and their number.
    `batches[step]` is any training batch; `held_out` are those to evaluate on.
    """

    unit = "example"

    def __init__(
        self,
        settings: Any,
        module: nnx.Module,
        loss: Callable[[Any, Any], tuple[Array, Array]],
        batches: Any,
        held_out: Sequence[Any],
        *,
        per_step: int,
    ):
        self.settings, self.per_step = settings, per_step
        self.batches, self.held_out = batches, held_out
        optimizer = make_optimizer(settings)
        self.graph, self.state, self.rest = parts(module, optimizer)
        self.step = 0

        def update(state: State, batch: Any, key: Array) -> tuple[State, Array]:
            def mean(weights: Any) -> Array:
                model = nnx.merge(self.graph, weights, self.rest, copy=True)
                model.train()
                nnx.reseed(model, default=key)
                total, n = loss(model, batch)
                return total / n

            value, grads = jax.value_and_grad(mean)(state.weights)
            updates, rest = optimizer.update(grads, state.optimizer, state.weights)
            return State(optax.apply_updates(state.weights, updates), rest), value

        self.update = jax.jit(update, donate_argnums=0)
        self.sums = self.compiled(loss)

    @property
    def model(self) -> Any:
        """The module as it is now, to be used."""
        return in_use(self.graph, self.state.weights, self.rest)

    def compiled(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run(model, ...)`, compiled, as a function of the weights and the rest."""
        model = lambda weights: in_use(self.graph, weights, self.rest)
        return jax.jit(lambda weights, *args: run(model(weights), *args))

    def advance(self) -> Array:
        """Does one step and returns its loss."""
        key = jax.random.fold_in(jax.random.key(self.settings.seed), self.step)
        self.state, loss = self.update(self.state, self.batches[self.step], key)
        self.step += 1
        return loss

    def evaluate(self) -> float:
        """The mean loss over all that is held out."""
        parts = [self.sums(self.state.weights, batch) for batch in self.held_out]
        totals, counts = zip(*jax.device_get(parts), strict=True)
        return float(sum(totals) / sum(counts))


def digest(data: Any) -> str:
    """By which data are known again; arrays by their bytes."""
    of_bytes = lambda array: hashlib.sha256(array.tobytes()).hexdigest()
    text = json.dumps(data, default=of_bytes)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(
    given: dict[str, Any],
    defaults: Any,
    fixed: tuple[str, ...],
    make: Callable[[Any], tuple[Fit, dict[str, Any]]],
    out: Path,
    *,
    resume: bool,
    save_seconds: float,
) -> tuple[Fit, dict[str, Any]] | None:
    """Trains what `make(settings)` gives; None if it was stopped.

    `make` gives the run and its facts, among them `digest`, that of the data. `given`
    are the settings from the command line; `fixed` names those that a checkpoint
    cannot go on with if they are changed.
    """
    checkpoints, facts = open_run(out, resume)
    settings = settle(defaults, given, facts, out, fixed)
    fit, new = make(settings)
    if facts is not None and facts.get("digest") != new["digest"]:
        raise InputError(f"{out}: the checkpoint there was trained on other data")
    options: Any = {"resume": resume, "save_seconds": save_seconds}
    facts = train(fit, facts, new, checkpoints, out, **options)
    return None if facts is None else (fit, facts)


def write_result(
    out: Path,
    facts: dict[str, Any],
    title: str,
    test_digest: str,
    scores: Mapping[str, Any],
    name: str = "test",
) -> dict[str, Any]:
    """Writes what a test gave into the folder of the run, and returns it."""
    result = {"title": title, "digest": test_digest, "scores": dict(scores)}
    result["step"] = facts["step"]
    text = json.dumps(result, ensure_ascii=False)
    files.write(out / f"result-{name}.json", text)
    return result


def load(
    out: Path, kind: type, module: Callable[[Any, dict[str, Any]], nnx.Module]
) -> tuple[Any, Any, dict[str, Any]]:
    """The model of the newest checkpoint in `out`, its settings and its facts.

    `module(settings, facts)` makes one of the same shape.
    """
    checkpoints = Checkpoints(out, read_only=True) if has_checkpoints(out) else None
    if checkpoints is None or checkpoints.newest is None:
        raise InputError(f"--run {out}: no checkpoint there")
    facts = checkpoints.facts()
    settings = saved_settings(kind, facts, out)
    optimizer = make_optimizer(settings)
    graph, state, rest = parts(module(settings, facts), optimizer)
    state = checkpoints.arrays(state)
    return in_use(graph, state.weights, rest), settings, facts
