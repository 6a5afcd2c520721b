"""Ctrl-C and SIGTERM, noted so that a loop can end at a whole step."""

import signal
import sys
from typing import Any


class Interrupts:
    """A context in which the first signal sets `seen`, and a second one interrupts."""

    def __enter__(self) -> "Interrupts":
        self.seen = False
        signals = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self.note) for number in signals}
        return self

    def note(self, number: int, frame: Any) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True
        line = "\nStopping after this step; once more stops at once."
        print(line, file=sys.stderr, flush=True)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
