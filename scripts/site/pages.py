"""The pages of the repository, laid out as the source of a Sphinx site.

A page keeps its text; only its links are changed, to where their targets lie in the
site. `docs/x.md` is the page `x`, the README of a folder its `index`, and a Python file
that a page links to gets a page of its own.
"""

import json
import os
import posixpath
import re
import shutil
from pathlib import Path

from scripts.site import api

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/**/*.md",
    "examples/README.md",
    "experiments/**/README.md",
    "notebooks/README.md",
    "benchmarks/*.md",
]
TOP = {
    "docs/index.md": "index.md",
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "jaxseq/__init__.py": "api/index.md",  # it lists the public names
}
IMAGES = {".png", ".svg"}

# what the menu shows, in its order
MENU = {
    "Start": [
        "getting-started",
        "ideas",
        "layers",
        "glossary",
        "Why jaxseq <overview>",
    ],
    "Tasks": [
        "Classify <tasks/classify>",
        "Tag <tasks/tag>",
        "Translate <tasks/translate>",
        "Generate <tasks/generate>",
        "Recognise speech <tasks/speech>",
        "rl",
        "long-inputs",
        "Serve <serving>",
        "Many devices <distributed>",
    ],
    "In depth": [
        "your-own-cell",
        "models",
        "training",
        "files",
        "platforms",
        "The CPU engine <cpu>",
        "What a step costs <scale>",
    ],
    "From other libraries": [
        "All of them <migration>",
        "PyTorch <migrate/pytorch>",
        "Keras <migrate/keras>",
        "Flax NNX <migrate/flax-nnx>",
        "Flax Linen <migrate/flax-linen>",
        "Haiku <migrate/haiku>",
        "Equinox <migrate/equinox>",
        "scan",
        "Weights <porting>",
    ],
    "Reference": ["api/index"],
    "Experiments and figures": [
        "Gallery <experiments/index>",
        "notebooks/index",
        "benchmarks/index",
        "examples/index",
    ],
    "Project": ["changelog", "contributing", "security"],
}
UNDER = {
    "experiments/index.md": "experiments/*/index",
    "benchmarks/index.md": "benchmarks/*",
    "notebooks/index.md": "notebooks/*",
}

FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
HTML_LINK = re.compile(r"((?:href|src)=\")([^\"]+)(\")")


def place(path: str) -> str:
    """Where a file or folder of the repository lies in the site."""
    if path in TOP:
        return TOP[path]
    if path.endswith("README.md"):
        return path.removesuffix("README.md") + "index.md"
    suffix = posixpath.splitext(path)[1]
    if suffix in (".md", ".ipynb") or suffix in IMAGES:
        return path.removeprefix("docs/")
    if suffix == ".py":
        return f"source/{path}.md"
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"files/{path}"


def relinked(text: str, page: str, *, html: bool = False) -> tuple[str, set[str]]:
    """The text of a page with links as the site has them, and what they lead to.

    In HTML, links to pages end with `.html`, and code is no exception.
    """
    targets = set()

    def change(found: re.Match[str]) -> str:
        before, link, after = found.groups()
        path, hash, anchor = link.partition("#")
        if "://" in link or not path:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        targets.add(target)
        new = posixpath.relpath(place(target), posixpath.dirname(place(page)) or ".")
        if html:
            new = re.sub(r"\.(md|ipynb)$", ".html", new)
        return before + new + hash + anchor + after

    parts = FENCE.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = LINK.sub(change, parts[i])
    text, html = "".join(parts), True
    return HTML_LINK.sub(change, text), targets


def pages() -> list[str]:
    """Those of the repository, by their paths in it."""
    found = {p for pattern in PAGES for p in ROOT.glob(pattern)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def stage(folder: Path) -> None:
    """Writes the source of the site into a new folder."""
    targets = set()
    for page in pages():
        text, found = relinked((ROOT / page).read_text(encoding="utf-8"), page)
        targets |= found
        write(folder / place(page), one_title(text, page) + below(place(page)))
    for target in sorted(targets):
        add(folder, target)
    for name, text in api.pages().items():
        write(folder / "api" / name, text)


def one_title(text: str, page: str) -> str:
    """The text with a title above those that it has, if they are several."""
    parts = FENCE.split(text)
    if sum(len(re.findall(r"^# ", part, re.MULTILINE)) for part in parts[::2]) < 2:
        return text
    lower = [re.sub(r"^#", "##", part, flags=re.MULTILINE) for part in parts[::2]]
    parts[::2] = lower
    return f"# {posixpath.dirname(page).capitalize()}\n\n" + "".join(parts)


def below(page: str) -> str:
    """The part of the menu that stands under a page."""
    if page == "index.md":
        return "".join(toctree(f":caption: {c}", p) for c, p in MENU.items())
    if page in UNDER:
        pattern = posixpath.relpath(UNDER[page], posixpath.dirname(page))
        return toctree(":glob:", [pattern])
    return ""


def toctree(option: str, entries: list[str]) -> str:
    lines = ["", "```{toctree}", ":hidden:", option, *entries, "```", ""]
    return "\n".join(lines)


def add(folder: Path, target: str) -> None:
    """What a page links to, unless it is a page itself."""
    path, new = ROOT / target, folder / place(target)
    if target.endswith(".md") or target in TOP:
        return
    if path.is_dir():
        files = sorted(p.relative_to(ROOT).as_posix() for p in path.glob("*.py"))
        names = [
            f"- [{posixpath.basename(f)}]({os.path.basename(f)}.md)" for f in files
        ]
        write(new, "\n".join(["---", "orphan: true", "---", f"# {target}", "", *names]))
        for file in files:
            add(folder, file)
    elif target.endswith(".py"):
        copy(path, new.with_suffix(""))
        code = f"```{{literalinclude}} {path.name}\n:language: python\n```\n"
        write(new, f"---\norphan: true\n---\n# {target}\n\n{code}")
    elif target.endswith(".ipynb"):
        book = json.loads(path.read_text(encoding="utf-8"))
        for cell in book["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = relinked("".join(cell["source"]), target)[0]
        write(new, json.dumps(book))
    else:
        copy(path, new)
        if path.suffix in IMAGES:  # for those in HTML, which Sphinx does not see
            copy(path, folder / "extra" / place(target))


def copy(path: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, new)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
