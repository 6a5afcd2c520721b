"""Whether the native kernels for CPUs run here."""

from typing import Any

from jax.export import is_symbolic_dim

from jaxseq._engine.step import Step


def native_available() -> bool:
    """Whether layers can run by the native engine for CPUs, in C++.

    It comes with the wheels for Linux. Elsewhere it is built once, when it is first
    needed, if there is a C++ compiler; this function builds it too, which takes up to a
    minute. Without it, layers run by a loop, and `python -m jaxseq.native` says why it
    is missing. The environment variable JAXSEQ_NATIVE=0 turns it off.

    Returns:
        Whether it is there, fits this version of JAX, and is not turned off.

    Raises:
        Nothing: where something is missing, the answer is False.

    Example:
        >>> jaxseq.native_available() in (True, False)
        True
    """
    from jaxseq._kernels.cpu import build

    return build.why_not() is None


def is_turned_off() -> bool:
    from jaxseq._kernels.cpu import build

    return build.switch() == "0"


def is_for_native(step: Step, w_h: Any) -> bool:
    """Whether a step will run by these kernels, as far as is known before lowering.

    `w_h` are its matrices, or their types.
    """
    from jaxseq._kernels.cpu import build
    from jaxseq._kernels.cpu.blocks import blocks_of
    from jaxseq._kernels.cpu.program import program_of

    # to ask for the platform would start it, and to build is for the lowering
    if is_turned_off() or not build.is_built():
        return False
    sizes = (n for a in (*step.z, *step.state, *step.extra) for n in a.shape)
    if any(map(is_symbolic_dim, (*sizes, *step.sizes))):
        return False
    blocks = tuple(blocks_of(w_h[k]) for k in step.called)
    return not isinstance(program_of(step, blocks), str) and build.limit() is None
