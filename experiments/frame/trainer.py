"""The one training: the loss of a module, its updates, the loop over the steps."""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from tqdm import tqdm

from experiments.frame import distributed
from experiments.frame.checkpoint import Checkpoints
from experiments.frame.data import Data, part
from experiments.frame.errors import Diverged, InputError
from experiments.frame.interrupts import Interrupts
from experiments.frame.watch import WATCH


class Loss(NamedTuple):
    """What the loss of a batch is: sums, of which `total / n` is minimised."""

    total: Array
    n: Array
    shown: Array | None = None  # in reports in place of `total`
    carry: Any = None  # what the next batch goes on with


# what a process wishes, the strongest of which all do after the step
GO_ON, SAVE, STOP = range(3)


class State(NamedTuple):
    """What is updated."""

    weights: Any
    optimizer: Any


def make_optimizer(settings: Any) -> optax.GradientTransformation:
    """AdamW with gradients clipped to norm 1, a short warm-up and a cosine to 0."""
    warmup = min(getattr(settings, "warmup", 100), settings.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, warmup, settings.steps
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, b2=0.99, weight_decay=settings.weight_decay),
    )


def split(model: nnx.Module, settings: Any) -> tuple[Any, State, Any]:
    """A module as its graph, the state that a run starts from, and what is fixed."""
    graph, weights, rest = nnx.split(model, nnx.Param, ...)
    return graph, State(weights, make_optimizer(settings).init(weights)), rest


def in_use(graph: Any, weights: Any, rest: Any) -> Any:
    """The module with these weights, without dropout."""
    model = nnx.merge(graph, weights, rest, copy=True)
    model.eval()
    return model


@jax.jit
def norms_of(weights: Any) -> list[Array]:
    return [jnp.vdot(w, w) for w in jax.tree.leaves(weights)]


class Trainer:
    """A run: its state and its compiled update, with batches over all devices.

    `loss(model, batch)` gives a `Loss`, or its first fields. With `start` it is
    `loss(model, batch, carry)`: a batch goes on with the carry of the one before, the
    first with `start(model, batch)`. No gradient goes into it.
    """

    def __init__(
        self,
        settings: Any,
        model: nnx.Module,
        loss: Callable[..., tuple],
        data: Data,
        start: Callable[[Any, Any], Any] | None = None,
    ):
        self.settings, self.data, self.start = settings, data, start
        n = distributed.devices()
        if not data.fills and settings.batch % n:
            expected = f"expected a multiple of {n}, the number of devices"
            raise InputError(f"--batch {settings.batch}: {expected}")
        self.graph, state, self.rest = split(model, settings)
        self.step, self.wish, self.told = 0, GO_ON, jnp.array(GO_ON)
        self.state, self.carry = distributed.replicated(state), None
        if start is not None:
            self.carry = distributed.by_rows(start(model, self.rows(0)))
        optimizer = make_optimizer(settings)

        def of(model: Any, batch: Any, carry: Any) -> Loss:
            return Loss(*loss(model, batch, *([] if start is None else [carry])))

        def update(state: State, carry: Any, batch: Any, key: Array, wish: Any) -> Any:
            def mean(weights: Any) -> tuple[Array, Loss]:
                model = nnx.merge(self.graph, weights, self.rest, copy=True)
                model.train()
                nnx.reseed(model, default=key)
                found = of(model, batch, carry)
                return found.total / found.n, found

            grad = jax.value_and_grad(mean, has_aux=True)
            (value, found), grads = grad(state.weights)
            updates, rest = optimizer.update(grads, state.optimizer, state.weights)
            state = State(optax.apply_updates(state.weights, updates), rest)
            shown = value if found.shown is None else found.shown / found.n
            return state, found.carry, shown, wish.max()

        def sums(weights: Any, carry: Any, batch: Any) -> tuple[Any, Array, Array]:
            found = of(in_use(self.graph, weights, self.rest), batch, carry)
            total = found.total if found.shown is None else found.shown
            return found.carry, total, found.n

        whole, rows = distributed.everywhere(), distributed.over_rows()
        of_carry = None if start is None else rows
        self.update = jax.jit(
            update, donate_argnums=(0, 1), out_shardings=(whole, of_carry, whole, whole)
        )
        self.sums = jax.jit(sums, out_shardings=(None, whole, whole))

    @property
    def model(self) -> Any:
        """The module as it is now, to be used by this process alone."""
        here = jax.tree.map(jnp.asarray, distributed.fetch(self.state.weights))
        return in_use(self.graph, here, self.rest)

    def rows(self, step: int) -> Any:
        """Those that this process has of a batch."""
        train, share = self.data.train, distributed.share()
        if hasattr(train, "part"):
            return train.part(step, share)
        return part(train[step], share)

    @property
    def saved(self) -> dict[str, Any]:
        """What a checkpoint holds of it, by name."""
        carried = {} if self.carry is None else {"carry": self.carry}
        return {"arrays": self.state, **carried}

    def go_on(self, checkpoints: Checkpoints, step: int) -> None:
        """Goes on from the newest checkpoint, which is of that step."""
        found = checkpoints.arrays(**self.saved)
        self.state, self.carry, self.step = found["arrays"], found.get("carry"), step

    def advance(self) -> Array:
        """Does one step and returns its loss."""
        key = jax.random.fold_in(jax.random.key(self.settings.seed), self.step)
        batch = distributed.by_rows(self.rows(self.step))
        wish = distributed.by_rows(np.full(jax.local_device_count(), self.wish))
        self.state, self.carry, loss, self.told = self.update(
            self.state, self.carry, batch, key, wish
        )
        self.step += 1
        return loss

    def evaluate(self, stop: Callable[[], bool] = lambda: False) -> float | None:
        """The mean loss over all that is held out.

        None as soon as all know that a process wishes to `stop`.
        """
        carry, found, share, asked = None, [], distributed.share(), []
        for batch in self.data.held_out:
            WATCH.step()
            place = distributed.replicated
            if self.data.fills or len(jax.tree.leaves(batch)[0]) % share.devices == 0:
                place, batch = distributed.by_rows, part(batch, share)
            if self.start is not None and carry is None:
                carry = place(self.start(self.model, batch))
            carry, *sums = self.sums(self.state.weights, carry, place(batch))
            found.append(sums)
            asked.append(distributed.greatest(stop()))
            # that of the last batch would have to be waited for
            if len(asked) > 1 and distributed.fetch(asked[-2]):
                return None
        totals, counts = zip(*distributed.fetch(found), strict=True)
        return sum(map(float, totals)) / sum(map(float, counts))


def loop(
    trainer: Trainer,
    facts: dict[str, Any],
    checkpoints: Checkpoints,
    save_seconds: float,
) -> bool:
    """Trains to the last step, or to an interrupt, whose answer is False."""
    steps, units = trainer.settings.steps, trainer.data.per_step
    log_every, evaluate_every = max(1, steps // 200), max(1, steps // 8)
    start = saved = time.monotonic()
    before, held_out = facts["seconds"], ""
    alone, rows = distributed.count() == 1, facts["held_out"]
    asked, told, coming = False, GO_ON, trainer.told
    losses = facts["pending"]  # of the steps since the last row of facts["train"]

    def fetch() -> None:
        losses[:] = map(float, distributed.fetch(losses))
        if not np.isfinite(losses).all():
            raise Diverged(
                f"the loss is {losses[-1]} at step {trainer.step}: try a lower "
                f"--learning-rate; {left()}"
            )

    def check(held_out: float = 0.0) -> None:
        """That the weights and the held-out loss are finite."""
        norms = distributed.fetch(norms_of(trainer.state.weights))
        if not np.isfinite([*norms, held_out]).all():
            raise Diverged(
                f"the weights are not finite at step {trainer.step}: try a lower "
                f"--learning-rate; {left()}"
            )

    def left() -> str:
        if checkpoints.newest is None:
            return "no checkpoint was written"
        return f"the last checkpoint is of step {checkpoints.newest}"

    def save() -> None:
        fetch()
        check()
        facts["seconds"] = before + time.monotonic() - start
        facts["step"] = trainer.step
        if checkpoints.newest != trainer.step:
            checkpoints.save(trainer.step, facts, **trainer.saved)

    def due() -> bool:
        """Whether to evaluate, which may have been stopped at this step before."""
        step = trainer.step
        if step == 0 or (rows and rows[-1]["step"] == step):
            return False
        return step % evaluate_every == 0 or step == steps

    def wish() -> int:
        late = distributed.first() and time.monotonic() - saved >= save_seconds
        return STOP if interrupts.seen else SAVE if late and not asked else GO_ON

    bar = tqdm(
        total=steps * units,
        initial=trainer.step * units,
        unit=trainer.data.unit,
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    with Interrupts() as interrupts, bar:
        while told < STOP:
            if due():
                WATCH.step()
                loss = trainer.evaluate(lambda: interrupts.seen)
                if loss is None:
                    told = STOP
                    break
                check(loss)
                rows.append({"step": trainer.step, "loss": loss})
                held_out = f", held out {loss:.3g}"
                if checkpoints.newest == trainer.step:  # saved when this was stopped
                    distributed.agree(lambda: checkpoints.amend(facts))
            if told == SAVE or trainer.step == steps:
                save()
                saved, asked = time.monotonic(), False
            if trainer.step == steps:
                break
            WATCH.step()
            trainer.wish = wish()
            asked = trainer.wish == SAVE and not alone
            losses.append(trainer.advance())
            # of the step before: that of this one would have to be waited for
            told, coming = (
                wish() if alone else int(distributed.fetch(coming)),
                trainer.told,
            )
            bar.update(units)
            if trainer.step % log_every == 0 or trainer.step == steps:
                fetch()
                loss = float(np.mean(losses))
                losses.clear()
                facts["train"].append({"step": trainer.step, "loss": loss})
                bar.set_postfix_str(f"loss {loss:.3g}{held_out}", refresh=False)
        if told == STOP:
            save()
        WATCH.step()
        checkpoints.wait()
        return told < STOP and not distributed.fetch(
            distributed.greatest(interrupts.seen)
        )
