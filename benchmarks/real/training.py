"""What every model is to the command: a step, its first state, and its sizes."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Sizes(NamedTuple):
    B: int  # sequences at a time
    T: int
    D: int  # of what enters the recurrence
    H: int


class Training(NamedTuple):
    """A training step with everything in it; the data are drawn from its key."""

    step: Callable[[Any, Any], tuple[Any, Any]]  # (state, key) -> (state, loss)
    state: Any
