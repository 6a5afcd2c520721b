"""The stages between the products of a step, as calls of their own."""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxseq._engine.chain import in_order, run, trace


def chained(
    one: Any,
    args: Any,
    ask: Any,
    outline: bool,
    overwritten: Callable[[Any, Any], Any] = lambda args, out: (),
) -> Any:
    """`one(*args)`, the stages between its products outlined or not.

    `overwritten` has pairs of an argument and a result that is written in its place.
    """
    chain, held, out = trace(one, *args)
    numbers = (
        jax.tree.unflatten(t, range(t.num_leaves))
        for t in map(jax.tree.structure, (args, out))
    )
    chain = in_order(chain, overwritten(*numbers))
    call = outlined if outline else lambda f: f
    values = run(chain, [*jax.tree.leaves(args), *held], ask, call)
    return jax.tree.unflatten(jax.tree.structure(out), values)


def outlined(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` as a call that XLA does not inline, and so does not fuse with others.

    On a CPU, XLA computes a cheap chain anew in every kernel that reads it, and gates
    that read their input at an offset do not vectorize.
    """

    @jax.jit
    def inner(*args: Any) -> Any:
        with set_xla_metadata(inlineable=None):  # for calls inside
            return f(*args)

    def call(*args: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return inner(*args)

    return call
