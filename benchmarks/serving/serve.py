"""`python -m benchmarks.serving.serve NAME PORT CORE`: a server on one core."""

import os
import sys


def main() -> None:
    name, how, port, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})  # before any library counts the cores

    import uvicorn

    from benchmarks.serving.networks import NETWORKS, alone, drawn, errors
    from examples.serving.server import SLOTS, Server

    make, params = NETWORKS[name], drawn()
    if name != "none" and not (worst := errors(make, params)) < 1e-5:
        sys.exit(f"{name} is off by {worst}")
    read = make(params, SLOTS)
    app = Server(alone(read) if how == "alone" else read).app
    # its connections stay open, also where a machine stands still for a while
    uvicorn.run(app, port=int(port), log_level="warning", timeout_keep_alive=120)


if __name__ == "__main__":
    main()
