"""Settings of Sphinx, and how it shows signatures, docstrings and names."""

import ast
import inspect
import re
import textwrap
from dataclasses import is_dataclass
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import jaxseq
from scripts.site import api

project = "jaxseq"
author = copyright = "the jaxseq authors"
version = release = jaxseq.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["extra"]
highlight_language = "none"
show_warning_types = True

nb_execution_mode = "off"  # they are committed with what they show
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # an included docstring has its levels

html_theme = "sphinx_book_theme"
html_title = "jaxseq"
html_extra_path: list[str] = []  # set below, for it lies where the pages do
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],  # the search is in the menu
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "github-dark",
}

autodoc_default_options = {"exclude-members": "__init__, __new__"}
napoleon_custom_sections = [("Fields", "params_style")]
napoleon_use_rtype = False
python_maximum_signature_line_length = 79
python_display_short_literal_types = True
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# types in signatures that are not documented here
nitpick_ignore_regex = [(r"py:.*", r"(?!jaxseq\.).*"), (r"py:.*", r"jaxseq\._.*")]


def signature(app, what, name, thing, options, given, returns):
    """As it is written in the source: `ArrayLike`, not all that it stands for."""
    if what not in ("class", "function", "method"):
        return None
    node: Any = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    if isinstance(node, ast.ClassDef):
        if hasattr(thing, "_fields") or is_dataclass(thing):
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
            text = ", ".join(map(ast.unparse, fields))
            text = re.sub(r" = field\(default=(.*?), metadata=.*?\)", r" = \1", text)
            text = re.sub(r" = field\(metadata=.*?\)", "", text)
            return f"({qualified(text)})", None
        source = textwrap.dedent(inspect.getsource(thing.__init__))
        node = ast.parse(source).body[0]
        node.returns = None
    of = node.args
    if what in ("class", "method"):
        (of.posonlyargs or of.args).pop(0)
    returns = node.returns and ast.unparse(node.returns)
    return f"({qualified(ast.unparse(of))})", returns


def qualified(text: str) -> str:
    """`Cell` is that of `jaxseq`, not that of `jaxseq.nn`."""
    return re.sub(r"(?<!\.)\bCell\b", "jaxseq.Cell", text)


def docstring(app, what, name, thing, options, lines):
    """Names become links, and what is indented under a paragraph is shown as code."""
    package = name.rpartition(".")[0]
    while package not in api.PACKAGES:
        package = package.rpartition(".")[0]
    try:
        parameters = {*inspect.signature(thing).parameters}
    except (TypeError, ValueError):
        parameters = set()
    text = "\n".join(lines)
    code = re.split(r"(^ *(?:>>>|\.\.\. ).*$)", text, flags=re.MULTILINE)
    code[::2] = [api.roles(part, parameters, package) for part in code[::2]]
    lines[:] = "".join(code).splitlines()


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """In the pages of `docs/`, code that is a public name leads to what it names."""
    page = app.env.docname
    if page.startswith(("api/", "source/", "experiments/", "benchmarks/", "_modules")):
        return
    for literal in list(doctree.findall(nodes.literal)):
        target = api.meant(literal.astext().partition("(")[0], page)
        inside = literal.parent
        while inside and not isinstance(inside, nodes.reference | nodes.title):
            inside = inside.parent
        if target and inside is None:
            how: Any = {"refdomain": "py", "reftype": "obj", "reftarget": target}
            link = addnodes.pending_xref("", refdoc=page, refexplicit=True, **how)
            literal.replace_self(link)
            link += literal


def setup(app: Sphinx) -> None:
    app.config.html_extra_path = [str(app.srcdir / "extra")]
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", docstring, priority=100)
    app.connect("doctree-read", link_names, priority=100)
