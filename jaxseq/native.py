"""`python -m jaxseq.native`: whether the native CPU engine runs here, and building it.

`status`, the default, says where the engine is, or why there is none. `build` builds
it if it is not there, also after a build that failed. Exit codes: 0 if the engine is
there, 1 if not, 2 for wrong input.
"""

import argparse
import time

from jaxseq._kernels.cpu import build, compilers


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m jaxseq.native", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("status", "build"))
    command = parser.parse_args(argv).command or "status"
    try:
        off = build.switch() == "0" and command == "status"
        if not off and not build.PACKAGED.exists() and not build.cached().exists():
            used = build.compiler(build.cached(), again=command == "build")
            found = compilers.name_of(used)
            if command == "status":
                how = "when a layer first needs it, or now by `build`"
                print(f"not built yet: {found} builds it {how}")
                return 1
            _build(found)
    except OSError as error:
        print(f"not built: {error}")
        return 1
    if (reason := build.why_not()) is not None:
        print(f"not available: {reason}")
        return 1
    print(f"available: {build.found()}")
    return 0


def _build(found: str) -> None:
    start = time.monotonic()
    print(f"compiler: {found}", flush=True)
    build.built(build.cached(), again=True)
    print(f"built in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    raise SystemExit(main())
