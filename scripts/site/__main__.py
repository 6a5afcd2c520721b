"""Builds the documentation as a site, and checks what was built.

    python -m scripts.site            # into site/; open site/index.html

The pages are those of the repository: `docs/`, and each README. They are laid out for
Sphinx in a folder that is removed again; pages of the public names are made from the
docstrings. No page needs the network. Exit codes: 0 if all is well, 1 if Sphinx warned
or the check found something, 2 for a folder that holds something else.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.site.check import faults
from scripts.site.pages import ROOT, stage

HERE = Path(__file__).parent


def build(out: Path) -> int:
    """Sphinx's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        stage(source)
        sphinx = [sys.executable, "-m", "sphinx", "--builder", "html", "--quiet"]
        strict = ["--fail-on-warning", "--nitpicky", "--fresh-env"]
        doctrees = ["--doctree-dir", str(Path(folder) / "doctrees")]
        built = Path(folder) / "html"  # beside which an extension leaves files
        where = ["--conf-dir", str(HERE), str(source), str(built)]
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "JAX_PLATFORMS": "cpu",
        }
        done = subprocess.run([*sphinx, *strict, *doctrees, *where], env=environment)
        if done.returncode == 0:
            shutil.copytree(built, out, dirs_exist_ok=True)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.site")
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="a folder")
    out = parser.parse_args().out
    if (out / ".buildinfo").exists():  # an earlier site, with pages that may be gone
        shutil.rmtree(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        parser.error(f"--out: expected a new folder or an earlier site, got {out}")
    if build(out):
        return 1
    found = faults(out)
    print(*found, sep="\n", file=sys.stderr)
    count = len(list(out.rglob("*.html")))
    print(f"{out / 'index.html'}: {count} pages, {len(found)} faults")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
