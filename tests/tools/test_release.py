"""What a release says of itself, and what its workflows and pages name, is there."""

import re
from pathlib import Path

import pytest

import jaxseq
from scripts import check_release

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
read = lambda path: (ROOT / path).read_text(encoding="utf-8")
GITHUB = ROOT / ".github"
WORKFLOWS = {p.name: yaml.safe_load(read(p)) for p in GITHUB.glob("workflows/*.yml")}
FORMS = [*GITHUB.glob("ISSUE_TEMPLATE/*.yml")]
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def jobs():
    return [job for flow in WORKFLOWS.values() for job in flow["jobs"].values()]


def steps():
    return [step for job in jobs() for step in job["steps"]]


def targets(text):
    """What is given to `make`: not its variables and options."""
    words = [
        word
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip().startswith("make ")
        for word in re.sub(r'\w+=("[^"]*"|\S+)', "", line).split()[1:]
    ]
    return {word for word in words if re.fullmatch(r"[a-z][\w-]*", word)}


def made():
    """The targets of all workflows, those of a matrix too."""
    found = set()
    for job in jobs():
        matrix = job.get("strategy", {}).get("matrix", {})
        for text in (step.get("run", "") for step in job["steps"]):
            for target in matrix.get("target", [""]):
                found |= targets(text.replace("${{ matrix.target }}", target))
    return found


def test_one_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    versions = re.findall(r"^## \[(.*)\] - (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == (jaxseq.__version__, str(citation["date-released"]))
    assert citation["version"] == jaxseq.__version__
    assert versions == sorted(versions, reverse=True)


def test_changes_stand_by_kind():
    assert set(re.findall(r"^### (.*)$", read("CHANGELOG.md"), re.MULTILINE)) <= {
        *KINDS
    }


def test_workflows_make_what_there_is():
    rules = set(re.findall(r"^([a-z][\w-]*):", read("Makefile"), re.MULTILINE))
    assert made() <= rules and "release-check" in made()


def test_workflows_run_what_must_pass():
    """`make test-newest` is `newest` and `test-in-newest`, one after the other."""
    own = targets(read(".ci/run"))
    assert {"lint", "test"} < own
    assert own - {"newest", "test-in-newest"} <= made() and "test-newest" in made()


def test_workflows_may_do_little():
    """They read the repository; one job asks PyPI for leave to publish."""
    for name, flow in WORKFLOWS.items():
        granted = [flow["permissions"]]
        granted += [
            j["permissions"] for j in flow["jobs"].values() if "permissions" in j
        ]
        more = [g for g in granted if g not in ({}, {"contents": "read"})]
        assert more == [{"id-token": "write"}] * (name == "release.yml")
    for step in steps():
        assert "${{" not in re.sub(r"\${{ matrix\.\w+ }}", "", step.get("run", ""))
        uses = step.get("uses", "@v1")
        assert re.search(r"@(v\d+(\.\d+\.\d+)?|release/v\d+)$", uses), uses
        if uses.startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


def test_extras_of_the_workflows():
    extras = {
        extra
        for step in steps()
        for names in re.findall(r"--extras (\S+?)[\s\"]", step.get("run", ""))
        for extra in names.split(",")
    }
    assert extras and extras <= set(check_release.EXTRAS)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms(path):
    form = yaml.safe_load(read(path))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": False}
        return
    assert form["name"] and form["description"]
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids) > 0
    for part in form["body"]:
        assert part["type"] in ("textarea", "input") and part["attributes"]["label"]
    assert any(part.get("validations") == {"required": True} for part in form["body"])


def test_rooms():
    """CONTRIBUTING names each folder of `jaxseq`."""
    there = {p.parent.name for p in (ROOT / "jaxseq").glob("*/__init__.py")}
    assert sorted(named_in("jaxseq/")) == sorted(f"{name}/" for name in there)


@pytest.mark.parametrize(
    ("title", "folder"),
    [
        ("jaxseq/_engine", "jaxseq/_engine"),
        ("jaxseq/_kernels/cpu", "jaxseq/_kernels/cpu"),
        ("src/", "jaxseq/_kernels/cpu/src"),
    ],
)
def test_files_of_the_engine(title, folder):
    """CONTRIBUTING names each file of the engine once."""
    there = [p for p in (ROOT / folder).iterdir() if p.suffix in (".py", ".h", ".cc")]
    there = {p.name.removesuffix(".py") for p in there} - {"__init__"}
    known = {"module.cc", "kernel.cc"}  # which the text above the table explains
    assert sorted(named_in(title)) == sorted(there - known)


def named_in(title):
    """The names in the first column of a table."""
    table = read("CONTRIBUTING.md").partition(f"| in `{title}` |")[2]
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall("`(.+?)`", row.split("|")[1])]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_paths_of_pages_are_there(page):
    text = read(page)
    links = re.findall(r"\]\((?!https://)([^)#\s]+)", text)
    folders = "docs|examples|experiments|benchmarks|tests|scripts|jaxseq"
    named = re.findall(rf"`((?:{folders})/[\w./-]+)`", text)
    for path in [*links, *named]:
        ok = (ROOT / path).exists() or (ROOT / f"{path}.py").exists()
        assert ok or path in NEW, path


# what the walks of CONTRIBUTING add
NEW = {
    "examples/cells/janet.py",
    "experiments/majority/",
    "tests/experiments/test_majority.py",
    "benchmarks/contenders/plain.py",
}


def test_commands_of_contributing_are_rules():
    rules = set(re.findall(r"^([a-z][\w-]*):", read("Makefile"), re.MULTILINE))
    named = re.findall(r"\bmake ([a-z][\w-]*)", read("CONTRIBUTING.md"))
    assert named and set(named) <= rules | {"sure"}


def test_links_of_readme_on_pypi():
    page = check_release.absolute(read("README.md"), "https://example.org/a", "v1")
    code = re.compile(r"```.*?```", re.DOTALL)
    links = re.findall(r"\]\(([^)]*)\)", code.sub("", page))
    assert links and all(link.startswith("https://example.org/a/") for link in links)
    assert "](https://example.org/a/blob/v1/docs/layers.md#" in page
    assert "](https://example.org/a/raw/v1/benchmarks/results/summary.png)" in page
    assert code.findall(page) == code.findall(read("README.md"))


def test_each_python_is_tried():
    (matrix,) = (
        job["strategy"]["matrix"]["python"]
        for job in jobs()
        if "python" in job.get("strategy", {}).get("matrix", {})
    )
    assert tuple(matrix) == check_release.VERSIONS


def test_each_extra_is_tried():
    extras = set(check_release.EXTRAS)
    rows = list(check_release.cases(["a", "b"], [*extras]))
    for python in ("a", "b"):
        own = {(c.kind, c.extra) for c in rows if c.python == python}
        assert own == {("wheel", e) for e in ("", *extras)} | {
            ("sdist", ""),
            ("sdist", "test"),
        }
    assert any(case.tests for case in rows)
    classifiers = " ".join(check_release.PROJECT["classifiers"])
    assert all(f":: {version}" in classifiers for version in check_release.VERSIONS)
