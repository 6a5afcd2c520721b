"""What is wrong with a site that was built."""

import importlib
import inspect
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from scripts.site import api
from scripts.site.pages import ROOT

LINK = re.compile(r"<(\w+)\b[^>]*?\b(?:href|src)=\"([^\"]*)\"")
ID = re.compile(r"\bid=\"([^\"]+)\"")
ENTRY = re.compile(r"<dt class=\"sig [^>]*\bid=\"([^\"]+)\"")


def faults(site: Path) -> list[str]:
    """Links that lead nowhere, what needs the network, and names that are missing."""
    pages = {
        path.relative_to(site).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.parts  # templates of the theme
    }
    found = [*links(site, pages), *names(pages), *local(pages)]
    if not (site / "searchindex.js").exists():
        found.append("searchindex.js: missing, so there is no search")
    return found


def links(site: Path, pages: dict[str, str]) -> list[str]:
    ids = {page: {*ID.findall(text)} for page, text in pages.items()}
    found = []
    for page, text in pages.items():
        for tag, link in sorted({*LINK.findall(text)}):
            link = link.replace("&amp;", "&")
            if re.match(r"\w+:|//", link):
                if tag != "a" and not link.startswith("data:"):
                    found.append(f"{page}: needs the network: {link}")
                continue
            path, _, anchor = link.partition("#")
            path = unquote(path.partition("?")[0])
            target = posixpath.join(posixpath.dirname(page), path) if path else page
            target = posixpath.normpath(target)
            if target not in pages and not (site / target).is_file():
                found.append(f"{page}: leads nowhere: {link}")
            elif anchor and target in ids and unquote(anchor) not in ids[target]:
                found.append(f"{page}: no such place: {link}")
    return found


def names(pages: dict[str, str]) -> list[str]:
    """Public names with no entry, or with one that lacks something."""
    entries: dict[str, str] = {}
    for page, text in pages.items():
        if page.startswith("api/"):
            _, *parts = ENTRY.split(text)
            entries |= dict(zip(parts[::2], parts[1::2], strict=True))
    found = []
    for package in api.PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            text = entries.get(f"{package}.{name}")
            if text is None:
                found.append(f"{package}.{name}: on no page of the API")
                continue
            missing = [
                word for word in needed(getattr(module, name)) if word not in text
            ]
            found += [f"{package}.{name}: without {word}" for word in missing]
    return found


def needed(thing: object) -> list[str]:
    """What an entry has to have."""
    if inspect.isfunction(thing):
        fields = [f'{title}<span class="colon">:' for title in ("Returns", "Raises")]
        return ["sig-paren", "[source]", *fields]
    if inspect.isclass(thing):
        return ["[source]", *["sig-paren"] * bool(inspect.signature(thing).parameters)]
    return []


def local(pages: dict[str, str]) -> list[str]:
    """Places of the machine that the site was built on."""
    places = [str(ROOT), f"{Path.home()}/"]
    return [f"{p}: has {a}" for p, text in pages.items() for a in places if a in text]
