"""Whether the native kernels for CPUs run here."""


def native_available() -> bool:
    """Whether layers can run by the native engine for CPUs, in C++.

    It comes with the wheels for Linux. Elsewhere it is built once, when it is first
    needed, if there is a C++ compiler; this function builds it too, which takes up to a
    minute. Layers run without it where it is missing, and `python -m jaxseq.native`
    says why it is. The environment variable JAXSEQ_NATIVE=0 turns it off.

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
