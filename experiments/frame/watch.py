"""How the processes of a run end together.

One that fails says why, and tells the others, so that none of them waits for it. One
that is gone, silent or stuck is noticed.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

import jax
from tqdm import tqdm

from experiments.frame.cli import outcome
from experiments.frame.distributed import client, count, devices, first, meet, start


def tell(line: str) -> None:
    """A line of its own, whatever stands where a bar of progress is."""
    which = f"process {jax.process_index()} of {count()}"
    tqdm.write(f"{which}: {line}", file=sys.__stderr__)


def leave(code: int, line: str | None) -> None:
    """Ends this process at once, and the others by the code, unless one was first."""
    WATCH.over.set()  # so that it does not hear of itself before it has told why
    was_first: list[bool] = []

    def set_code() -> None:
        try:
            client().key_value_set("run/failed", str(code))
        except RuntimeError as e:
            was_first.append("ALREADY_EXISTS" not in str(e))

    setting = threading.Thread(target=set_code, daemon=True)
    setting.start()
    setting.join(3.0)  # process 0 may be gone
    if line is not None and was_first != [False]:  # what follows is not told
        tell(line)
    stay()
    end(code)


def end(code: int) -> None:
    """Ends this process at once, with what it has printed."""
    threading.Timer(1.0, os._exit, [code]).start()  # if nobody reads it
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def stay() -> None:
    """Until the others have heard of it, which process 0 tells them."""
    time.sleep((3 if first() else 2) * Watch.EVERY)


def lost(i: int, what: str) -> None:
    """Ends this process, for another one is gone."""
    line = f"process {i} {what}; what was saved is kept"
    if i == 0:  # by which the others would be told
        tell(line)
        end(1)
    leave(1, line)


class Watch:
    """Threads that end the process when another one has failed or it is stuck.

    Each process counts up a beat of its own in JAX's coordination service, which is
    process 0; process 0 reads those of all.
    """

    EVERY = 0.5  # seconds

    def __init__(self) -> None:
        self.beats: dict[int, tuple[str, float]] = {}  # of a process: which, and when
        self.over, self.threads = threading.Event(), []
        # when the last step began, if steps are being done
        self.since: float | None = None

    def begin(self, heartbeat: float, stuck: float) -> None:
        """The seconds for which a process may be silent, and a step may take."""
        self.heartbeat, self.stuck = heartbeat, stuck
        some = range(count()) if first() else [0]
        self.beats = {i: ("", time.monotonic()) for i in some}
        self.threads = [
            threading.Thread(target=loop, daemon=True)
            for loop in (self.beat, self.look)
        ]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def step(self) -> None:
        """Begins to wait for the next step."""
        self.since = time.monotonic()

    def __enter__(self) -> None:
        self.step()

    def __exit__(self, *exc: object) -> None:
        self.since = None

    def beat(self) -> None:
        """Counts up the own beat, and hears what others do."""
        while not self.over.is_set():
            with suppress(RuntimeError):  # process 0 is gone, or slow to answer
                self.hear()
            self.over.wait(self.EVERY)

    def hear(self) -> None:
        own = client().key_value_increment(f"beat/{jax.process_index()}", 1)
        found = dict(client().key_value_dir_get("run/"))
        if "run/failed" in found and not self.over.is_set():
            if first():
                stay()
            end(int(found["run/failed"]))
        heard = {0: str(own)}
        if first():
            beats = client().key_value_dir_get("beat/")
            heard = {int(key.rsplit("/")[-1]): beat for key, beat in beats}
        for i, beat in heard.items():
            if self.beats[i][0] != beat:
                self.beats[i] = beat, time.monotonic()

    def look(self) -> None:
        while not self.over.is_set():
            if (i := self.silent(self.heartbeat)) is not None:
                lost(i, "does not answer")
            since, limit = self.since, self.stuck
            if since is not None and time.monotonic() - since > limit:
                tell(f"no step for {limit:g} s; it is here:")
                faulthandler.dump_traceback(2)
                time.sleep(5 * self.EVERY)  # in which the others say it too
                leave(1, None)
            self.over.wait(self.EVERY)

    def silent(self, seconds: float) -> int | None:
        """A process that has been silent for so long, if there is one."""
        now, late = time.monotonic(), {i: at for i, (_, at) in self.beats.items()}
        i = min(late, key=lambda i: late[i], default=0)
        return i if late and now - late[i] > seconds else None

    def verdict(self) -> None:
        """Leaves if a process is gone, which shows in a few seconds."""
        time.sleep(5 * self.EVERY)
        if (i := self.silent(3 * self.EVERY)) is not None:
            lost(i, "is gone")
        time.sleep(2 * self.EVERY)


WATCH = Watch()


def run(
    name: str,
    command: Callable[[], int],
    distributed: str | tuple[str, int, int],
    heartbeat_seconds: int,
    stuck_seconds: float,
) -> int:
    """The exit code of a command that is run by several processes."""
    try:
        start(distributed, heartbeat_seconds)
    except Exception as e:
        first_line = (str(e) or type(e).__name__).splitlines()[0]
        print(f"{name}: error: --distributed: {first_line}", file=sys.__stderr__)
        return 2
    WATCH.begin(heartbeat_seconds, stuck_seconds)
    # as Ctrl-C, wherever there is no step that it could wait for
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def all_of_it() -> int:
        print(f"{count()} processes, {devices()} devices.")
        code = command()
        meet("done")  # none is silent while another one still works
        return code

    try:
        code, message = outcome(all_of_it)
    except Exception as e:
        if isinstance(e, jax.errors.JaxRuntimeError):
            WATCH.verdict()
        traceback.print_exc(file=sys.__stderr__)
        code, message = 1, f"error: {type(e).__name__}"
    if message is not None:
        leave(code, f"{name}: {message}" if message else None)
    WATCH.end()
    return code
