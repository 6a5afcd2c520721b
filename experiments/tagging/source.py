"""The source of Python's own library, every character with the kind of its token."""

import builtins
import io
import keyword
import sysconfig
import token
import tokenize
from pathlib import Path

from experiments import datasets
from experiments.frame.errors import InputError

# in every release from 3.11 on; no module is in two parts
MODULES = {
    "train": "argparse ast bdb calendar cmd codecs compileall configparser contextlib "
    "csv dataclasses difflib dis doctest fileinput fractions ftplib functools gettext "
    "gzip heapq imaplib inspect ipaddress locale mailbox mimetypes modulefinder "
    "optparse os pickle pkgutil platform plistlib poplib pprint profile pstats "
    "pydoc random selectors shutil site smtplib socket socketserver ssl statistics "
    "subprocess tarfile tempfile textwrap threading timeit trace traceback "
    "tracemalloc typing uuid warnings weakref webbrowser zipimport",
    "validation": "base64 enum posixpath sched",
    "test": "bisect copy datetime getopt pdb queue shelve string tokenize",
}


def tags_of(text: str) -> list[str]:
    """The kind of the token that each character belongs to, or "space"."""
    starts = [0]
    for line in io.StringIO(text):
        starts.append(starts[-1] + len(line))
    place = lambda at: starts[min(at[0], len(starts)) - 1] + at[1]
    tags, before = ["space"] * len(text), ""
    for found in tokenize.generate_tokens(io.StringIO(text).readline):
        tag = kind(found, before)
        if tag is not None and found.string.strip():
            low, high = place(found.start), place(found.end)
            tags[low:high] = [tag] * (high - low)
            before = found.string
    return tags


def kind(found: tokenize.TokenInfo, before: str) -> str | None:
    """What a token is, given the one before it; None for one without a meaning."""
    name = token.tok_name[found.type]
    if name == "NAME":
        if keyword.iskeyword(found.string):
            return "keyword"
        if before in ("def", "class"):
            return "definition"
        known = before != "." and hasattr(builtins, found.string)
        return "builtin" if known else "name"
    if "STRING" in name:  # and the parts of an f-string
        return "string"
    return {"NUMBER": "number", "COMMENT": "comment", "OP": "operator"}.get(name)


def modules() -> dict[str, list[tuple[str, list[str]]]]:
    """Texts with their tags: of each part the modules that are there."""
    folder = Path(sysconfig.get_path("stdlib"))
    parts = {}
    for part, names in MODULES.items():
        paths = [folder / f"{module}.py" for module in names.split()]
        texts = [datasets.read(path) for path in paths if path.is_file()]
        if not texts:
            raise InputError(f"--data python: no source of Python's library: {folder}")
        parts[part] = [(text, tags_of(text)) for text in texts]
    return parts
