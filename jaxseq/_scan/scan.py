"""`lax.scan` for any body, with the products of its weights out of the loop."""

from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jax.sharding import (
    AxisType,
    PartitionSpec,
    auto_axes,
    get_abstract_mesh,
    use_abstract_mesh,
)

from jaxseq._base.check import (
    check_callable,
    check_flag,
    check_remat,
    check_value,
    is_whole,
)
from jaxseq._base.masks import Masks
from jaxseq._base.mesh import has_axes, vary
from jaxseq._base.told import tell
from jaxseq._engine.rule import recurrence
from jaxseq._engine.types import Inputs, Spec, Weights, settings
from jaxseq._scan.analysis import Body, Given, Plans, given, planned, steps_of
from jaxseq._scan.early import fixed_of, inputs_of, rule, same_of
from jaxseq._scan.forms import in_form
from jaxseq._scan.meshes import NO_LAYOUT, Layout
from jaxseq._scan.pieces import over_pieces
from jaxseq._scan.plan import Plan
from jaxseq._scan.program import Program, results
from jaxseq._scan.rows import merge_rows, split_rows


def scan(
    body: Body,
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    *,
    remat: int | None = None,
) -> tuple[Any, Any]:
    """`jax.lax.scan`, with faster gradients of bodies that multiply by weights.

    The body is traced, and its products with what is the same at every step are found:
    those of x_t run for many steps at a time, and in the gradient each weight has one
    product over all steps after the loop, where that of `lax.scan` adds one in each
    step. A body that this cannot be done for is run by `lax.scan` itself; `explain`
    says what was found. Numbers and gradients are those of `lax.scan`, to rounding.

    Args:
        body: `(state, x_t) -> (state, y_t)`, as of `jax.lax.scan`.
        init: the first state, any tree.
        xs: inputs of all steps, a tree whose leaves have time in front; or None.
        length: the number of steps; that of `xs` if None.
        reverse: whether to run from the last step to the first.
        unroll: as of `jax.lax.scan`, where the body is left to it; else of no effect.
        remat: for long inputs, how many steps lie between two states that are kept
            for the backward pass; the steps between are run again in it, whatever
            runs the body. Memory is least near √T. None keeps all steps.

    Returns:
        `(state, ys)`: the last state, and the outputs of all steps, time in front.

    Raises:
        ValueError: if an argument is of a wrong kind. What is wrong with the body is
            said by `jax.lax.scan`.

    Example:
        >>> w = jnp.ones((3, 8)), jnp.eye(8)
        >>> def body(h, x_t):
        ...     h = jnp.tanh(x_t @ w[0] + h @ w[1])
        ...     return h, h
        >>> h, y = jaxseq.scan(body, jnp.zeros((5, 8)), jnp.ones((20, 5, 3)))
        >>> y.shape
        (20, 5, 8)
    """
    check_callable(body, "body")
    reverse = check_flag(reverse, "reverse")
    ok = isinstance(unroll, bool) or (is_whole(unroll) and unroll >= 0)
    check_value(ok, "unroll", "a number of steps, 0 or more, or a bool", unroll)
    remat = None if remat is None else check_remat(remat)
    found = given(body, init, xs, length)
    T = steps_of(xs, length)
    if remat is not None and T is not None and (is_symbolic_dim(T) or remat < T):
        each: Any = partial(scan, reverse=reverse, unroll=unroll)
        return over_pieces(each, body, init, xs, T, remat, reverse)
    run = found if isinstance(found, str) else _kept_of(body, found).run
    if isinstance(found, str) or isinstance(run, str):
        tell("body", "by lax.scan", run)
        return lax.scan(body, init, xs, length, reverse, unroll)
    sizes: Any = {"T": found.T, "reverse": reverse}
    mesh = found.layout.mesh if found.layout else get_abstract_mesh()
    with use_abstract_mesh(mesh):
        out = run(found.consts, found.state, found.xs, **sizes)
    return found.as_given(out)


class Kept(NamedTuple):
    """What is kept of a body as long as it lives, for a key and a text."""

    text: str
    run: Any  # compiled once for each shape; or why it is left to `lax.scan`


_kept: WeakKeyDictionary[Any, dict[Any, Kept]] = WeakKeyDictionary()


def _kept_of(body: Body, found: Given) -> Kept:
    try:
        mine = _kept.setdefault(body, {})
    except TypeError:  # it has no hash, or cannot be referred to weakly
        mine = {}
    kept = mine.get(found.key)
    if kept is None or kept.text != found.text:
        run: Any = planned(found)
        if not isinstance(run, str):
            run = partial(_run, run, found.layout or NO_LAYOUT)
            run = jax.jit(run, static_argnames=("T", "reverse"))
        kept = mine[found.key] = Kept(found.text, run)
    return kept


def _run(
    plans: Plans,
    layout: Layout,
    consts: Any,
    state: Any,
    xs: Any,
    *,
    T: int,
    reverse: bool,
) -> Any:
    def over_time(consts: Any, state: Any, xs: Any) -> Any:
        value, derivatives = (
            partial(_by_engine, form, layout, T, reverse)
            if isinstance(form, Plan)
            else partial(_plainly, form, T, reverse)
            for form in plans
        )
        if plans.value is plans.derivatives:
            return value(consts, state, xs)
        return in_form(value, derivatives, consts, state, xs)

    run: Any = over_time
    if has_axes(AxisType.Explicit):
        n = len(state)
        outs = (PartitionSpec(None, *spec) for spec in layout.outs[n:])
        run = auto_axes(run, out_sharding=[*layout.outs[:n], *outs])
    return run(consts, state, xs)


def _plainly(
    program: Program, T: int, reverse: bool, consts: Any, state: Any, xs: Any
) -> Any:
    def body(state: Any, x: Any) -> Any:
        args = *program.held, *consts, *state, *x
        out = tuple(results(program, args, rule))
        return out[: len(state)], out[len(state) :]

    length = None if xs else T  # it may not be symbolic
    end, ys = lax.scan(body, tuple(state), tuple(xs), length, reverse)
    return [*end, *ys]


def _by_engine(
    plan: Plan, layout: Layout, T: int, reverse: bool, consts: Any, state: Any, xs: Any
) -> Any:
    fixed = fixed_of(plan, consts)
    if plan.halves:
        state = [split_rows(a, 0) for a in state]
        xs = [split_rows(a, 1) for a in xs]
        x = inputs_of(plan, fixed, [a.reshape(2 * T, *a.shape[2:]) for a in xs])
        x = [a.reshape(T, 2, *a.shape[1:]) for a in x]
    else:
        x = inputs_of(plan, fixed, xs)
    if not x:  # something has to tell how many steps there are
        x = [jnp.zeros((T, 2) if plan.halves else T, bool)]
    of: Any = lambda names: tuple(None if v is None else fixed[v] for v in names)
    none = (None,) * len(x)
    weights = Weights(of(plan.w_x) or none, none, of(plan.w_h), of(plan.extra))
    inputs = Inputs(tuple(x), tuple(state), None, Masks(None, None))
    weights, inputs = vary((weights, inputs), layout.axes)
    spec = Spec(plan.step, reverse, None, False, False, settings=settings())
    end, ys = recurrence(spec, weights, inputs)
    if plan.halves:
        return [*(merge_rows(a, 0) for a in end), *(merge_rows(a, 1) for a in ys)]
    out = [*end, *ys]
    if layout.alike:
        args = layout.alike, consts, state, xs, T, reverse
        for i, a in same_of(plan, *args).items():
            out[i] = a
    return out
