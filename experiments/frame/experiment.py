"""What an experiment is made of, and its training from the options to the page."""

import html
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.device import commit, cores, device_name
from experiments.frame import distributed, files
from experiments.frame.checkpoint import Checkpoints, has_checkpoints, refuse_runs
from experiments.frame.errors import InputError
from experiments.frame.files import make_folder
from experiments.frame.options import fixed
from experiments.frame.page import marked, summary, table, write_page
from experiments.frame.trainer import Trainer, in_use, loop, split
from experiments.frame.watch import WATCH


class Run(NamedTuple):
    """A trained model, and what it was made of."""

    out: Path  # the folder
    settings: Any
    facts: dict[str, Any]  # of the data, and of the course of the training
    model: Any  # without dropout
    data: Any  # `Data`, unless it was loaded from a checkpoint
    asked: dict[str, Any]  # options that are no settings


class Result(NamedTuple):
    """What a test gave."""

    title: str
    digest: str  # of what was tested on
    scores: Mapping[str, Any]
    name: str = "test"  # of its file, result-NAME.json
    more: Mapping[str, Any] = {}  # that belongs to it, as JSON


class Evaluation(NamedTuple):
    results: Sequence[Result]
    headline: str  # what they come to; on the page what stands between ** is bold
    answers: Any = None  # what the page shows of them


@dataclass(frozen=True)
class Experiment:
    """What differs between experiments: modules with the functions named, and more."""

    title: str  # of the page of several runs
    # what is not given on the command line; `given` has what is
    preset: Callable[[dict[str, Any]], Any]
    data: Any  # load(settings, data_dir), a `Data`
    # make(settings, facts of the data), and loss(model, batch), or with a carry: see
    # Trainer
    model: Any
    # label(settings), what a run is called beside others, and page(run, evaluation),
    # the title of its own page and what it shows
    page: Any
    evaluate: Callable[[Run], Evaluation]
    # (settings, given): that the options belong together
    check: Callable[[Any, dict[str, Any]], None] = lambda settings, given: None
    # decimal places of scores, if not 1
    digits: Mapping[str, int] = field(default_factory=dict)
    # (out, rows, runs): what stands under the tables of several runs
    figures: Callable[[Path, list[dict[str, Any]], Sequence[Path]], str] = (
        lambda out, rows, runs: ""
    )
    start: Callable[[Any, Any], Any] | None = None  # (model, batch): the first carry


def train(experiment: Experiment, **how: Any) -> int:
    """The command `train`; returns the exit code."""
    return 130 if fit(experiment, **how) is None else 0


def fit(
    experiment: Experiment,
    given: dict[str, Any],
    out: Path,
    *,
    resume: bool,
    save_seconds: float,
    data_dir: Path | None = None,
    **asked: Any,
) -> tuple[Run, Evaluation] | None:
    """Trains, tests and writes the page; None if it was stopped.

    `given` are the settings from the command line.
    """
    checkpoints, facts = open_run(out, resume)
    settings = settle(experiment.preset(given), given, facts, out)
    distributed.same("options", {**asdict(settings), "resume": resume, **asked})
    experiment.check(settings, {**given, **asked, "data_dir": data_dir})
    if not distributed.first():  # a data set is fetched by one process of a machine
        distributed.meet("data")
    data = experiment.data.load(settings, data_dir)
    if distributed.first():
        distributed.meet("data")
    distributed.same("data", data.digests)
    if facts is not None and facts.get("digest") != data.digests["all"]:
        raise InputError(f"{out}: the checkpoint there was trained on other data")
    distributed.agree(lambda: make_folder(out.parent))
    distributed.shared(out.parent)
    print(data.about)
    model = experiment.model.make(settings, data.facts)
    trainer = Trainer(settings, model, experiment.model.loss, data, experiment.start)
    if checkpoints is None:  # nothing is made before the input is known to be good
        distributed.agree(lambda: make_folder(out))
        checkpoints = Checkpoints(out)
    if facts is not None:
        with WATCH:
            trainer.go_on(checkpoints, facts["step"])
        print(f"Going on from step {trainer.step} of {settings.steps}.")
    else:
        if resume:
            print(f"No checkpoint in {out} yet: starting at the beginning.")
        course = {"step": 0, "seconds": 0.0, "pending": [], "train": [], "held_out": []}
        facts = {**data.facts, "digest": data.digests["all"], **course}
    weights = sum(w.size for w in jax.tree.leaves(trainer.state.weights))
    facts |= {"settings": asdict(settings), "weights": weights, **where()}
    with WATCH:
        try:
            finished = loop(trainer, facts, checkpoints, save_seconds)
        finally:
            checkpoints.close()
    if not finished:
        print(
            f"Stopped at step {trainer.step} of {settings.steps}; a checkpoint is in "
            f"{out}. To go on, give the same command with --resume.",
            file=sys.stderr,
        )
        return None
    run = Run(out, settings, facts, trainer.model, data, asked)
    if not distributed.first():
        distributed.meet("tested")
        return run, Evaluation([], "")
    evaluation = experiment.evaluate(run)
    for result in evaluation.results:
        write_result(run, result)
    headline = evaluation.headline
    print(headline.replace("**", ""))
    print(f"{facts['seconds'] / 60:.1f} minutes of training.")
    title, body = experiment.page.page(run, evaluation)
    body = f"""<p class="big">{marked(headline)}</p>
<p>{html.escape(summary(facts, data.per_step, data.unit))}</p>
{body}
<h2>Settings</h2>
{table({**asdict(settings), **asked})}"""
    print(f"Report: {write_page(out / 'report.html', title, body)}")
    distributed.meet("tested")
    return run, evaluation


def where() -> dict[str, Any]:
    """By what machine and what code."""
    return {
        "cores": cores(),
        "device": device_name(jax.devices()[0]),
        "jax": jax.__version__,
        "commit": commit("experiments/*.py"),
    }


def open_run(
    out: Path, resume: bool
) -> tuple[Checkpoints | None, dict[str, Any] | None]:
    """The checkpoints in the folder of a run and the newest one's facts, if any."""
    if not distributed.agree(lambda: has_checkpoints(out)):
        return None, None
    distributed.agree(lambda: make_folder(out))
    checkpoints = Checkpoints(out)
    if distributed.agree(lambda: checkpoints.newest) is None:
        return checkpoints, None
    distributed.agree(lambda: refuse_runs([out], resume))
    facts = checkpoints.facts()
    distributed.same(f"facts of the checkpoint in {out}", facts)
    return checkpoints, facts


def saved_settings(kind: type, facts: dict[str, Any], out: Path) -> Any:
    """The settings that a checkpoint was made with, as a `kind`."""
    try:
        [row["loss"] for row in facts["train"]]
        return kind(**facts["settings"])
    except (KeyError, TypeError) as e:
        raise InputError(f"{out}: holds a run of another experiment or version") from e


def settle(
    preset: Any, given: dict[str, Any], facts: dict[str, Any] | None, out: Path
) -> Any:
    """Settings from the command line over those of the checkpoint, if there is one."""
    if facts is None:
        return replace(preset, **given)
    saved = saved_settings(type(preset), facts, out)
    for name in fixed(saved):
        if name in given and given[name] != getattr(saved, name):
            flag = isinstance(given[name], bool)
            option = "--" + "no-" * (flag and not given[name]) + name.replace("_", "-")
            raise InputError(
                f"{option}{'' if flag else f' {given[name]}'}: the checkpoint in {out} "
                f"was made with {getattr(saved, name)}; leave the option out, or "
                "choose another --out"
            )
    settings = replace(saved, **given)
    if settings.steps < facts["step"]:
        raise InputError(
            f"--steps {settings.steps}: the checkpoint in {out} is at step "
            f"{facts['step']} already"
        )
    # a finished run stays as it was
    return saved if settings.steps == facts["step"] else settings


def write_result(run: Run, result: Result) -> None:
    """Writes what a test gave into the folder of the run."""
    made = {"title": result.title, "digest": result.digest}
    made |= {"scores": dict(result.scores), **result.more, "step": run.facts["step"]}
    text = json.dumps(made, ensure_ascii=False)
    files.write(run.out / f"result-{result.name}.json", text)


def load(experiment: Experiment, out: Path) -> Run:
    """The newest checkpoint in `out`; no data are loaded."""
    checkpoints = Checkpoints(out, read_only=True) if has_checkpoints(out) else None
    if checkpoints is None or checkpoints.newest is None:
        raise InputError(f"--run {out}: no checkpoint there")
    facts = checkpoints.facts()
    settings = saved_settings(type(experiment.preset({})), facts, out)
    graph, state, rest = split(experiment.model.make(settings, facts), settings)
    weights = checkpoints.arrays(arrays=state)["arrays"].weights
    return Run(out, settings, facts, in_use(graph, weights, rest), None, {})
