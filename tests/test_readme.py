"""The code of README and of docs/ runs as it stands there, and their claims hold."""

import os
import re
from functools import cache
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from flax import nnx

import jaxseq
import jaxseq.nn

os.environ.setdefault("KERAS_BACKEND", "jax")

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
README = PAGES["README.md"]
APART = "docs/porting.md"  # whose code needs what not all have; see test_porting.py
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
every_page = pytest.mark.parametrize("page", PAGES)


@cache
def run(page):
    """What the code of all blocks, run one after the other, defines."""
    names = {"__name__": page}
    # as a user has it
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        for block in BLOCK.findall(PAGES[page]):
            exec(block, names)
    return names


# NumPy warns of Keras's variables
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    "page", [p for p in PAGES if p != APART if "```python" in PAGES[p]]
)
def test_code_runs_block_after_block(page):
    for module in ("equinox", "keras", "torch"):
        if f"\nimport {module}" in PAGES[page]:
            pytest.importorskip(module)
    assert run(page)["jaxseq"] is jaxseq


DIFF = re.compile(r"```diff\n(.*?)```", re.DOTALL)
DIFFS = [(p, i) for p in PAGES for i in range(len(DIFF.findall(PAGES[p])))]


def side(diff, sign):
    """What a diff has before (-) or after it (+)."""
    lines = [line for line in diff.splitlines() if line[:1] in ("", " ", sign)]
    return "\n".join(line[1:] for line in lines)


@pytest.mark.parametrize(("page", "number"), DIFFS)
def test_before_and_after_are_the_same(page, number):
    """Of a diff of one line: what its two sides define, to rounding."""
    diff = DIFF.findall(PAGES[page])[number]
    assert [diff.count(f"\n{sign}") for sign in "-+"] == [1, 1]
    found = []
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        for sign in "-+":
            names = dict(run(page))
            exec(side(diff, sign), names)
            found.append([names["value"], *jax.tree.leaves(names["grads"])])
    assert found[0][0] > 0 and len(found[0]) > 1
    chex.assert_trees_all_close(*found, rtol=1e-5, atol=1e-6)


def test_what_is_left_to_lax_scan_is_said():
    """Every reason that the code gives stands there, and those of meshes apart."""
    source = (ROOT / "jaxseq" / "_scan" / "analysis.py").read_text(encoding="utf-8")
    lines = re.findall(r"(?:return|why =) (\".*)", source)
    given = {text for line in lines for text in re.findall(r"\"(.*?)\"", line)}
    _, *tables = PAGES["docs/scan.md"].split("| `explain` says |")
    rows = [table.partition("\n\n")[0].splitlines()[2:] for table in tables]
    first = [" ".join(row.split("|")[1] for row in some) for some in rows]
    everywhere, on_meshes = (set(re.findall(r"`(.*?)`", cells)) for cells in first)
    assert everywhere <= given <= everywhere | on_meshes


def test_what_explain_prints():
    page = run("docs/scan.md")
    with jax.enable_x64(False):
        text = jaxseq.explain(page["cell"], page["state"], page["x"])
    shown = re.search(r"```text\n(.*?)```", PAGES["docs/scan.md"], re.DOTALL)
    without = lambda text: re.sub(r"(\.py):\d+ ", r"\1 ", text).strip()
    assert without(text) == without(shown[1])


def test_the_model_of_the_readme_learns():
    assert run("README.md")["accuracy"] > 0.9


BELOW = re.compile(r"^print\((\w+)\)  # .*?below ([\d.]+)$", re.MULTILINE)


@pytest.mark.parametrize("page", [p for p in PAGES if BELOW.search(PAGES[p])])
def test_losses_are_as_low_as_is_said(page):
    """Where a page prints one, its comment has the bound."""
    for name, bound in BELOW.findall(PAGES[page]):
        assert run(page)[name] < float(bound)


def test_freezing_and_decay_of_a_module():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.lstm = jaxseq.nn.LSTM(3, 8, rngs=rngs)
            self.head = nnx.Linear(8, 4, rngs=rngs)

    model = Model(nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    no_grads = jax.tree.map(np.zeros_like, before)  # so that only decay is left
    page = run("docs/training.md")
    with jax.numpy_dtype_promotion("standard"):
        optimizer = nnx.Optimizer(model, page["part"], wrt=nnx.Param)
        optimizer.update(model, no_grads)
    after = jax.tree.leaves(nnx.state(model, nnx.Param))
    pairs = zip(jax.tree.leaves_with_path(before), after, strict=True)
    changed = [page["name"](path) for (path, old), new in pairs if (old != new).any()]
    assert changed == ["head/kernel"]


@pytest.mark.parametrize(("page", "most"), [("README.md", 26), ("docs/layers.md", 12)])
def test_the_first_example_is_short(page, most):
    """No line but its imports and blank ones is left out of the count."""
    first = BLOCK.findall(PAGES[page])[0]
    lines = [line for line in first.splitlines() if line.strip()]
    imports = [line for line in lines if re.match(r"(from|import) ", line)]
    assert any(line.startswith("import jaxseq") for line in imports)
    own = [line for line in lines if line not in imports]
    assert any("jaxseq." in line for line in own) and len(own) <= most


def modules():
    nn, how = jaxseq.nn, {"rngs": nnx.Rngs(0)}
    sizes = {"source_vocab": 5, "target_vocab": 6}
    transformer = {"features": 4, "num_heads": 2, "ff_features": 4}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    made = [
        nn.GRU(3, 4, num_layers=2, **how),
        nn.LSTM(3, 4, bidirectional=True, **how),
        nn.Seq2Seq(embed_features=4, hidden_features=4, **sizes, **how),
        nn.Transformer(**transformer, **layers, **sizes, **how),
        nn.MultiHeadAttention(4, num_heads=2, **how),
        nn.CRF(3, **how),
    ]
    return [nnx.state(module, nnx.Param) for module in made]


def test_paths_of_weights():
    leaves = jax.tree.leaves_with_path(jax.eval_shape(modules))
    names = [jax.tree_util.keystr(p[1:], simple=True, separator="/") for p, _ in leaves]
    table = PAGES["docs/training.md"].partition("| module |")[2].partition("\n\n")[0]
    found = re.findall(r"`(weights/[^`]+)`", table)
    assert len(found) > 15 and {f"{name}/value" for name in found} <= {*names}


def anchors(text):
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


@every_page
def test_links_lead_somewhere(page):
    if not (ROOT / "benchmarks").exists():
        pytest.skip("a source distribution has only a part of the pages")
    links = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", PAGES[page]))
    for link in links:
        assert "://" not in link, "a link to be checked by hand"
        path, _, anchor = link.partition("#")
        target = ROOT / Path(page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


def test_every_page_is_linked_from_the_readme():
    """Or from the first page of docs/, which is."""
    assert "(docs/index.md)" in README
    linked = re.sub(r"\]\(([^./])", r"](docs/\1", PAGES["docs/index.md"])
    for page in PAGES:
        assert page == "README.md" or f"({page})" in README + linked, page


WHY = README.partition("## Why")[2].partition("\n## ")[0]
ROW = r"^\| flax \| (\w+) \| ([\d.]+) .*? \| ([\d.]+) .*? \| ([\d.]+) .*? \| ([\d.]+) "
BENCHMARKS = ROOT / "benchmarks" / "README.md"
measured = pytest.mark.skipif(
    not BENCHMARKS.exists(), reason="no benchmarks in a source distribution"
)


@measured
def test_reasons_are_those_of_the_tables():
    """Medians over the shapes: of the three cells' times, and of the memory."""
    generated = BENCHMARKS.read_text(encoding="utf-8").partition("<!-- generated")[2]
    rows = re.findall(ROW, generated, re.MULTILINE)
    assert [mode for mode, *_ in rows] == ["forward", "gradient"] * 2
    for mode, *times, memory in rows:
        low, high = min(times, key=float), max(times, key=float)
        assert re.search(rf"\b{low}\s+to\s+{high}\b", WHY), (mode, low, high)
        assert mode == "forward" or memory in WHY


@measured
def test_reasons_have_no_number_of_their_own():
    pages = BENCHMARKS, BENCHMARKS.with_name("native.md")
    found = "".join(page.read_text(encoding="utf-8") for page in pages)
    known = set(re.findall(r"[\d.,]*\d", found + PAGES["docs/long-inputs.md"]))
    for number in re.findall(r"(?<![\w-])\d[\d.,]*\d(?!\w)", WHY):
        assert number in known, number
