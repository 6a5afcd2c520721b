"""The documentation as a site: links, pages of names, and the check of all of it."""

import re
from pathlib import Path

import pytest

import jaxseq.convert
import jaxseq.linen
import jaxseq.nn
from scripts.site import __main__ as site
from scripts.site import api, check, pages

ROOT = Path(__file__).parents[2]
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in pages.pages()}


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("docs/index.md", "index.md"),
        ("docs/rl.md", "rl.md"),
        ("jaxseq/__init__.py", "api/index.md"),
        ("docs/tasks/tag.md", "tasks/tag.md"),
        ("docs/update.svg", "update.svg"),
        ("experiments/README.md", "experiments/index.md"),
        ("experiments/memory/gradients.png", "experiments/memory/gradients.png"),
        ("examples/cells/mgu.py", "source/examples/cells/mgu.py.md"),
        ("tests/networks", "source/tests/networks/index.md"),
        ("experiments/cost/results.jsonl", "files/experiments/cost/results.jsonl"),
    ],
)
def test_where_files_lie_in_the_site(path, place):
    assert pages.place(path) == place


def test_no_two_pages_lie_in_one_place():
    assert len({pages.place(page) for page in TEXTS}) == len(TEXTS)


def test_links_are_those_of_the_site():
    text = "[a](../rl.md#x) [b](../../README.md) ![c](../../benchmarks/results/a.png)\n"
    text += "[d](#here) [e](https://a.b) [f](../../examples/uses/tagger.py)\n"
    code = "```md\n[a](../../README.md)\n```\n"
    got, targets = pages.relinked(text + code, "docs/tasks/tag.md")
    want = "[a](../rl.md#x) [b](../overview.md) ![c](../benchmarks/results/a.png)\n"
    want += "[d](#here) [e](https://a.b) [f](../source/examples/uses/tagger.py.md)\n"
    assert got == want + code
    linked = {"docs/rl.md", "README.md", "benchmarks/results/a.png"}
    assert targets == linked | {"examples/uses/tagger.py"}


def test_links_in_html_are_those_of_the_site():
    text = '<a href="memory/README.md"><img src="memory/gradients.png"></a>'
    got, targets = pages.relinked(text, "experiments/README.md")
    assert got == '<a href="memory/index.html"><img src="memory/gradients.png"></a>'
    assert targets == {
        "experiments/memory/README.md",
        "experiments/memory/gradients.png",
    }


def test_a_page_has_one_title():
    text = "# A\n\n```sh\n# no title\n```\n\n## B\n"
    assert pages.one_title(text, "a/README.md") == text
    got = pages.one_title(text + "# C\n", "examples/README.md")
    want = "# Examples\n\n## A\n\n```sh\n# no title\n```\n\n### B\n## C\n"
    assert got == want


def test_every_page_is_in_the_menu():
    listed = {entry for entries in pages.MENU.values() for entry in entries}
    listed = {re.sub(r".*<(.*)>", r"\1", entry) + ".md" for entry in listed}
    below = [re.compile(p.replace("*", "[^/]+") + ".md") for p in pages.UNDER.values()]
    for page in {pages.place(page) for page in TEXTS} - {"index.md"}:
        assert page in listed or any(p.fullmatch(page) for p in below), page


def test_every_page_is_linked_from_the_front_page():
    _, targets = pages.relinked(TEXTS["docs/index.md"], "docs/index.md")
    rest = {page for page in TEXTS if page.startswith("docs/")} - {"docs/index.md"}
    assert rest <= targets


def test_every_name_is_on_one_page_of_the_api():
    text = "\n".join(text for name, text in api.pages().items() if name != "index.md")
    directive = r"^\.\. (?:auto\w+|py:data):: (\w+)$"
    found = sorted(re.findall(directive, text, re.MULTILINE))
    packages = [jaxseq, jaxseq.nn, jaxseq.linen, jaxseq.convert]
    assert found == sorted(name for package in packages for name in package.__all__)


def test_equations_stand_above_their_functions():
    text = api.pages()["cells.md"]
    equation, function = "h_t = o_t ⊙ tanh(c_t)", ".. autofunction:: lstm\n"
    assert 0 < text.index(equation) < text.index(function)
    assert "```text\nh_t = φ(W_x x_t" in text and "<https://doi.org/" in text


def test_methods_are_those_of_the_library():
    assert api.members(jaxseq.nn.LSTM) == ["__call__", "params", "step", "zeros"]
    assert not api.members(jaxseq.LSTMState)


def test_names_in_docstrings():
    got = api.roles("`lstm`, `jaxseq.nn.LSTM`, `state`, `cell`; |x|", {"cell"})
    links = ":py:obj:`lstm <jaxseq.lstm>`, :py:obj:`jaxseq.nn.LSTM <jaxseq.nn.LSTM>`"
    assert got == rf"{links}, ``state``, ``cell``; \|x\|"
    assert api.name_of("Cell", "jaxseq.nn") == "jaxseq.nn.Cell"
    assert api.name_of("nn.Cell") == "jaxseq.nn.Cell"
    assert api.name_of("Network") is None


def test_code_in_pages_is_linked_if_it_is_sure_what_it_names():
    assert api.meant("nn.LSTM", "training") == "jaxseq.nn.LSTM"
    assert api.meant("nn.LSTM", "migrate/pytorch") is None  # that of PyTorch
    assert api.meant("lstm_init", "migration") == "jaxseq.lstm_init"
    assert api.meant("jaxseq.stack", "porting") == "jaxseq.stack"
    assert api.meant("GRU", "rl") is None  # that of which package?


LINKS = {
    "a.html#there": None,
    "a.html#nowhere": "b.html: no such place: a.html#nowhere",
    "c.html": "b.html: leads nowhere: c.html",
    "https://a.b": None,
    "": None,
}


@pytest.mark.parametrize("link", LINKS)
def test_what_the_check_says_of_links(link, tmp_path):
    (tmp_path / "a.html").write_text('<p id="there">')
    (tmp_path / "b.html").write_text(f'<a class="x" href="{link}">')
    (tmp_path / "searchindex.js").touch()
    found = [f for f in check.faults(tmp_path) if "API" not in f]
    assert found == ([LINKS[link]] if LINKS[link] else [])


def test_what_else_the_check_says(tmp_path):
    text = f'<script src="https://a.b/c.js"></script> <img src="d.png"> {ROOT}'
    (tmp_path / "api").mkdir()
    (tmp_path / "api/a.html").write_text(text)
    found = check.faults(tmp_path)
    for fault in (
        "api/a.html: needs the network: https://a.b/c.js",
        "api/a.html: leads nowhere: d.png",
        f"api/a.html: has {ROOT}",
        "jaxseq.lstm: on no page of the API",
        "searchindex.js: missing, so there is no search",
    ):
        assert fault in found


def test_a_folder_that_is_no_site_stays_as_it_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.setattr("sys.argv", ["site", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        site.main()
    assert stopped.value.code == 2 and "--out: expected" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_entry_has_all_that_is_asked_for():
    dt = '<dt class="sig sig-object py" id="jaxseq.lstm"><span class="sig-paren">'
    entry = dt + '[source]</dt>Returns<span class="colon">:'
    found = check.names({"api/a.html": entry})
    assert 'jaxseq.lstm: without Raises<span class="colon">:' in found
    found = check.names({"api/a.html": entry + 'Raises<span class="colon">:'})
    assert not [fault for fault in found if fault.startswith("jaxseq.lstm:")]


def test_results_are_those_of_the_experiments():
    """Numbers with a fraction in the pages of tasks."""
    known = "".join(t for page, t in TEXTS.items() if page.startswith("experiments/"))
    for page, text in TEXTS.items():
        if page.startswith("docs/tasks/"):
            prose = pages.FENCE.sub("", text)
            for number in re.findall(r"\d+\.\d+", prose):
                assert number in known, (page, number)


def test_the_gallery_has_every_experiment_once_and_its_numbers():
    page = TEXTS["experiments/README.md"]
    figures, _, table = page.partition("</table>")
    shown = re.findall(r'<a href="(\w+)/README.md"><img src="\1/[\w-]+\.png"', figures)
    folders = [p.split("/")[1] for p in TEXTS if re.match(r"experiments/\w+/", p)]
    assert sorted(shown) == sorted(folders)
    for caption in re.findall(r"</a><br>(.*?)</td>", figures):
        for number in re.findall(r"\d[\d.,e-]*\d|\d", caption):
            assert number in table, number
