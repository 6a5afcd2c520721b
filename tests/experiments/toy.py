"""A small experiment for the tests of the frame: a running mean, with dropout.

Its loss has all that a loss can have: what is shown is half of what is minimised, and
each batch goes on with the state of the one before.
"""

import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxseq.nn
from experiments.frame.cli import CommandLine
from experiments.frame.data import Data, digest
from experiments.frame.errors import refuse
from experiments.frame.experiment import Evaluation, Experiment, Result
from experiments.frame.options import (
    learning_rate,
    option,
    seed,
    steps,
    weight_decay,
)
from experiments.frame.page import loss_figure, save_figure


@dataclass(frozen=True)
class Settings:
    data: str = option("even", "which numbers", choices=("even", "odd"), fixed=False)
    hidden: int = option(3, "width of the state")
    deep: bool = option(False, "one layer more")
    dropout: float = option(0.5, "probability", high=0.95, fixed=False)
    steps: int = steps(402)
    learning_rate: float = learning_rate(1e-2)
    weight_decay: float = weight_decay(0.01)
    seed: int = seed("of weights and dropout")


class Batch(NamedTuple):
    x: np.ndarray  # (2, 4, 1)
    y: np.ndarray  # (2, 4)


class Batches(NamedTuple):
    offset: int

    def __getitem__(self, step):
        rng = np.random.default_rng((self.offset, step))
        x = rng.random((2, 4, 1), np.float32)
        return Batch(x, x.cumsum(1)[..., 0] / 4)


class Model(nnx.Module):
    def __init__(self, settings, rngs):
        layers = 1 + settings.deep
        self.recurrent = jaxseq.nn.RNN(1, settings.hidden, num_layers=layers, rngs=rngs)
        self.dropout = nnx.Dropout(settings.dropout, rngs=rngs)
        self.head = nnx.Linear(settings.hidden, 1, rngs=rngs)

    def __call__(self, x, state=None):
        state, y = self.recurrent(x, state)
        return state, self.head(self.dropout(y))[..., 0]


def load(settings, data_dir):
    batches = Batches(settings.data == "odd")
    return Data(
        train=batches,
        held_out=[batches[10_000 + i] for i in range(3)],
        tests={"test": batches[20_000]},
        digests={"all": digest(settings.data), "test": digest([settings.data, 2])},
        facts={"width": 1},
        about=f"{settings.data} numbers",
        per_step=8,
        unit="number",
    )


def start(model, batch):
    return model.recurrent.zeros(len(batch.x))


def loss(model, batch, carry):
    carry, answer = model(jnp.asarray(batch.x), carry)
    total = jnp.square(answer - batch.y).sum()
    return total, jnp.asarray(batch.y.size), total / 2, carry


def evaluate(run):
    test = run.data.tests["test"]
    error = float(np.square(run.model(test.x)[1] - test.y).mean())
    scores, more = {"squared error": error}, {"sentences": ["said"], "source": "made"}
    result = Result("numbers, test", run.data.digests["test"], scores, more=more)
    return Evaluation([result], f"Squared error **{error:.4f}**, <here>.", test)


def page(run, evaluation):
    figure = loss_figure(run.facts, 8, "numbers", "number")
    return "A <toy>", save_figure(figure, run.out / "loss.png")


def make(settings, facts):
    return Model(settings, nnx.Rngs(settings.seed))


# in an experiment of some size, modules
data = SimpleNamespace(load=load)
model = SimpleNamespace(make=make, loss=loss)
pages = SimpleNamespace(label=lambda settings: f"RNN {settings['hidden']}", page=page)
EXPERIMENT = Experiment(
    *("Toys", lambda given: Settings(), data, model, pages, evaluate),
    check=lambda settings, given: refuse(
        given, ["data_dir"], f"with {settings.data} numbers"
    ),
    digits={"squared error": 4},
    start=start,
)


class Line(CommandLine):
    def module(self):
        return SimpleNamespace(EXPERIMENT=EXPERIMENT)


def main(argv):
    line = Line("toy", __doc__)
    train = line.add_train("the toy", Settings(), data_dir=True)
    train.add_argument("--note", default="none", help="stands on the page")
    line.add_report()
    return line.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
