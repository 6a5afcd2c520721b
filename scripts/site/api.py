"""Pages of the public names, in the groups of the packages' docstrings.

What is said of a name is its docstring, which Sphinx reads. The docstring of its module
stands before it if it is more than a line: equations and their source.
"""

import importlib
import inspect
import re
from typing import Any, NamedTuple

PACKAGES = ["jaxseq", "jaxseq.nn", "jaxseq.linen", "jaxseq.convert"]
GROUP = re.compile(r"^(\S.*)\n((?: {4}\w+(?:, \w+)*\n?)+)", re.MULTILINE)


class Group(NamedTuple):
    title: str
    lines: list[list[str]]  # of names

    @property
    def short(self) -> str:
        """The title without what explains it."""
        return re.split(r"[:,]", self.title)[0]

    @property
    def about(self) -> str:
        text = self.title.removeprefix(self.short + ":").strip()
        return f"{text[0].upper()}{text[1:]}."

    @property
    def page(self) -> str:
        return re.sub(r"\W+", "-", self.short.lower()) + ".md"


def groups(package: str) -> list[Group]:
    text = importlib.import_module(package).__doc__ or ""
    return [
        Group(title, [line.strip().split(", ") for line in lines.splitlines()])
        for title, lines in GROUP.findall(text)
    ]


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    shown: set[str] = set()
    made = {}
    for group in groups("jaxseq"):
        parts = [f"# {group.short}"]
        if group.short != group.title:
            parts.append(group.about)
        parts += [entries("jaxseq", line, shown) for line in group.lines]
        made[group.page] = "\n\n".join(parts)
    for package in PACKAGES[1:]:
        about, _, _ = (importlib.import_module(package).__doc__ or "").partition("\n\n")
        parts = [f"# {package}", about]
        for group in groups(package):
            parts.append(f"## {group.title}")
            parts += [entries(package, line, shown, "###") for line in group.lines]
        made[file_of(package)] = "\n\n".join(parts)
    return {"index.md": index(), **made}


def file_of(package: str) -> str:
    return package.removeprefix("jaxseq.") + ".md"


def index() -> str:
    """All names, each with the first line that is said of it."""
    parts = ["# API", "All public names. Each is on a page with its group."]
    order = []
    for package in PACKAGES:
        parts.append(f"## {package}")
        for group in groups(package):
            page = group.page if package == "jaxseq" else file_of(package)
            parts.append(f"### {group.short}")
            order += [] if page in order else [page]
            names = [name for line in group.lines for name in line]
            rows = [line for name in names for line in row(package, name)]
            parts.append(rst([".. list-table::", "   :class: names", "", *rows]))
    tree = ["```{toctree}", ":hidden:", *order, "```"]
    return "\n\n".join([*parts, "\n".join(tree), ""])


def row(package: str, name: str) -> list[str]:
    """Of a table: a name, and the first line that is said of it."""
    thing = getattr(importlib.import_module(package), name)
    about = inspect.getdoc(thing) or ""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        about = about_cell(name)
    line = roles(about.partition("\n")[0], set(), package)
    return [f"   * - :py:obj:`{name} <{package}.{name}>`", f"     - {line}"]


def entries(package: str, names: list[str], shown: set[str], level: str = "##") -> str:
    """What the modules of these names say, then the names one after the other."""
    things = [getattr(importlib.import_module(package), name) for name in names]
    parts = []
    for module in dict.fromkeys(thing.__module__ for thing in things):
        title, _, rest = (importlib.import_module(module).__doc__ or "").partition("\n")
        if rest.strip() and module not in shown:
            parts += [f"{level} {title.rstrip('.')}", markdown(rest)]
            shown.add(module)
    lines = [f".. currentmodule:: {package}"]
    for name, thing in zip(names, things, strict=True):
        lines += ["", *entry(name, thing)]
    return "\n\n".join([*parts, rst(lines)])


def entry(name: str, thing: Any) -> list[str]:
    if inspect.isclass(thing):
        methods = [m for m in members(thing) if m != "__init__"]
        lines = [f".. autoclass:: {name}"]
        if plain := [m for m in methods if not m.startswith("_")]:
            lines.append(f"   :members: {', '.join(plain)}")
        if "__call__" in methods:
            lines.append("   :special-members: __call__")
        return lines
    if callable(thing):
        return [f".. autofunction:: {name}"]
    text = roles(about_cell(name), set())
    return [f".. py:data:: {name}", "   :type: jaxseq.Cell", "", f"   {text}"]


def about_cell(name: str) -> str:
    of = name.lower()
    return f"The `Cell` of `{of}`: its update, `{of}_init` and `{of}_zeros`."


def members(kind: type) -> list[str]:
    """The methods of a class that are the library's own and documented."""
    return [
        name
        for name, method in inspect.getmembers(kind)
        if (inspect.isfunction(method) or isinstance(method, property))
        and (not name.startswith("_") or name == "__call__")
        and module_of(method).startswith("jaxseq")
        and method.__doc__
    ]


def module_of(method: Any) -> str:
    return getattr(method, "fget", method).__module__ or ""


def rst(lines: list[str]) -> str:
    return "\n".join(["```{eval-rst}", *lines, "```"])


def markdown(text: str) -> str:
    """A docstring as Markdown: addresses are links, what is indented is code."""
    text = re.sub(r"https://[^\s,;)]*[^\s,;).]", r"<\g<0>>", text.strip("\n"))

    def block(found: re.Match[str]) -> str:
        code = inspect.cleandoc(found[0])
        kind = "pycon" if code.startswith(">>>") else "python"
        kind = kind if code.startswith((">>>", "def ")) else "text"
        return f"```{kind}\n{code}\n```\n"

    return re.sub(r"(?:^ {4}.*\n?(?:\n(?= {4}))?)+", block, text, flags=re.MULTILINE)


NAMES = {package: set(importlib.import_module(package).__all__) for package in PACKAGES}


def roles(text: str, parameters: set[str], package: str = "jaxseq") -> str:
    """Public names in `…` become links, unless a parameter is called so."""

    def role(found: re.Match[str]) -> str:
        whole, name = found[1], found[1].removeprefix("jaxseq.")
        if name in parameters:
            return f"``{whole}``"
        target = name_of(whole, package)
        return f":py:obj:`{whole} <{target}>`" if target else f"``{whole}``"

    parts = re.split(r"(`+[^`]+`+)", text)
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]  # no substitution
    return re.sub(r"(?<![`:])`([^`]+)`(?!`)", role, "".join(parts))


# words that mean something else as often
COMMON = {"activation", "cell", "load", "sample", "save", "Cell", "GRU", "LSTM", "RNN"}
# pages that also speak of the names of other libraries
OTHERS = ("migrat", "porting")


def meant(text: str, page: str) -> str | None:
    """The full name of what code in a page names, unless it may be something else."""
    sure = "_" in text or text.startswith("jaxseq.")
    if text in COMMON or (page.startswith(OTHERS) and not sure):
        return None
    return name_of(text)


def name_of(text: str, package: str = "jaxseq") -> str | None:
    """The full name of what a text names, as it is said within a package."""
    for within in dict.fromkeys([package, "jaxseq"]):
        if text in NAMES[within]:
            return f"{within}.{text}"
    for within in PACKAGES:
        for prefix in (within, within.removeprefix("jaxseq.")):
            if (
                text.startswith(prefix + ".")
                and text[len(prefix) + 1 :] in NAMES[within]
            ):
                return f"{within}{text[len(prefix) :]}"
    return None
