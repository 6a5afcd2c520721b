"""Trains recognisers of spoken or keyed digits by CTC, and transcribes with them."""

import sys
from pathlib import Path
from typing import Any

from experiments.command import (
    SEED,
    TRAINING,
    WHOLE,
    Parser,
    add_data_dir,
    add_report,
    add_run,
    add_settings,
    answer,
    number,
)
from experiments.speech.settings import DATA, Settings

RUN = Path("runs/speech")
REPORT = Path("runs/speech-report")
SETTINGS = {
    "data": (str, "Morse code, made here, or the Free Spoken Digit Dataset, a folder "
             "of which --data-dir names"),
    "speaker": (str, "of fsdd, who is heard in the test only; without it the test "
                "has recordings 0 to 4 of each speaker and digit"),
    "digits": (number(int, 2), "most digits of a string"),
    "strings": (number(int, 4), "strings that the test has"),
    "stack": (WHOLE, "frames of 10 ms that are one step of the network"),
    "center": (bool, "take each band's mean over the sound off"),
    "layers": (WHOLE, "bidirectional layers"),
    "hidden": (WHOLE, "width of the state, of each direction"),
    "dropout": (number(float, 0, 0.95), "probability"),
    "augment": (bool, "train on other speeds, on noise and with bands left out"),
    "beam": (WHOLE, "strings kept in the search, when tested"),
    "batch": (WHOLE, "strings of a batch"),
    **TRAINING,
    "seed": (SEED, "of weights, training strings and dropout"),
}  # fmt: skip


def parser() -> Parser:
    main = Parser(prog="speech", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, test and report")
    add_run(train, RUN)
    add_data_dir(train)
    title = "the data, the model and its training (defaults are those for morse)"
    add_settings(train, title, SETTINGS, Settings, {"data": DATA})
    transcribe = commands.add_parser("transcribe", help="write what is heard in files")
    transcribe.add_argument("--run", type=Path, default=RUN, help=f"(default: {RUN})")
    text = "sound files (.wav)"
    transcribe.add_argument("files", type=Path, nargs="+", metavar="FILE", help=text)
    text = "labellings kept in the search (default: that of the run)"
    transcribe.add_argument("--beam", type=WHOLE, help=text)
    add_report(commands, REPORT)
    return main


def run(options: dict[str, Any]) -> int:
    # here, so that --help and a bad option answer at once
    from experiments.speech import run

    command = options.pop("command")
    if command == "transcribe":
        return run.transcribe(options["run"], options["files"], options["beam"])
    if command == "report":
        return run.report(options["runs"], options["results"], options["out"])
    own = ("out", "data_dir", "resume", "save_seconds")
    return run.run(**{name: options.pop(name) for name in own}, given=options)


def main(argv: list[str] | None = None) -> int:
    options: dict[str, Any] = vars(parser().parse_args(argv))
    return answer("speech", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
