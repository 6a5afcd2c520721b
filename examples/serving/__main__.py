"""`python -m examples.serving [weights.safetensors] [--port 8000]` runs the server."""

import argparse

import jax
import uvicorn

from examples.serving import model
from examples.serving.server import SLOTS, Server


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves a character model.")
    parser.add_argument("weights", nargs="?", help="a file; drawn if there is none")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    try:
        drawn = options.weights is None
        params = model.init(jax.random.key(0)) if drawn else model.load(options.weights)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    server = Server(model.Model(params, SLOTS))
    uvicorn.run(server.app, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
