"""`flax.linen.scan`, by `jaxseq.scan`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flax.linen.transforms import lift_transform

from jaxseq._base.check import check_callable, check_flag
from jaxseq.linen._lifted import scan as lifted_scan

Target = TypeVar("Target", bound=Callable[..., Any])


def scan(
    target: Target,
    variable_axes: Mapping[Any, Any] | None = None,
    variable_broadcast: Any = False,
    variable_carry: Any = False,
    split_rngs: Mapping[Any, bool] | None = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    data_transform: Callable[..., Any] | None = None,
    metadata_params: Mapping[Any, Any] | None = None,
    methods: Any = None,
    check_constancy_invariants: bool = True,
) -> Target:
    """`flax.linen.scan`, with faster gradients of modules that multiply by weights.

    Where the weights are the same at every step, as with
    `variable_broadcast="params"`, the loop is that of `jaxseq.scan`. Names and values
    of what `init` makes are those of `nn.scan`, which makes them, so checkpoints fit.
    Random numbers are its own too. Variables with a time axis, `data_transform` and
    outputs that are the same at every step are left to `nn.scan`.

    Args:
        target: a module class, a method, or a function of a module:
            `(module, carry, *xs) -> (carry, ys)`.
        variable_axes: as of `nn.scan`, which then runs the target.
        variable_broadcast: collections of variables that are the same at every step.
        variable_carry: collections that go from step to step.
        split_rngs: of which streams of random numbers each step has its own.
        in_axes: the axis of time of each of `xs`, or `nn.broadcast`; a tree that
            begins like the tuple `xs`, or one for all.
        out_axes: that of each of `ys`.
        length: the number of steps; that of `xs` if None.
        reverse: whether to run from the last step to the first.
        unroll, data_transform, metadata_params: as of `nn.scan`, where that runs the
            target.
        methods: of a module class those to scan over; `__call__` if None.
        check_constancy_invariants: as of `nn.scan`, where that makes the variables.

    Returns:
        The target, over time: `(module, carry, *xs) -> (carry, ys)`.

    Raises:
        ValueError: if an argument is of a wrong kind. What is wrong with the target is
            said by `nn.scan`.

    Example:
        >>> how = {"variable_broadcast": "params", "split_rngs": {"params": False}}
        >>> class Policy(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, h, x):
        ...         gru = jaxseq.linen.scan(nn.GRUCell, **how)(features=8)
        ...         return gru(h, x)
        >>> h, x = jnp.zeros((5, 8)), jnp.ones((20, 5, 3))
        >>> variables = Policy().init(jax.random.key(0), h, x)
        >>> h, y = Policy().apply(variables, h, x)
        >>> y.shape
        (20, 5, 8)
    """
    check_callable(target, "target")
    options: dict[str, Any] = {
        "variable_axes": variable_axes or {},
        "variable_broadcast": variable_broadcast,
        "variable_carry": variable_carry,
        "split_rngs": split_rngs or {},
        "in_axes": in_axes,
        "out_axes": out_axes,
        "length": length,
        "reverse": check_flag(reverse, "reverse"),
        "unroll": unroll,
        "data_transform": data_transform,
        "metadata_params": metadata_params or {},
        "check_constancy_invariants": check_constancy_invariants,
    }
    lifted: Any = lift_transform(lifted_scan, target, methods=methods, **options)
    return lifted
