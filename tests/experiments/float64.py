"""An experiment in float64: python -m tests.experiments.float64 NAME train ..."""

import os
import signal
import sys
from importlib import import_module

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.frame.trainer import Trainer


def wide(tree):
    cast = lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a
    return jax.tree.map(cast, tree)


def in_float64(make):
    def made(*args):
        model = make(*args)
        nnx.update(model, wide(nnx.state(model, nnx.Param)))
        for _, module in nnx.iter_modules(model):
            if getattr(module, "dtype", None) == jnp.float32:
                module.dtype = jnp.float64
        return model

    return made


def stop_at(step):
    """Sends a signal to the first process when so many steps are done."""
    advance = Trainer.advance

    def stops(self):
        if self.step == step and jax.process_index() == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(self)

    Trainer.advance = stops


if __name__ == "__main__":
    name, *options = sys.argv[1:]
    jax.config.update("jax_enable_x64", True)
    model = import_module(f"experiments.{name}.model")
    model.make = in_float64(model.make)
    if name == "language_model":
        start = model.start
        model.start = lambda *args: wide(start(*args))
    if "STOP_AT" in os.environ:
        stop_at(int(os.environ["STOP_AT"]))
    sys.exit(import_module(f"experiments.{name}.__main__").main(options))
