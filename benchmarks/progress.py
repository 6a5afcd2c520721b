"""How long a run takes: guessed before it starts, then by the clock."""

import time
from typing import Any

from benchmarks.cases import Case, flops


def seconds(case: Case, contenders: int, rounds: int, options: Any) -> float:
    """A rough guess: turns, compilations, and what is right."""
    fast = options.device != "cpu"
    call = flops(case) / (1e13 if fast else 1e11)
    turn = (0 if fast else 0.06) + max(0.05, call) + call
    compile = (0.3 if options.no_compile_times or not rounds else 3) * (
        1.2 if case.mode.endswith("gradient") else 0.5
    )
    return contenders * (rounds * turn + compile + 4 * call) + 2


class Progress:
    """What is done and how long the rest takes, by the clock."""

    def __init__(self, guesses: list[float]) -> None:
        self.guesses, self.start = guesses, time.monotonic()

    def spent(self) -> float:
        return time.monotonic() - self.start

    def left(self, done: int) -> float:
        spent, guessed = self.spent(), sum(self.guesses[:done])
        pace = spent / guessed if done else 1.0
        return pace * sum(self.guesses[done:])


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
