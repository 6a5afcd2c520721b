"""The platforms and what runs on each: one table.

A backend is a name, a `why_not`, a forward and a backward. Which one runs is decided
when a program is lowered, for the platform that it is lowered for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from jaxseq._base.check import check
from jaxseq._base.told import tell
from jaxseq._engine import loop, loop_back
from jaxseq._engine.recall import whole
from jaxseq._engine.types import (
    Devices,
    Inputs,
    Saved,
    Spec,
    Weights,
    to_batch_first,
    to_time_first,
)


class Backend(NamedTuple):
    """What runs a cell on devices; `why_not` is given what the other two are."""

    name: str
    why_not: Callable[..., str | None]  # the limit that a run passes
    forward: Callable[..., Any]  # (devices, spec, weights, inputs)
    backward: Callable[..., Any]  # (devices, spec, weights, x, saved, masks, d_…)


def _loop(name: str, on: loop.Platform) -> Backend:
    def platform(devices: Devices) -> loop.Platform:
        # a sharded batch is not cut in two, nor merged with time
        several: Any = {"halves": False, "alone": False}
        return on if devices.number == 1 else on._replace(**several)

    def forward(devices: Devices, spec: Spec, *args: Any) -> Any:
        return loop.forward(spec, platform(devices), *args)

    def backward(devices: Devices, spec: Spec, *args: Any) -> Any:
        return loop_back.backward(spec, platform(devices), *_whole(spec, *args))

    return Backend(name, lambda *_: None, forward, backward)


def _whole(spec: Spec, weights: Weights, x: Any, saved: Saved, *others: Any) -> Any:
    """The arguments of a backward pass that reads all that was saved as arrays."""
    return weights, x, whole(spec, saved), *others


LOOP = _loop("loop", loop.Platform(narrow=True, outline=False, halves=False))
CPU_LOOP = _loop("loop", loop.Platform(narrow=False, outline=True, halves=True))


def _pallas() -> Backend:
    """The kernel for TPUs, imported where it may run: Pallas takes a while."""

    def why_not(*args: Any) -> str | None:
        from jaxseq._kernels.tpu import limits

        return limits.why_not(*args)

    def forward(devices: Devices, spec: Spec, weights: Weights, inputs: Inputs) -> Any:
        from jaxseq._kernels.tpu import steps

        if not spec.batch_first:
            return steps.forward(devices, spec, weights, inputs)
        turned = inputs._replace(x=tuple(map(to_time_first, inputs.x)))
        end, ys, _ = steps.forward(devices, spec, weights, turned)
        return end, tuple(map(to_batch_first, ys)), None

    def backward(devices: Devices, spec: Spec, *args: Any) -> Any:
        from jaxseq._kernels.tpu import steps

        return steps.backward(devices, spec, *_whole(spec, *args))

    return Backend("pallas", why_not, forward, backward)


PALLAS = _pallas()


def _native() -> Backend:
    """The kernel in C++ for CPUs; where it cannot go back, the loop does."""

    def why_not(devices: Devices, spec: Spec, weights: Any, *args: Any) -> str | None:
        from jaxseq._kernels.cpu import limits

        if len(args) > 1:  # backward: the forward pass has run then
            return None
        limit = limits.why_not(devices, spec, weights, *args)
        tell(f"forward of {spec.step.name}", _by(limit), limit)
        return limit

    def forward(*args: Any) -> Any:
        from jaxseq._kernels.cpu import call

        return call.forward(*args)

    def backward(*args: Any) -> Any:
        from jaxseq._kernels.cpu import back, limits

        limit = limits.why_not_back(*args)
        tell(f"backward of {args[1].step.name}", _by(limit), limit)
        run = back.backward if limit is None else CPU_LOOP.backward
        return run(*args)

    return Backend("native", why_not, forward, backward)


def _by(limit: str | None) -> str:
    return f"{'not ' * (limit is not None)}by the native CPU engine"


NATIVE = _native()


def backends_of(platform: str) -> list[Backend]:
    """Those of a platform, the best first."""
    from jaxseq._kernels import call

    if platform == "tpu":
        return [PALLAS, LOOP]
    if platform == "cpu":
        own = [NATIVE, CPU_LOOP]
    else:
        own = [LOOP]
    return [*own, PALLAS] if call.INTERPRET else own


def chosen(platform: str, devices: Devices, spec: Spec, args: Any) -> Backend:
    """The best backend of the platform that runs this, or the one asked for."""
    asked = spec.implementation
    got = f"{asked!r} on a {platform}"
    for backend in backends_of(platform):
        if asked in (None, backend.name):
            limit = backend.why_not(devices, spec, *args)
            if limit is None:
                return backend
            got = limit
    check(False, "implementation", "None, 'scan' or 'loop' here", got)
    raise AssertionError


def gradients(
    platform: str, devices: Devices, spec: Spec, factors: Any, terms: Any, d: Array
) -> Any:
    """Gradients as those of `sums.py`, if there is a faster way than XLA's, or None."""
    if platform != "cpu":
        return None
    if (spec.implementation or backends_of(platform)[0].name) != NATIVE.name:
        return None
    from jaxseq._kernels.cpu import gradients, limits

    if limits.why_not_gradients(devices, factors, terms, d) is not None:
        return None
    return gradients.gradients(spec, factors, terms, d)
