"""The command line of an experiment: `train`, `report`, and commands of its own.

Nothing here imports JAX, so that --help and a bad option answer at once; what a
command runs imports the experiment when it is called.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from experiments.frame.errors import InputError
from experiments.frame.options import add_settings, number, shown


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


class CommandLine:
    """The commands of experiments.NAME, whose runs lie in runs/NAME unless told.

    A command is the function of its name in experiments/NAME/experiment.py, called
    with its options; the `EXPERIMENT` there is what `train` and `report` are about.
    """

    def __init__(self, name: str, text: str | None):
        self.name = name
        self.parser = Parser(prog=name, description=text)
        self.commands = self.parser.add_subparsers(dest="command", required=True)

    def module(self) -> Any:
        return import_module(f"experiments.{self.name}.experiment")

    def add(self, name: str, text: str, *, run: bool = False) -> Any:
        """A command of the experiment's own; with `run`, it has the option --run."""
        command = self.commands.add_parser(name, help=text)
        function = lambda **options: getattr(self.module(), name)(**options)
        command.set_defaults(function=function)
        if run:
            folder = Path("runs") / self.name
            text = f"(default: {folder})"
            command.add_argument("--run", type=Path, default=folder, help=text)
        return command

    def add_out(self, command: Any, name: str, text: str = "") -> None:
        """The option --out, which is runs/`name` unless given."""
        out = Path("runs") / name
        text = f"{text} (default: {out})".lstrip()
        command.add_argument("--out", type=Path, default=out, help=text)

    def add_training(
        self,
        name: str,
        text: str,
        title: str,
        defaults: Any,
        *,
        out: str | None = None,
        leave_out: Sequence[str] = (),
        data_dir: bool = False,
        save_seconds: float = 30.0,
    ) -> Any:
        """A command that trains, whose settings are `given`, a dictionary.

        Its other options are `out`, `resume`, `save_seconds`, `data_dir` if there is
        one, and those that are added to what this returns.
        """
        command = self.add(name, text)
        group = command.add_argument_group("the run")
        self.add_out(group, out or self.name)
        text = "go on from the newest checkpoint in --out, if there is one"
        group.add_argument("--resume", action="store_true", help=text)
        text = shown("time between checkpoints", save_seconds)
        group.add_argument(
            "--save-seconds", type=number(float, 0), default=save_seconds, help=text
        )
        if data_dir:
            add_data_dir(command)
        add_processes(command)
        add_settings(command, title, defaults, leave_out)
        command.set_defaults(settings=[own.name for own in fields(defaults)])
        return command

    def add_train(self, title: str, defaults: Any, **how: Any) -> Any:
        """The command `train`."""
        text = "train, test and report"
        command = self.add_training("train", text, title, defaults, **how)
        command.set_defaults(function=self.train)
        return command

    def train(self, **options: Any) -> int:
        from experiments.frame.experiment import train

        return train(self.module().EXPERIMENT, **options)

    def add_report(self) -> None:
        """The command `report`: several runs side by side."""
        command = self.add("report", "several runs side by side")
        command.set_defaults(function=self.report)
        text = "folders of finished runs"
        command.add_argument("--runs", type=Path, nargs="+", default=[], help=text)
        text = "rows of other runs, as this command writes them into results.jsonl"
        command.add_argument("--results", type=Path, help=text)
        self.add_out(command, f"{self.name}-report")

    def report(self, **options: Any) -> int:
        from experiments.frame.report import report

        return report(self.module().EXPERIMENT, **options)

    def main(self, argv: list[str] | None = None) -> int:
        options = vars(self.parser.parse_args(argv))
        function, names = options.pop("function"), options.pop("settings", None)
        del options["command"]
        if names is not None:
            own = {name: options.pop(name) for name in names if name in options}
            options["given"] = own
        how = {name: options.pop(name, None) for name in PROCESSES}
        if how["distributed"] is None:
            return answer(self.name, lambda: function(**options))
        from experiments.frame import watch

        return watch.run(self.name, lambda: function(**options), **how)


def add_data_dir(command: Any) -> None:
    text = "folder with the files of a data set; else they are downloaded"
    command.add_argument("--data-dir", type=Path, help=text)


def add_processes(command: Any) -> None:
    group = command.add_argument_group("many processes")
    text = (
        "one of several processes of one run: auto, where SLURM, Kubernetes, Open MPI "
        "or Cloud TPU tell of the others, else the address of the first process, the "
        "number of processes, and which this is, from 0"
    )
    group.add_argument(
        "--distributed", type=address, metavar="auto|HOST:PORT,N,I", help=text
    )
    text = shown("time for which a process may be silent, in seconds", 100)
    group.add_argument(
        "--heartbeat-seconds", type=number(int, 1), default=100, help=text
    )
    text = shown("time that a step may take, in seconds", 1800)
    group.add_argument(
        "--stuck-seconds", type=number(float, 1), default=1800, help=text
    )


PROCESSES = "distributed", "heartbeat_seconds", "stuck_seconds"


def address(text: str) -> str | tuple[str, int, int]:
    """An argparse type: how the processes of a run find each other."""
    if text == "auto":
        return text
    match = re.fullmatch(r"(.+:\d+),(\d+),(\d+)", text)
    if match is None or not int(match[3]) < int(match[2]):
        expected = "expected auto or HOST:PORT,N,I with I from 0 to N - 1"
        raise argparse.ArgumentTypeError(f"{expected}, got {text}")
    return match[1], int(match[2]), int(match[3])


def answer(name: str, run: Callable[[], int]) -> int:
    """The exit code of `run`; what the user can mend is said in one line."""
    code, message = outcome(run)
    if message:
        print(f"{name}: {message}", file=sys.stderr)
    return code


def outcome(run: Callable[[], int]) -> tuple[int, str | None]:
    """The exit code of `run`, and what its user is told if it does not finish."""
    try:
        return run(), None
    except InputError as e:
        message, code = f"error: {e}", 2
    except BrokenPipeError:  # the reader has all it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message, code = "", 0
    except OSError as e:
        message, code = f"error: {e.filename or 'writing'}: {e.strerror or e}", 2
    except (RuntimeError, MemoryError) as e:  # XLA's when it cannot allocate
        if isinstance(e, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(e):
            raise
        message, code = "error: out of memory: try a smaller model or batch", 2
    except KeyboardInterrupt:
        message, code = "interrupted; what was saved is kept", 130
    return code, message
