"""Reinforcement learning: the tasks, the update, and what memory is good for."""

import json
import sys
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxseq
from experiments.frame.checkpoint import Checkpoints
from experiments.rl import page, ppo, tasks
from experiments.rl.__main__ import main
from experiments.rl.policy import make, open_gates
from experiments.rl.settings import Settings
from experiments.rl.training import Training, episodes, row
from tests.experiments.helpers import error, interrupt, refused, same_runs

SMALL = Settings(length=3, hidden=8, seeds=2, envs=4, rollout=24, chunk=12, burn_in=5,
                 minibatches=2, epochs=2, steps=5)  # fmt: skip
OPTIONS = "--length 3 --hidden 8 --seeds 2 --envs 4 --rollout 24 --chunk 12".split()
OPTIONS += "--burn-in 5 --minibatches 2 --epochs 2".split()


def walk(task, seed, steps):
    """Random actions, anew where an episode is over: what was seen and what came."""
    chance, act = np.random.default_rng(seed), jax.jit(task.act)
    start, observe = jax.jit(task.start), jax.jit(task.observe)
    state, key = start(jax.random.key(seed)), jax.random.key(100 + seed)
    for t in range(steps):
        action = int(chance.integers(task.actions))
        if task.actions == 4 and task.width == 3 and chance.random() < 0.7:
            action = 1  # or it would never see the end
        out = act(key, state, action)
        yield state, np.asarray(observe(state)), action, out
        state = start(jax.random.key(1000 + 100 * seed + t)) if out.done else out.state


@pytest.mark.parametrize("seed", [0, 1])
def test_tmaze(seed):
    at = t = 0
    ends = []
    for state, x, action, out in walk(tasks.tmaze(4), seed, 120):
        up = bool(state.up)
        assert (int(state.at), int(state.t)) == (at, t)
        seen = ([1, 0, 1], [0, 1, 0])[at == 4] if at else ([1, 1, 0], [0, 1, 1])[up]
        assert x.tolist() == seen
        if at == 4 and action in (0, 2):
            right = (action == 0) == up
            want = (4 if right else -0.1, True, right)
        else:
            new = min(4, max(0, at + {1: 1, 3: -1}.get(action, 0)))
            want = (0 if new > at else -0.1, t == 11, False)
            at = new
        t += 1
        got = out.reward.item(), bool(out.done), bool(out.score)
        assert got == (pytest.approx(want[0]), *want[1:])
        if out.done:
            at, t, _ = 0, 0, ends.append(t)
    assert len(ends) > 10 and min(ends) < 12


def test_tmaze_runs_out_of_time():
    task, state = tasks.tmaze(2), tasks.tmaze(2).start(jax.random.key(0))
    for t in range(6):
        out = task.act(jax.random.key(0), state, 3)
        state = out.state
        assert bool(out.done) == (t == 5) and not out.score


@pytest.mark.parametrize("back", [1, 4])
def test_repeat(back):
    cards, right, total = [], 0, 0.0
    for i, (_, x, action, out) in enumerate(walk(tasks.repeat(back), back, 104)):
        cards.append(int(x.argmax()))
        assert sorted(x.tolist()) == [0, 0, 0, 1]
        asked = len(cards) > back
        good = asked and action == cards[-1 - back]
        right += good
        total += out.reward.item()
        assert out.reward.item() == pytest.approx(
            asked * (1 if good else -1) / (52 - back)
        )
        assert bool(out.done) == (i % 52 == 51)
        if out.done:
            assert sorted(cards) == sorted([0, 1, 2, 3] * 13)
            assert out.score.item() == pytest.approx(right / (52 - back))
            assert total == pytest.approx(2 * out.score.item() - 1, abs=1e-5)
            cards, right, total = [], 0, 0.0


def test_cartpole():
    """Against the equations of the paper, in float64."""
    ends = []
    for state, x, action, out in walk(tasks.cartpole(30), 0, 150):
        place, speed, angle, turning = (float(a) for a in state[:4])
        np.testing.assert_allclose(x, [place / 2.4, angle / np.deg2rad(12)], rtol=1e-5)
        g, m_c, m_p, half, force = 9.8, 1.0, 0.1, 0.5, (-10, 10)[action]
        cos, sin, m = np.cos(angle), np.sin(angle), m_c + m_p
        pulled = (-force - m_p * half * turning**2 * sin) / m
        turned = (g * sin + cos * pulled) / (half * (4 / 3 - m_p * cos**2 / m))
        moved = (force + m_p * half * (turning**2 * sin - turned * cos)) / m
        want = [place + 0.02 * speed, speed + 0.02 * moved, angle + 0.02 * turning,
                turning + 0.02 * turned]  # fmt: skip
        np.testing.assert_allclose(out.state[:4], want, rtol=1e-4, atol=1e-6)
        fallen = abs(want[0]) > 2.4 or abs(want[2]) > np.deg2rad(12)
        assert bool(out.done) == (fallen or int(out.state.t) == 30)
        assert out.reward.item() == 1
        if out.done:
            ends.append(int(out.state.t))
            assert out.score.item() == pytest.approx(ends[-1] / 30)
    assert min(ends) < 30


@cache
def trained(done):
    """The state after some updates, and what they told."""
    training = Training(replace(SMALL, done=done))
    told = [training.advance() for _ in range(4)]
    return jax.tree.map(np.asarray, (training.state, told))


both = pytest.mark.parametrize("done", ["last", "first"])


@pytest.mark.every(2)
@both
def test_the_first_ratio_is_one(done):
    """Of steps at the ends of episodes too, and where a rollout goes on."""
    _, told = trained(done)
    for one in told:
        assert (one.episodes > 4).all()
        assert (one.ratio < 1e-6).all()
        assert one.loss[0] != one.loss[1]  # of two seeds


def test_both_conventions_learn_the_same():
    states = trained("last")[0], trained("first")[0]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


def ratio_of_second_rollout(done, begin="stored"):
    """The furthest from 1, by weights of some size, none of which has changed."""
    settings = replace(SMALL, done=done, begin=begin, burn_in=0)
    task = tasks.tmaze(3)
    of_run = settings, task, make(settings, task.actions)
    state = jax.jit(partial(ppo.begin, *of_run))(jax.random.key(0))
    larger = lambda w: 30 * w if w.shape[-1] == task.actions else w
    weights = jax.tree.map(larger, state.weights)
    collect, running = jax.jit(partial(ppo.collect, *of_run)), state.running
    for key in jax.random.split(jax.random.key(1)):
        running, seen, did, ended = collect(weights, running, key)
    assert ended[2] > 4
    given = ppo.chunks(settings, seen, did, did.value, did.value)
    loss = jax.jit(lambda *args: ppo.loss_of(args[0], settings, of_run[2], args[1]))
    return loss(weights, given)[1].item()


@pytest.mark.every(2)
@both
def test_resets_one_step_off_are_noticed(done, monkeypatch):
    """As flags of one convention are that are read as those of the other."""
    assert ratio_of_second_rollout(done) < 1e-6
    with jax.enable_x64(True):
        assert ratio_of_second_rollout(done) < 1e-13
    plain, other = ppo.told_apart, {"last": "first", "first": "last"}
    wrong = lambda convention, *flags: plain(other[convention], *flags)
    monkeypatch.setattr(ppo, "told_apart", wrong)
    assert ratio_of_second_rollout(done) > 1e-3


def test_without_the_stored_state_the_ratio_is_not_one():
    assert ratio_of_second_rollout("last", "zeros") > 1e-3


def test_told_apart():
    ends = np.random.default_rng(0).random((9, 3)) < 0.3
    before = np.array([True, False, True])
    first = np.concatenate([before[None], ends[:-1]])
    for convention, flags in (("last", ends), ("first", first)):
        got = ppo.told_apart(convention, *map(jnp.asarray, (flags, before, ends[-1])))
        np.testing.assert_array_equal(got[0], first)
        np.testing.assert_array_equal(got[1], ends)


def test_advantages():
    """Sums of discounted errors up to the end of an episode, written out."""
    chance, T, N = np.random.default_rng(0), 12, 3
    value, reward = chance.standard_normal((2, T, N))
    done, last = chance.random((T, N)) < 0.2, chance.standard_normal(N)
    given = ppo.Done(*map(jnp.asarray, (value, value, value, reward, done)))
    got = ppo.advantages(SMALL, given, jnp.asarray(last))
    after = np.concatenate([value[1:], last[None]])
    error = reward + np.where(done, 0, 0.99 * after) - value
    for t in range(T):
        for n in range(N):
            want = 0.0
            for k in range(t, T):
                want += (0.99 * 0.95) ** (k - t) * error[k, n]
                if done[k, n]:
                    break
            assert got[t, n].item() == pytest.approx(want, abs=1e-5)


def test_what_is_learnt_from(monkeypatch):
    """By weights that stay: returns, the value after a rollout, and advantages."""
    seen = []
    plain, plain_cut = ppo.advantages, ppo.chunks
    keep = lambda *arrays: seen.append(jax.tree.map(np.asarray, arrays))

    def advantages(settings, done, last):
        found = plain(settings, done, last)
        jax.debug.callback(keep, done, last, found)
        return found

    def cut(settings, window, done, advantage, goal):
        jax.debug.callback(keep, advantage, goal)
        return plain_cut(settings, window, done, advantage, goal)

    monkeypatch.setattr(ppo, "advantages", advantages)
    monkeypatch.setattr(ppo, "chunks", cut)
    settings = replace(SMALL, learning_rate=0.0, epochs=1, minibatches=1)
    task = tasks.tmaze(3)
    of_run = settings, task, make(settings, task.actions)
    update = jax.jit(partial(ppo.update, *of_run))
    state, told = jax.jit(partial(ppo.begin, *of_run))(jax.random.key(0)), []
    for key in jax.random.split(jax.random.key(1), 2):
        state, one = update(state, key)
        told.append(jax.tree.map(np.asarray, one))
        jax.effects_barrier()
    of_first, of_cut = sorted(seen[:2], key=len, reverse=True)
    (done, last, found), of_second = of_first, max(seen[2:], key=len)
    np.testing.assert_allclose(last, of_second[0].value[0], rtol=1e-5)
    np.testing.assert_allclose(of_cut[1], found + done.value, rtol=1e-5, atol=1e-6)
    want = (found - found.mean()) / found.std()
    np.testing.assert_allclose(of_cut[0], want, rtol=1e-4, atol=1e-5)
    reward, ended = (
        np.concatenate([getattr(of[0], name) for of in (of_first, of_second)])
        for name in ("reward", "done")
    )
    returns, gained = [], np.zeros(settings.envs)
    for now, over in zip(reward, ended, strict=True):
        gained = gained + now
        returns.append(gained[over].sum())
        gained = np.where(over, 0, gained)
    halves = np.array(returns).reshape(2, -1).sum(1)
    np.testing.assert_allclose([t.returns for t in told], halves, rtol=1e-4)
    assert [t.episodes for t in told] == ended.reshape(2, -1).sum(1).tolist()


def test_loss():
    """Of steps written out, in float64; nothing is learnt from the burn-in."""
    with jax.enable_x64(True):
        chance, (n, L, C) = np.random.default_rng(0), (5, 12, 3)
        policy = make(SMALL, 4)
        draw = lambda *shape: jnp.asarray(chance.standard_normal(shape))
        flags = lambda *shape: jnp.asarray(chance.random(shape) < 0.2)
        seen = ppo.Seen(draw(C, n + L, 3), flags(C, n + L), draw(C, SMALL.hidden))
        action = jnp.asarray(chance.integers(4, size=(C, L)))
        now = lambda a: a.swapaxes(0, 1)
        memory, x, resets = seen.memory, now(seen.x), now(seen.resets)
        weights = policy.init(jax.random.key(0), memory, x, resets)
        weights = jax.tree.map(lambda w: w + 0.3 * draw(*w.shape), weights)
        logits, value = map(now, policy.apply(weights, memory, x, resets)[1:])
        logits, value = np.asarray(logits)[:, n:], np.asarray(value)[:, n:]
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        chosen = np.take_along_axis(probs, np.asarray(action)[..., None], -1)[..., 0]
        old, advantage, goal = 0.3 * draw(C, L) - 1.4, draw(C, L), draw(C, L)
        ratio = chosen / np.exp(old)
        assert (ratio < 0.8).any() and (ratio > 1.2).any()
        gain = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
        entropy = -(probs * np.log(probs)).sum(-1)
        want = np.mean((value - goal) ** 2 / 4 - gain - 0.01 * entropy)
        rest = ppo.Done(action, old, *[jnp.zeros((C, L))] * 3), advantage, goal

        def loss(x):
            given = ppo.Chunks(seen._replace(x=x), *rest)
            return ppo.loss_of(weights, SMALL, policy, given)

        (got, off), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(seen.x)
        np.testing.assert_allclose(got, want, rtol=1e-12)
        np.testing.assert_allclose(off, np.abs(ratio - 1).max(), rtol=1e-12)
        assert not grad[:, :n].any() and grad[:, n:].any()


class Counting:
    """In the place of a policy: right at each third step of an episode, else left."""

    zeros = staticmethod(lambda N: jnp.zeros((N, 1), int))

    def apply(self, _, memory, x, resets):
        memory = jnp.where(resets[0, :, None], 0, memory) + 1
        right = jnp.where(memory % 3 == 0, 1.0, -1.0)
        logits = jnp.concatenate([jnp.zeros_like(right), right], 1)
        return memory, logits[None], right.T


def test_episodes_of_the_test():
    """Each from a fresh state to its own end; what comes after is not counted."""
    task, N, key = tasks.cartpole(30), 8, jax.random.key(3)
    run = jax.jit(partial(episodes, task, Counting(), None, N=N))
    returns, scores = run(key=key)
    lengths, act = [], jax.jit(task.act)
    for one in jax.random.split(jax.random.split(key)[0], N):
        state, done, t = task.start(one), False, 0
        while not done:
            t += 1
            state, _, done, _ = act(one, state, int(t % 3 == 0))  # which draws nothing
        lengths.append(t)
    assert len(set(lengths)) > 1 and max(lengths) < 30
    assert returns.item() == pytest.approx(np.mean(lengths))
    assert scores.item() == pytest.approx(np.mean(lengths) / 30)


def test_chunks():
    T, N, b, L = 24, 4, 5, 12
    x = np.arange((b + T) * N).reshape(b + T, N)
    over = x[b:]
    seen = ppo.Seen(
        jnp.asarray(x)[..., None], jnp.asarray(x), jnp.asarray(x)[..., None]
    )
    done = ppo.Done(*[jnp.asarray(over)] * 5)
    got = ppo.chunks(SMALL, seen, done, jnp.asarray(over), jnp.asarray(2 * over))
    for i in range(2 * N):
        c, n = divmod(i, N)
        np.testing.assert_array_equal(got.seen.resets[i], x[c * L : c * L + b + L, n])
        assert got.seen.memory[i, 0] == x[c * L, n]
        want = over[c * L : (c + 1) * L, n]
        np.testing.assert_array_equal(got.done.action[i], want)
        np.testing.assert_array_equal(got.advantage[i], want)
        np.testing.assert_array_equal(got.goal[i], 2 * want)


@pytest.mark.parametrize("network", ["gru", "lstm"])
def test_gates_that_begin_open(network):
    init = getattr(jaxseq, f"{network}_init")
    weights = open_gates(init, network, 20, jax.random.key(0), 3, 64)
    plain = init(jax.random.split(jax.random.key(0))[0], 3, 64)
    np.testing.assert_array_equal(weights.w_h, plain.w_h)
    keep = jax.nn.sigmoid(weights.b[64:128])  # of z, and of f
    steps = 1 / (1 - keep)
    assert 1.9 < steps.min() < 4 and 16 < steps.max() < 20.1
    if network == "lstm":
        np.testing.assert_allclose(weights.b[:64], -weights.b[64:128])


def test_memory_solves_the_maze_and_nothing_else_does(tmp_path, capsys):
    """As a user trains, and the pages."""
    out = tmp_path / "out"
    command = ["train", "--out", str(out), "--network", "gru", "mlp", "--length", "5"]
    command += "--seeds 2 --envs 16 --rollout 64 --chunk 32 --burn-in 8".split()
    command += ["--steps", "60"]
    command += ["--learning-rate", "0.005"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    scores = {}
    for network in ("gru", "mlp"):
        run = out / "tmaze" / network
        result = json.loads((run / "result-test.json").read_text())
        scores[network] = result["of_seeds"]
        assert (run / "report.html").exists() and (run / "returns.png").exists()
        curve = json.loads((run / "curve.json").read_text())
        assert [r["step"] for r in curve["rows"]] == [*range(1, 61)]
    assert min(scores["gru"]) > 0.95
    assert all(0.4 < score < 0.6 for score in scores["mlp"])
    ratios = json.loads((out / "tmaze" / "gru" / "result-test.json").read_text())
    assert ratios["scores"]["ratio off by"] < 1e-5
    assert "| GRU | 1 |" in printed and "| MLP | 1 |" in printed
    assert (out / "returns-t-maze-of-5-steps.png").exists()
    assert "data:image/png;base64," in (out / "report.html").read_text()
    assert "holds a run already" in error(capsys, main(command))


def test_a_stopped_command_goes_on(tmp_path, monkeypatch, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = ["train", "--network", "gru", *OPTIONS, "--steps", "5"]
    assert main([*command, "--out", str(whole)]) == 0
    plain = Training.advance

    def advance(self):
        if self.step == 3:
            interrupt()
        return plain(self)

    monkeypatch.setattr(Training, "advance", advance)
    assert main([*command, "--out", str(cut), "--save-seconds", "0"]) == 130
    monkeypatch.undo()
    assert Checkpoints(cut / "tmaze" / "gru", read_only=True).facts()["step"] == 3
    assert not (cut / "report.html").exists()
    assert main([*command, "--out", str(cut), "--resume"]) == 0
    assert "Going on from step 3 of 5." in capsys.readouterr().out
    same_runs(whole / "tmaze" / "gru", cut / "tmaze" / "gru")


def test_rows_and_bands():
    told = [[[3.0, 0.0], [1.0, 0.0], [2, 0], [0.5, 1.5], [1e-7, 0.0]],
            [[5.0, 0.0], [1.0, 0.0], [2, 0], [1.5, 0.5], [0.0, 2e-7]]]  # fmt: skip
    made = row(7, told)
    assert made == {"step": 7, "loss": 1.0, "ratio": [1e-7, 2e-7],
                    "return": [2.0, None], "score": [0.5, None]}  # fmt: skip
    rows = [{"return": [1.0, None]}, {"return": [None, 4.0]}, {"return": [3.0, None]}]
    np.testing.assert_array_equal(
        page.filled(rows, "return"), [[1, 1, 3], [np.nan, 4, 4]]
    )
    values = np.random.default_rng(0).standard_normal((5, 3))
    mean, low, high = page.band(values)
    want = stats.t.interval(0.95, 4, values.mean(0), stats.sem(values))
    np.testing.assert_allclose((low, high), want)
    np.testing.assert_allclose(mean, values.mean(0))


def test_labels():
    label = lambda **how: page.label({**vars(SMALL), **how})
    assert label() == "GRU" and label(network="mlp", burn_in=0) == "MLP"
    assert label(begin="zeros", burn_in=0) == "GRU, from zeros, no burn-in"


def test_bad_options(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    train = partial(lambda *o: main(["train", "--out", str(out), *map(str, o)]))
    for options, message in (
        (["--task", "maze"], "--task maze: expected one of tmaze, repeat, cartpole"),
        (["--chunk", 60], "--chunk 60: not a divisor of --rollout 128"),
        (["--minibatches", 5], "--minibatches 5: not a divisor of 64"),
        (["--chunk", 64, "--burn-in", 65], "--burn-in 65: at most --chunk 64"),
        (["--seed", 2**31 - 4], f"--seed {2**31 - 4}: at most {2**31 - 5}, for all"),
        (["--network", "mlp", "--span", 9], "--span: changes nothing"),
        (["--network", "rnn", "--span", 9], "--span: changes nothing"),
        (["--task", "repeat", "--length", 52], "--length 52: less than 52"),
        (["--task", "gymnax:X", "--length", 5], "--length: changes nothing"),
    ):
        assert message in error(capsys, train(*options))
    assert "--network" in refused(capsys, main, "train", "--network", "transformer")
    assert "--burn-in" in refused(capsys, main, "train", "--burn-in", "-1")
    monkeypatch.setitem(sys.modules, "gymnax", None)
    line = error(capsys, train("--task", "gymnax:CartPole-v1"))
    assert "it needs gymnax: pip install 'jaxseq[rl]'" in line
    assert not out.exists()


def test_an_environment_of_gymnax():
    """Its cart-pole is that of the tasks, but that all of it is seen."""
    pytest.importorskip("gymnax")
    theirs, own = tasks.make("gymnax:CartPole-v1", 1), tasks.cartpole(500)
    assert (theirs.width, theirs.actions, theirs.longest) == (4, 2, 500)
    x, state, gained = theirs.start(jax.random.key(0))
    ours = tasks.Pole(*x, jnp.array(0))
    for t in range(40):
        action = jnp.array(t % 3 == 0, int)
        np.testing.assert_allclose(
            theirs.observe((x, state, gained)), ours[:4], rtol=1e-5
        )
        other, out = (
            theirs.act(jax.random.key(1), (x, state, gained), action),
            own.act(jax.random.key(1), ours, action),
        )
        assert other.reward == out.reward and other.done == out.done
        if out.done:
            break
        (x, state, gained), ours = other.state, out.state
    assert t > 5 and out.done and other.score == t + 1
