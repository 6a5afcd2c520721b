"""`python -m benchmarks real`: both scans train alike, and rows and tables say so."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from benchmarks.__main__ import main
from benchmarks.real import characters, ppo, recall, report, rssm
from benchmarks.real.cases import MODELS, SIZES, cases
from benchmarks.real.compare import Compared, apart, compare
from benchmarks.real.measure import both, measure, trainings
from benchmarks.real.training import Sizes, Training
from benchmarks.rows import append, case_of, newest_run
from benchmarks.scan.cases import AGAIN, OURS, PLAIN
from tests.tools.commands import idle, one_line

pytestmark = pytest.mark.usefixtures("as_users_have_it")
CPU = jax.devices("cpu")[0]


@pytest.mark.every(2)
@pytest.mark.parametrize("case", cases(size="tiny"), ids=lambda case: case.op)
def test_both_scans_train_alike(case):
    with jax.enable_x64(True):
        plain, ours = trainings(both(case, np.float64))
        assert {a.dtype for a in jax.tree.leaves(plain.state)} >= {np.dtype("float64")}
        found = compare(plain, ours, 6)
    assert found.same_start < 1e-10 and found.alone < 1e-12 and found.rounded < 1e-12
    assert found.first_loss != found.last_loss


def test_what_differs_is_seen():
    def training(scale):
        def step(state, key):
            x, n = state
            return (x * scale + 1, n + 1), x.sum()

        return Training(step, (jnp.array([1.0, -3.0]), jnp.int32(0)))

    one, other = training(2.0), training(2.0 + 1e-3)
    assert compare(one, one, 5)[:2] == (0, 0)
    assert 0 < compare(one, one, 5).rounded < 1e-5
    found = compare(one, other, 5)
    # that of one step does not grow with their number, that of all steps does
    assert 1e-4 < found.same_start < 1e-3 < found.alone
    losses = [-2.0, -2.0, -2.0]
    assert found[3:] == (losses[0], losses[-1])
    assert (
        apart(jnp.nan, jnp.ones(1)) == apart(jnp.ones(1), jnp.array(jnp.nan)) == jnp.inf
    )
    assert apart(jnp.zeros(2), jnp.zeros(2)) == 0


def test_advantages_are_sums_of_errors():
    """Of the temporal differences until the end of the episode, ever less of them."""
    T, N = 7, 3
    rng = np.random.default_rng(0)
    reward, value = rng.standard_normal((2, T + 1, N)).astype(np.float32)
    done = rng.random((T, N)) < 0.3
    none = (None,) * 3
    happened = ppo.Rollout(*none, None, value[:-1], reward[:-1], done)
    got = ppo.advantages(happened, jnp.asarray(value[-1]))
    on = ppo.DISCOUNT * ~done
    errors = reward[:-1] + on * value[1:] - value[:-1]
    for t in range(T):
        want, weight = np.zeros(N), np.ones(N)
        for k in range(t, T):
            want += weight * errors[k]
            weight = weight * on[k] * ppo.TRACE
        np.testing.assert_allclose(got[t], want, rtol=1e-4, atol=1e-5)


def test_minibatches_are_of_whole_environments():
    T, N = 3, 8
    first, steps = np.arange(N), np.arange(T * N).reshape(T, N)
    order = np.random.default_rng(0).permutation(N)
    firsts, (over_time,) = ppo.minibatches((first, (steps,)), order)
    assert sorted(firsts.ravel()) == list(range(N))
    for group, each in zip(firsts, over_time, strict=True):
        np.testing.assert_array_equal(each, steps[:, group])


def test_a_policy_forgets_what_has_ended():
    policy = ppo.Policy(4, jaxseq.scan, jnp.float32)
    seen = jnp.ones((5, 2, recall.SEEN))
    ended = jnp.zeros((5, 2), bool).at[3, 0].set(True)
    carry = jnp.ones((2, 4))
    weights = policy.init(jax.random.key(0), carry, (seen, ended))
    of = lambda carry: policy.apply(weights, carry, (seen, ended))[1]
    changed = (of(carry) != of(2 * carry)).any(-1)
    assert changed[:3].all() and changed[:, 1].all() and not changed[3:, 0].any()


def test_who_recalls_the_cue_is_rewarded():
    episodes = recall.start(jax.random.key(0), 64)
    right = wrong = ends = 0
    for key in jax.random.split(jax.random.key(1), 40):
        seen = recall.observe(episodes, jnp.float32)
        assert (seen[:, :-1].sum(-1) == episodes.new).all()
        known = episodes.cue
        right += recall.act(key, episodes, known)[1].sum()
        wrong += recall.act(key, episodes, known + 1)[1].sum()
        before, (episodes, _, done) = episodes, recall.act(key, episodes, known)
        assert (done == before.asked).all() and (episodes.new == done).all()
        assert (episodes.cue == before.cue)[~done].all()
        ends += done.sum()
    assert right == ends > 100 and wrong == 0


def test_latents_pass_gradients_straight_through():
    logs = jax.nn.log_softmax(jnp.arange(2.0 * rssm.CLASSES).reshape(2, -1))
    key = jax.random.key(0)
    z = rssm.latent(key, logs)
    assert z.shape == (2 * rssm.CLASSES,)
    np.testing.assert_allclose(z.reshape(2, -1).max(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(z.sum(), 2, rtol=1e-6)
    ramp = jnp.cos(jnp.arange(z.size))
    got = jax.grad(lambda logs: (rssm.latent(key, logs) * ramp).sum())(logs)
    want = jax.grad(lambda logs: (jnp.exp(logs).ravel() * ramp).sum())(logs)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_start_forgets_the_state():
    sizes = Sizes(2, 5, 4 * rssm.CLASSES, 8)
    w = rssm.init(jax.random.key(0), sizes.D, sizes.H, jnp.float32)
    batch = rssm.draw(jax.random.key(1), sizes, jnp.float32)
    first = jnp.zeros((5, 2), bool).at[3, 0].set(True)
    embedded = jax.random.normal(jax.random.key(2), (5, 2, sizes.H))
    key = jax.random.key(3)

    def states(embedded):
        return rssm.observe(w, embedded, batch._replace(first=first), key, jaxseq.scan)

    one, other = states(embedded), states(embedded.at[2].multiply(-30))
    changed = (one[2] != other[2]).any((-1, -2))
    assert changed[2].all() and changed[3].tolist() == [False, True]


def test_over_time_is_what_nnx_rnn_is():
    sizes = Sizes(3, 7, 4, 5)
    found = []
    for over_time in (characters.by_rnn, characters.by_jaxseq):
        rngs = characters.nnx.Rngs(0)
        model = characters.Model(sizes, 9, over_time, jnp.float32, rngs)
        found.append(model(jnp.arange(21).reshape(3, 7) % 9))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert len(characters.written(500)) >= 500 and found[0].std() > 0


def forgets(body, init, xs, **how):
    """A scan without gradients through the state."""
    return lax.scan(lambda s, x: body(lax.stop_gradient(s), x), init, xs, **how)


def test_other_steps_are_not_timed(monkeypatch):
    monkeypatch.setattr(jaxseq, "scan", forgets)
    (case,) = cases(["rssm"], "tiny")
    rows = measure(case, CPU, 3, 2)
    assert [row["contender"] for row in rows] == [PLAIN, OURS]
    assert all(row["median_ms"] is None for row in rows)
    assert all("other steps in float64, by" in row["reason"] for row in rows)


def test_a_run_and_its_table(tmp_path, capsys, monkeypatch):
    idle(monkeypatch)
    assert set(MODELS) == {*SIZES["tiny"]} == {*SIZES["default"]}
    args = ["real", "--results", str(tmp_path)]
    some = ["--size", "tiny", "--steps", "3", "--rounds", "2"]
    assert main([*args, *some, "--models", "characters"]) == 0
    assert "s left] characters training 2,6,4,8" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.jsonl")
    rows = newest_run(path)
    assert [row["contender"] for row in rows] == [PLAIN, OURS, AGAIN]
    for row in rows:
        assert row["reason"] is None and row["median_ms"] > 0 and row["steps"] == 3
        assert row["float64"]["same_start"] < 1e-10 and not row["same"]
        assert 0 < row["float32"]["last_loss"] < row["float32"]["first_loss"]
        assert row["compile_ms"] > 0 and row["temp_mb"] > 0
        assert {"jax", "jaxseq", "flax", "optax"} == set(row["versions"])
    before = path.read_text()
    assert main([*args, *some, "--models", "characters", "--resume"]) == 0
    assert path.read_text() == before
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.START}\nstale\n{report.END}\nafter\n")
    assert main([*args, "--report", "--page", str(page)]) == 0
    text = page.read_text()
    assert "stale" not in text and "3 steps" in text
    assert "\n| characters | 2,6,4,8 | " in text
    capsys.readouterr()
    assert "no rows" in one_line(
        capsys, main([*args[:1], "--report", "--results", str(tmp_path / "none")])
    )


def test_wrong_steps_are_exit_code_1(tmp_path, monkeypatch):
    run = importlib.import_module("benchmarks.real.run")
    row = {"contender": PLAIN, "median_ms": None}
    for reason, code in (("other steps in float64", 1), (None, 0)):
        rows = lambda case, *_, r=reason: [row | case._asdict() | {"reason": r}]
        monkeypatch.setattr(run, "measure", rows)
        args = ["real", "--rounds", "0", "--results", str(tmp_path)]
        assert main(args) == code


def test_the_table_has_the_ratios(tmp_path):
    (case,) = cases(["ppo"], "tiny")
    row = {**case._asdict(), "reason": None, "same": False, "iqr_ms": 1.0}
    row |= {"float64": Compared(2e-13, 3e-9, 4e-8, 2.0, 1.0)._asdict(), "steps": 9}
    row |= {"float32": Compared(3e-7, 0.5, 0.6, 2.0, 1.0)._asdict()}
    row |= {"versions": {"jax": "1"}, "commit": "c0ffee"}
    times = {PLAIN: 6.0, OURS: 4.0, AGAIN: 5.0}
    rows = [
        row | {"contender": name, "median_ms": ms, "compile_ms": ms**2, "temp_mb": 3}
        for name, ms in times.items()
    ]
    append(tmp_path / "cpu.jsonl", rows, run="1", device="cpu")
    assert {*map(case_of, newest_run(tmp_path / "cpu.jsonl"))} == {case}
    page = tmp_path / "page.md"
    page.write_text(f"{report.START}\n{report.END}\n")
    args = ["real", "--report", "--results", str(tmp_path), "--page", str(page)]
    assert main(args) == 0
    text = page.read_text()
    assert "| ppo | 8,6,8,8 | 6 | 1 | 1.50 | 1.20 | 2.25 | 1.00 |" in text
    of = "| ppo | 8,6,8,8 |"
    assert f"{of} float64 | 2.000 to 1.000 | 2e-13 | 3e-09 | 4e-08 |" in text
    assert f"{of} float32 | 2.000 to 1.000 | 3e-07 | 5e-01 | 6e-01 |" in text
