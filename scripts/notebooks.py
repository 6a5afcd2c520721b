"""Runs the notebooks, and writes each in one form so that a diff shows what changed.

    python -m scripts.notebooks              # all of them
    python -m scripts.notebooks your-own-cell
    python -m scripts.notebooks --check      # runs none; are they in that form?

It needs the extra `notebooks`. A cell that raises or warns is an error.
"""

import argparse
import os
import sys
from base64 import b64decode
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
MOST = 80_000  # bytes of a figure


def names() -> list[str]:
    return sorted(own.stem for own in FOLDER.glob("*.ipynb"))


def path(name: str) -> Path:
    return FOLDER / f"{name}.ipynb"


def read(name: str) -> NotebookNode:
    return nbformat.read(path(name), as_version=4)


def execute(notebook: NotebookNode, timeout: int = 3600) -> None:
    """Runs all cells in a new kernel, compiled as users compile them, and as written.

    Raises:
        CellExecutionError: if a cell raises.
    """
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    client = NotebookClient(notebook, timeout=timeout, record_timing=False)
    client.execute(env=environment)


def normalize(notebook: NotebookNode) -> None:
    """Leaves only what a reader sees."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        cell.source = cell.source.strip()
    for cell in code_cells(notebook):
        cell.outputs = joined(cell.outputs)
        for output in cell.outputs:
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """With what was printed in one piece, not as it happened to arrive."""
    found: list[NotebookNode] = []
    for output in outputs:
        name = output.get("name")
        if found and name is not None and name == found[-1].get("name"):
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def problems(notebook: NotebookNode) -> list[str]:
    """What readers should not see, or could not."""
    found = []
    for count, cell in enumerate(code_cells(notebook), 1):
        if cell.execution_count != count:
            found.append(f"cell {count} was not run in order: {cell.execution_count}")
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"cell {count}: {text_of(output)}")
            if any(own in text_of(output) for own in (str(ROOT), "site-packages")):
                found.append(f"cell {count} shows a path of this machine")
    if not figures(notebook):
        found.append("no figure")
    for figure in figures(notebook):
        if len(figure) > MOST:
            found.append(f"a figure of {len(figure):,} bytes")
    return found


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def figures(notebook: NotebookNode) -> list[bytes]:
    """All of them as PNG, from the first to the last."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    shown = [output.get("data", {}).get("image/png") for output in outputs]
    return [b64decode(png) for png in shown if png is not None]


def text_of(output: NotebookNode) -> str:
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    return output.get("text", "") + output.get("data", {}).get("text/plain", "")


def write(name: str, notebook: NotebookNode) -> None:
    """The notebook, and its first figure for the README."""
    normalize(notebook)
    nbformat.write(notebook, path(name))
    for figure in figures(notebook)[:1]:
        path(name).with_suffix(".png").write_bytes(figure)


def unlike(name: str, notebook: NotebookNode) -> list[str]:
    """What is not as `write` would write it."""
    as_read = deepcopy(notebook)
    normalize(as_read)
    png = path(name).with_suffix(".png")
    same = as_read == notebook and figures(notebook)[:1] == [png.read_bytes()]
    return [] if same else [f"run python -m scripts.notebooks {name}"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="notebooks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(names()))
    parser.add_argument("--check", action="store_true", help="run none")
    options = parser.parse_args(arguments)
    known = names()
    for name in options.names:
        if name not in known:
            print(f"notebooks: {name}: none of {', '.join(known)}", file=sys.stderr)
            return 2
    found = []
    for name in options.names or known:
        notebook = read(name)
        if options.check:
            found += [f"{name}: {problem}" for problem in unlike(name, notebook)]
        else:
            print(name, flush=True)
            execute(notebook)
            write(name, notebook)
        found += [f"{name}: {problem}" for problem in problems(notebook)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
