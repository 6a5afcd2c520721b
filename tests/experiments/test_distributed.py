"""One run on several processes of this machine: the same losses, and how it ends."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.frame.checkpoint import Checkpoints
from tests.experiments.helpers import ROOT, arrays_of, refused

long = pytest.mark.skipif(
    "JAXSEQ_TEST_PROCESSES" not in os.environ,
    reason="JAXSEQ_TEST_PROCESSES is not set, as make test-long does",
)
FLOAT64 = "tests.experiments.float64"
TINY = "--hidden 16 --layers 2 --batch 8 --window 8 --length 5".split()
SECONDS = 240  # for which any of these may take; they have ended long before
HEARTBEAT = 15


def command(n, out, *options, module="experiments.language_model", text=None):
    """That of `n` processes; with text it is what they train on."""
    name = ["language_model"] if module == FLOAT64 else []
    options = [*name, "train", "--out", out, *TINY, *options]
    options += ["--data", text] if text else []
    launch = ["experiments.launch", n] if n > 1 else []
    return [sys.executable, "-m", *map(str, [*launch, module, *options])]


def environment(**more):
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return {**own, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", **more}


def finished(command, **env):
    how = {"cwd": ROOT, "env": environment(**env), "timeout": SECONDS}
    return subprocess.run(command, **how, capture_output=True, text=True)


def run(n, out, *options, env=None, **how):
    return finished(command(n, out, *options, **how), **(env or {}))


@pytest.fixture
def started():
    """Starts `n` processes, which end with the test."""
    launched = []

    def start(n, out, *options, **how):
        limits = ("--heartbeat-seconds", HEARTBEAT)
        with open(out.with_suffix(".err"), "w") as err:
            launched.append(
                subprocess.Popen(
                    command(n, out, *limits, *options, **how),
                    cwd=ROOT,
                    env=environment(),
                    stdout=subprocess.DEVNULL,
                    stderr=err,
                )
            )
        return launched[-1]

    yield start
    for each in launched:
        for child in [*children(each), each.pid]:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        each.wait()


def children(launcher):
    """Process ids by their rank, of those that are there."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            line = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == launcher.pid:
            rank = re.search(r",\d+,(\d+)\0$", line)
            found[int(rank[1])] = int(path.parent.name)
    return [found[rank] for rank in sorted(found)]


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def steps_saved(out):
    names = (out / "checkpoints").glob("*")
    return sorted(int(path.name) for path in names if path.name.isdigit())


def facts(out):
    return Checkpoints(out, read_only=True).facts()


def losses(out):
    found = facts(out)
    return np.array([r["loss"] for kind in ("train", "held_out") for r in found[kind]])


def same(one, other):
    """To the last bit: weights, optimizer and losses."""
    both = [arrays_of(Checkpoints(out, read_only=True)) for out in (one, other)]
    for a, b in zip(*both, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(losses(one), losses(other))


def lines(process):
    """What the user reads of an error."""
    told = re.compile(r"process \d of \d: ")
    return [line for line in process.stderr.splitlines() if told.search(line)]


def test_two_processes_are_as_one(tmp_path):
    """In float64, with dropout and carried states; only process 0 writes anything."""
    one = run(1, tmp_path / "1", "--steps", 12, module=FLOAT64)
    two = run(2, tmp_path / "2", "--steps", 12, module=FLOAT64)
    assert one.returncode == two.returncode == 0, two.stderr
    np.testing.assert_allclose(
        losses(tmp_path / "2"), losses(tmp_path / "1"), rtol=1e-12
    )
    assert facts(tmp_path / "1")["settings"]["dropout"] > 0
    # Gloo prints to the same place, a line in pieces
    told = lambda ran: re.findall(r"Held-out text: .*", ran.stdout)
    assert told(one) == told(two) and len(told(two)) == 1
    assert two.stdout.count("Report: ") == two.stdout.count("to train on") == 1
    files = lambda n: sorted(p.name for p in (tmp_path / n).iterdir())
    assert files("1") == files("2")


def test_a_signal_to_one_stops_all(tmp_path, started):
    """At the same step, which is saved; a run of one process goes on from there."""
    out = tmp_path / "run"
    launcher = started(2, out, "--steps", 100_000, "--save-seconds", 1)
    until(lambda: steps_saved(out))
    _, rank1 = children(launcher)
    os.kill(rank1, signal.SIGTERM)
    assert launcher.wait(SECONDS) == 130
    err = out.with_suffix(".err").read_text()
    step = int(re.search(r"Stopped at step (\d+) of", err)[1])
    assert steps_saved(out)[-1] == step
    ran = run(1, out, "--steps", step + 1, "--resume")
    assert ran.returncode == 0 and f"Going on from step {step}" in ran.stdout


def differ(tmp_path, what, *options):
    text = tmp_path / "text"
    text.write_text("abcd efgh\n" * 5000)
    return run(2, tmp_path / "run", *options, module="tests.experiments.differs",
               text=text, env={"DIFFERS": what})  # fmt: skip


@long
@pytest.mark.parametrize(
    "what, code, told",
    [
        ("option", 2, "error: the options differ from those of process 0: learning_ra"),
        ("text", 2, "error: the data differ from those of process 0: all"),
        ("folder", 2, "-of-another-host: expected a folder that all processes share"),
        ("disk", 2, "no space left for a checkpoint of"),
        ("signal", 130, "interrupted; what was saved is kept"),
    ],
)
def test_what_one_process_alone_has(tmp_path, what, code, told):
    """One line says which process it is, and all end."""
    ran = differ(tmp_path, what, "--steps", 5)
    assert ran.returncode == code, ran.stderr
    (line,) = lines(ran)
    assert "process 1 of 2: language_model: " in line and told in line


@long
def test_a_reader_that_has_enough(tmp_path):
    """It ends the processes that wait for process 0, too."""
    ran = differ(tmp_path, "pipe", "--steps", 5)
    assert ran.returncode == 0 and "Traceback" not in ran.stderr
    assert not (tmp_path / "run").exists()


@long
def test_a_stop_in_an_evaluation(tmp_path):
    """It is heard by all before the evaluation is over, which is done again."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    ran = differ(tmp_path, "evaluation", "--steps", 16)
    assert ran.returncode == 130, ran.stderr
    assert "Stopped at step 4 of 16" in ran.stderr
    assert [row["step"] for row in facts(out)["held_out"]] == [2]
    how = {"text": tmp_path / "text"}
    assert run(2, out, "--steps", 16, "--resume", **how).returncode == 0
    assert run(2, whole, "--steps", 16, **how).returncode == 0
    same(whole, out)


@long
@pytest.mark.parametrize("name", ["translation", "tagging"])
def test_batches_of_one_width_are_as_one(tmp_path, name):
    """The losses of 20 steps, in float64 with dropout, of lengths that differ."""
    found, options = [], ["train", "--steps", 20, "--hidden", 16]
    if name == "translation":
        draw, table = random.Random(0), tmp_path / "pairs.tsv"
        texts = (
            "".join(draw.choices("abc ", k=draw.randint(2, 40))) for _ in range(400)
        )
        table.write_text("".join(f"a{text}\ta{text[::-1]}\n" for text in texts))
        options += ["--data", table]
    for n in (1, 2, 4):
        out = tmp_path / str(n)
        launch = ["experiments.launch", n] if n > 1 else []
        words = [*launch, FLOAT64, name, *options, "--out", out]
        ran = finished([sys.executable, "-m", *map(str, words)])
        assert ran.returncode == 0, ran.stderr
        assert facts(out)["settings"]["dropout"] > 0
        found.append(losses(out))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-12)


@long
def test_several_runs_of_one_command(tmp_path):
    """Process 0 alone compares them, and reads their checkpoints for it."""
    out = tmp_path / "sweep"
    options = "--hidden 4 --batch 4 --steps 8 --lengths 10 --cells rnn gru".split()
    launch = [sys.executable, "-m", "experiments.launch", "2", "experiments.memory"]
    ran = finished([*launch, "sweep", "--out", str(out), *options])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(f"Report: {out / 'report.html'}") == 1
    assert len((out / "results.jsonl").read_text().splitlines()) == 2


def test_a_batch_that_devices_cannot_share(tmp_path):
    ran = run(2, tmp_path / "run", "--steps", 5, "--batch", 7)
    assert ran.returncode == 2
    assert (
        "error: --batch 7: expected a multiple of 2, the number of devices"
        in ran.stderr
    )


@pytest.mark.parametrize(
    "address", ["host", "host:1,2", "host:1,2,2", "host:x,2,0", "automatic"]
)
def test_addresses_that_are_none(capsys, address):
    from experiments.language_model.__main__ import main

    line = refused(capsys, main, "train", "--distributed", address)
    assert f"HOST:PORT,N,I with I from 0 to N - 1, got {address}" in line


@long
@pytest.mark.parametrize("n", [2, 4])
def test_losses_of_200_steps(tmp_path, n):
    for module, tolerance in ((FLOAT64, 1e-12), ("experiments.language_model", 1e-4)):
        outs = [tmp_path / f"{module}-{k}" for k in (1, n, "again")]
        for k, out in zip((1, n, n), outs, strict=True):
            ran = run(k, out, "--steps", 200, "--dropout", 0.2, module=module)
            assert ran.returncode == 0, ran.stderr
        np.testing.assert_allclose(losses(outs[1]), losses(outs[0]), rtol=tolerance)
        same(outs[1], outs[2])


@long
@pytest.mark.parametrize("n", [1, 4])
def test_a_run_of_two_goes_on_as_another_number(tmp_path, n):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(2, whole, "--steps", 40, module=FLOAT64).returncode == 0
    shutil.copytree(stopped(tmp_path, started_at=20), cut)
    ran = run(n, cut, "--steps", 40, "--resume", module=FLOAT64)
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_allclose(losses(cut), losses(whole), rtol=1e-12)


@long
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("saving", [False, True])
def test_a_process_that_is_killed(tmp_path, started, rank, saving):
    """Between steps, or right after a save gave control back or in one."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    options = ["--steps", 400]
    launcher = started(2, out, *options, "--save-seconds", 0.5 if saving else 3)
    until(lambda: steps_saved(out))
    if saving:  # the next one has begun
        until(lambda: any("tmp" in p.name for p in (out / "checkpoints").iterdir()))
    os.kill(children(launcher)[rank], signal.SIGKILL)
    begun = time.monotonic()
    assert launcher.wait(SECONDS) != 0
    assert time.monotonic() - begun < HEARTBEAT + 5
    err = out.with_suffix(".err").read_text()
    assert f"process {rank} of 2: ended by SIGKILL" in err
    saved = steps_saved(out)
    assert saved and saved[-1] < 400
    ran = run(2, out, *options, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert f"Going on from step {saved[-1]}" in ran.stdout
    assert run(2, whole, *options).returncode == 0
    same(whole, out)


@long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stands_still(tmp_path, started, rank):
    """The others leave, and the launcher ends it."""
    out = tmp_path / "run"
    launcher = started(2, out, "--steps", 100_000, "--save-seconds", 1)
    until(lambda: steps_saved(out))
    os.kill(children(launcher)[rank], signal.SIGSTOP)
    begun = time.monotonic()
    assert launcher.wait(SECONDS) == 1
    assert time.monotonic() - begun < HEARTBEAT + 5
    err = out.with_suffix(".err").read_text()
    assert f"process {1 - rank} of 2: process {rank} does not answer" in err
    assert f"process {rank} of 2: ended by SIGKILL" in err


@long
def test_interrupts_of_the_launcher_stop_all(tmp_path, started):
    out = tmp_path / "run"
    launcher = started(2, out, "--steps", 100_000)
    until(lambda: "held out" in out.with_suffix(".err").read_text() or out.exists())
    until(lambda: (out / "checkpoints").exists())
    time.sleep(3)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(SECONDS) == 130
    step = re.search(r"Stopped at step (\d+)", out.with_suffix(".err").read_text())
    assert steps_saved(out) == [int(step[1])]


@long
def test_a_process_that_is_late(tmp_path):
    """It is waited for, for longer than the 30 s in which Gloo has to connect."""
    ran = differ(tmp_path, "late", "--steps", 5)
    assert ran.returncode == 0, ran.stderr


@long
def test_a_process_that_is_stuck(tmp_path):
    """It says where, and all end."""
    ran = differ(tmp_path, "stuck", "--steps", 50, "--stuck-seconds", 12)
    assert ran.returncode == 1
    assert "no step for 12 s; it is here:" in ran.stderr
    assert "in sleeps" in ran.stderr


def stopped(tmp_path, started_at):
    """A run of two in float64, stopped by a limit of its steps."""
    out = tmp_path / "part"
    env = {"STOP_AT": str(started_at)}
    ran = run(2, out, "--steps", 40, module=FLOAT64, env=env)
    assert ran.returncode == 130, ran.stderr
    return out
