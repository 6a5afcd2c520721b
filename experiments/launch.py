"""Several processes of one command on this machine.

    python -m experiments.launch 2 experiments.language_model train --out runs/two

runs `python -m experiments.language_model train --out runs/two --distributed …` twice.
They end together: if one fails, or is killed, so do the others soon after.
"""

import argparse
import signal
import socket
import subprocess
import sys
import time
from typing import Any


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def launch(n: int, module: str, options: list[str]) -> int:
    """The exit code of the first process that failed, or 0."""
    heartbeat = 100
    if "--heartbeat-seconds" in options:
        heartbeat = int(options[options.index("--heartbeat-seconds") + 1])
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", module, *options, "--distributed"]
    # in sessions of their own, so that each has a signal once: from here
    processes: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, frame: Any) -> None:
        for each in processes:
            each.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hand_on)
    for i in range(n):
        own = [*command, f"{address},{n},{i}"]
        processes.append(subprocess.Popen(own, start_new_session=True))
    failed, end = 0, float("inf")
    while left := [i for i, each in enumerate(processes) if each.poll() is None]:
        for each in processes:
            if each.returncode and not failed:
                # one that is killed cannot tell the others, who wait for it
                failed, wait = each.returncode, 2 + heartbeat * (each.returncode < 0)
                end = time.monotonic() + wait
        if time.monotonic() > end:
            for i in left:
                processes[i].kill()
                processes[i].wait()
        time.sleep(0.05)
    for i, each in enumerate(processes):
        if each.returncode < 0:
            name = signal.Signals(-each.returncode).name
            print(f"process {i} of {n}: ended by {name}", file=sys.stderr)
    codes = [each.returncode for each in processes]
    code = failed or next(filter(None, codes), 0)
    return 128 - code if code < 0 else code


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("n", type=int, help="number of processes")
    parser.add_argument("module", help="such as experiments.language_model")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the command")
    o = parser.parse_args(argv)
    return launch(o.n, o.module, o.options)


if __name__ == "__main__":
    sys.exit(main())
