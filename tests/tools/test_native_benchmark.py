"""The benchmark of the native engine: who is measured, and what the page says."""

import json

import jax
import numpy as np
import pytest

import jaxseq
from benchmarks.__main__ import main
from benchmarks.cases import Case
from benchmarks.contender import Contender, call_of, compile_call, values
from benchmarks.contenders import jaxseq as ours
from benchmarks.native import peak, products, task
from benchmarks.native.bounds import steps
from benchmarks.native.cases import MEMBERS, PARTS, Asked, cases
from benchmarks.native.ensemble import ensemble
from benchmarks.native.measure import gflop
from benchmarks.native.parts import split
from benchmarks.native.problems import in_float32
from benchmarks.native.report import END, START, section
from benchmarks.native.traffic import calls, size, traffic
from benchmarks.problem import draw
from benchmarks.profile import Kernel
from jaxseq._kernels.cpu import compilers
from tests.tools.commands import one_line

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def test_cases():
    every = cases()
    assert len(every) == len(set(every)) and {part for part, _ in every} == {*PARTS}
    assert cases(["step"]) == [
        ("step", Case(op, "step", 1, 1, 128, 128)) for op in ("rnn", "lstm", "gru")
    ]
    assert {asked.case.dtype for asked in cases(["half"])} == {"bfloat16", "float16"}
    of = lambda op, part: gflop(Asked(part, Case(op, "forward", 1, 1, 2, 4)))
    assert of("peephole LSTM", "cells") == pytest.approx(192e-9)
    assert of("projected LSTM", "cells") is None
    assert of("lstm", "layers") == pytest.approx(192e-9)
    assert of("lstm", "ensemble") == pytest.approx(MEMBERS * 192e-9)


def test_float32_is_given_the_same_numbers():
    problem = draw(Case("lstm", "gradient", 2, 3, 4, 8, "bfloat16"))
    wide = in_float32(problem)
    assert wide.case == problem.case._replace(dtype="float32")
    pairs = jax.tree.leaves(wide[1:]), jax.tree.leaves(problem[1:])
    for got, given in zip(*pairs, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, given.astype(np.float32))


@pytest.mark.parametrize("mode", ["forward", "gradient"])
def test_each_member_of_an_ensemble_is_checked(mode):
    made = []

    def layer(problem, wrong=None):
        made.append(problem)
        if len(made) - 1 == wrong:
            (weights,) = problem.weights
            problem = problem._replace(weights=(weights._replace(b=2 * weights.b),))
        return ours.layer(problem, "scan")

    found = []
    for wrong in (None, MEMBERS - 2):
        made.clear()
        layers = {"scan": lambda problem, wrong=wrong: layer(problem, wrong)}
        asked = ensemble(Case("gru", mode, 2, 3, 4, 8), layers, jax.devices("cpu")[0])
        found.append(asked.check("scan", asked.contenders["scan"](1))["reason"])
        assert len(made) == MEMBERS and len({p.x.tobytes() for p in made}) == 1
    assert found[0] is None and found[1].startswith("other numbers: ")


def test_the_switch_is_put_back(monkeypatch):
    monkeypatch.setenv(task.SWITCH, "1")
    with pytest.raises(RuntimeError), task.turned_off():
        assert task.os.environ[task.SWITCH] == "0"
        raise RuntimeError
    assert task.os.environ[task.SWITCH] == "1"


@pytest.mark.skipif(compilers.compiler() is None, reason="no compiler")
def test_peak_and_bandwidths():
    found = peak.peaks([1, 2], seconds=0.01)
    assert [*found] == ["1", "2"] and min(found.values()) > 0
    memory, sizes = peak.bandwidths(2, [100, 1 << 16], largest=1 << 22, seconds=0.01)
    assert [*memory] == ["read", "write"] and [*sizes] == [100, 1 << 16]
    assert min(*memory.values(), *sizes.values()) > 0


def test_no_engine_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(jaxseq, "native_available", lambda: False)
    code = main(["native", "--results", str(tmp_path)])
    assert "no native engine" in one_line(capsys, code)


def checked(tmp_path, *asked):
    """The rows of a run in which nothing is timed."""
    if not jaxseq.native_available():
        pytest.skip("no native engine")
    how = ["--shapes", "2,3,4,8", "--rounds", "0", "--results", str(tmp_path)]
    assert main(["native", *asked, *how]) == 0
    (path,) = tmp_path.glob("*.jsonl")
    return path, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("mode", ["forward", "gradient"])
@pytest.mark.parametrize(
    "part, names",
    [
        ("half", {"native", "float32", "chunks", "torch"}),
        ("ensemble", {"native", "chunks", "scan", "flax"}),
    ],
)
def test_16_bits_and_ensembles(part, names, mode, tmp_path):
    _, rows = checked(tmp_path, "--parts", part, "--modes", mode)
    assert {row["contender"] for row in rows} == names
    wrong = [row for row in rows if row["reason"]]
    assert all(row["contender"] == "torch" for row in wrong), wrong
    assert len({row["dtype"] for row in rows}) == (2 if part == "half" else 1)
    assert {row["dtype"] for row in rows if row["contender"] == "torch"} <= {"bfloat16"}


@pytest.mark.parametrize("mode", ["forward", "gradient"])
def test_products(mode, tmp_path):
    _, rows = checked(tmp_path, "--parts", "products", "--modes", mode)
    of = lambda op: {row["contender"] for row in rows if row["op"] == op}
    assert of("lstm") == {"native", "products", "torch"}
    assert of("gru") == of("rnn") == {"native", "products"}
    assert all(row["reason"] is None for row in rows), rows
    engine = [row for row in rows if row["contender"] != "torch"]
    assert all(row["read_mb"] > row["write_mb"] > 0 for row in engine)


@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
def test_products_are_those_of_the_layer(op, native_library):
    """The engine is given and returns the same arrays, but for the program's."""
    problem = draw(Case(op, "gradient", 40, 3, 8, 16))

    def text(layer):
        f, args = call_of(layer, problem, jax.devices("cpu")[0])
        return compile_call(f, args)[0].as_text()

    def moved(layer):
        every = [of for call in calls(text(layer)) for of in call]
        return [[a for a in of if a.count(",")] for of in every]

    found = moved(products.layer(problem, "native"))
    assert found == moved(ours.layer(problem, "native"))
    Z = len(problem.weights[0].b)
    assert len(found) >= 6 and f"f32[3,40,{Z}]" in found[1], found  # z is saved
    z, w_h = np.zeros(Z), lambda h: jax.numpy.zeros(Z) + h[0]
    state = jax.numpy.zeros(16)
    state = jaxseq.LSTMState(state, state) if op == "lstm" else state
    update = products.CELLS[op][0].update
    jaxpr = jax.make_jaxpr(lambda z, s: update(z, s, w_h, None))(z, state)
    kinds = {e.primitive.name for e in jaxpr.eqns}
    assert not kinds & {"exp", "tanh", "logistic", "div", "pow"}, kinds


def test_wrong_products_have_no_time():
    case = Case("gru", "gradient", 2, 3, 4, 8)
    wanted = products.products(case, jax.devices("cpu")[0])
    problem = draw(case)
    bare = problem._replace(weights=(products.smaller(problem),))
    for own, wrong in ((bare, False), (problem, True)):
        f, args = call_of(layer := products.layer(own, "loop"), own, None)
        out = values(layer, own, jax.jit(f)(*args))
        one = Contender(lambda: None, lambda out=out: out)
        reason = wanted.check("products", one)["reason"]
        assert (reason is not None) == wrong, reason


TEXT = """
  %x.1 = f32[2,3]{1,0} parameter(0)
  %call.2 = (f32[4]{0}, /*index=1*/f32[2,3]{1,0}) custom-call(%x.1, s32[5]{0} %c), NAME
  %c = s32[5]{0} constant({...})
  %e = f32[4]{0} get-tuple-element(%call.2), index=0
  ROOT %r = f32[4]{0} custom-call(%e), custom_call_target="other"
""".replace("NAME", 'custom_call_target="jaxseq_native_forward_ab"')


def test_traffic():
    ((given, results),) = calls(TEXT)
    assert given == ["f32[2,3]", "s32[5]"] and results == ["f32[4]", "f32[2,3]"]
    assert size("f32[]") == 4 and size("pred[3,2]") == 6
    assert traffic(TEXT) == pytest.approx({"read_mb": 44e-6, "write_mb": 40e-6})


def test_bounds():
    many, few = (Case("lstm", "forward", B, 7, 8, 16) for B in (70, 7))
    matrix = 4 * 4 * 16 * 16
    for case, array, total in ((many, matrix, 3 * 7), (few, matrix // 2, 7)):
        found = steps(case, 2)
        assert found.array == array
        assert found.total == pytest.approx(1e-9 * total * matrix)
    gradient = few._replace(mode="gradient")
    assert steps(gradient, 2).total == 2 * steps(few, 2).total
    kernel = lambda name, start: Kernel(name, start, start + 1.0, 1.0)
    names = ["ffi_call.7", "copy.1", "ffi_call.2", "ffi_call.1", "ffi_call.4"]
    found = split([kernel(n, i + j) for j in (9, 0) for i, n in enumerate(names)])
    starts = [
        {part: [k.start for k in ks] for part, ks in one.items()} for one in found
    ]
    for j, one in zip((0, 9), starts, strict=True):
        assert one == {"forward": [j], "backward": [j + 2], "sums": [j + 3, j + 4]}
    assert split([kernel("ffi_call.1", 0), kernel("copy.1", 2)]) == []


def test_a_run_of_one_cell_and_its_page(tmp_path, capsys):
    asked = ["--parts", "cells", "--modes", "forward"]
    path, rows = checked(tmp_path, *asked)
    assert {row["contender"] for row in rows} == {"native", "chunks", "scan"}
    assert all(row["reason"] is None for row in rows)
    _, again = checked(tmp_path, *asked, "--resume")  # which has nothing left to do
    assert again == rows
    report = ["native", "--report", "--results", str(tmp_path), "--page"]
    assert "no rows" in one_line(capsys, main([*report, str(tmp_path / "page.md")]))
    path.write_text("".join(json.dumps(row) + "\n" for row in map(timed, rows)))
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{START}\n{END}\n")
    assert main([*report, str(page)]) == 0
    text = page.read_text()
    line = "| peephole LSTM | forward | chunks | 1.50 | 1.50 | 2,3,4,8 | 1.50 |"
    assert line in text
    assert "| peephole LSTM | forward | 2,3,4,8 | 2 |" in text
    assert (tmp_path / "native.png").exists()
    capsys.readouterr()


TIMES = {"native": 2.0, "chunks": 3.0, "scan": 5.0, "products": 1.6, "torch": 4.0}


def timed(row, **more):
    """As if it had been timed."""
    row = row | {"median_ms": TIMES[row["contender"]], "iqr_ms": 0.1, "cores": 2}
    row |= {"compile_ms": 10.0, "peaks": {"1": 10.0, "2": 20.0}, "rounds": 5}
    return row | more


def made(name, case, **more):
    row = {"contender": name, **case._asdict(), "part": "layers", "reason": None}
    row |= {"gflop": 0.02, "matmul_gflops": 16.0, "temp_mb": 4.0, "load": 0.1}
    row |= {"versions": {"jax": "1"}, "device": "cpu-new", "commit": "c0ffee"}
    return timed(row | {"time": "2026-01-01T00:00:00Z"}, **more)


def test_tables():
    few, many = (Case("lstm", "forward", B, 2, 3, 4) for B in (1, 64))
    rows = [made("native", few), made("chunks", few), made("native", many)]
    rows += [made("chunks", many, median_ms=1.0, compile_ms=5.0, temp_mb=8.0)]
    text = section(rows)
    assert "Commit c0ffee (2026-01-01)." in text
    assert "| lstm | forward | chunks | 1.00 | 0.50 | 64,2,3,4 | 1.50 |" in text
    assert "| lstm | forward | native | 1 | – | – | – | 50% (50 to 50) |" in text
    assert "| 1,2,3,4 | 10 | 50% | 62% | – |" in text  # the roofline
    costs = "| 0.75 | 0.50 | 64,2,3,4 | 1.50 | 1.00 | 1,2,3,4 |"
    assert f"| lstm | forward | chunks {costs}" in text
    gradient = few._replace(mode="gradient")
    text = section([*rows, made("native", gradient, commit="f00d")])
    assert "**The rows are of 2 commits.** c0ffee (2026-01-01): layers for" in text
    assert "f00d (2026-01-01): layers gradient." in text


def test_tables_of_products():
    of = {"part": "products", "gflop": 0.02, "read_mb": 8.0, "write_mb": 3.0}
    of |= {"bandwidth": {"read": 40.0, "write": 10.0, "weights": 20.0}}
    case = Case("lstm", "gradient", 64, 2, 3, 100)
    parts = {"forward": 0.5, "backward": 0.8, "sums": 0.4, "rest": 0.3}
    rows = [made("native", case, **of, parts=parts)]
    rows += [made("products", case, **of, parts=parts), made("torch", case, **of)]
    text = section(rows)
    assert "#### Products alone" in text and "Every measurement" not in text
    assert "| lstm | gradient | products | 0.80 | 0.80 | 64,2,3,100 | 0.80 |" in text
    weights = 2 * 2 * 2 * 160_000 / 20e6
    line = f"| 0.02 | 1 | {weights:.3g} | 0.5 | 1.6 | 2 | 4 | 2.50 |"
    assert f"| lstm | 64,2,3,100 {line}" in text
    assert "2.50 times as fast as PyTorch (gradient, the median" in text
    N, Z = 128, 400
    share = 100 * 2e-9 * N * Z * 103 / 0.5e-3 / 20
    assert f"| lstm | 64,2,3,100 | 0.5 | {share:.0f}% | 0.8 |" in text
    assert "Products alone" not in section([made("native", case)])
