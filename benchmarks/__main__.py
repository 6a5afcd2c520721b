"""`python -m benchmarks`: jaxseq beside other libraries; see README.md."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import BOTH, MODES, OPS, SETS, Case
from benchmarks.errors import UsageError
from benchmarks.native import options as native_options
from benchmarks.options import DEVICES, Parser, choices, measuring, positive
from benchmarks.progress import seconds
from benchmarks.real import options as real_options
from benchmarks.scan import options as scan_options
from benchmarks.slices import options as slice_options

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CONTENDERS = ("jaxseq", "jaxseq scan", "jaxseq vmap", "flax", "linen", "equinox")
CONTENDERS += ("haiku", "keras", "cudnn", "torch")
ROUNDS = {"default": 7, "full": 15, "accelerator": 5, "exact": 0, "tiny": 1}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add = lambda name, text: commands.add_parser(name, help=text, description=text)

    run = add("run", "measure, and append rows to results/<device>.jsonl")
    run.add_argument("--cases", choices=SETS, default="default")
    run.add_argument("--full", action="store_const", const="full", dest="cases")
    run.add_argument("--device", choices=DEVICES, default="cpu")
    measuring(run, RESULTS, None, "timed rounds; 0 only checks the results")
    text = "compile side by side, and do not measure how long it takes"
    run.add_argument("--no-compile-times", action="store_true", help=text)

    profile = add("profile", "where the time of a step goes, on a CPU")
    profile.add_argument("--cases", choices=SETS, default="default")
    profile.add_argument("--calls", type=positive, default=5)
    profile.add_argument("--results", type=Path, default=RESULTS / "profile")
    for command in (run, profile):
        for name, known in (("ops", OPS), ("modes", MODES), ("contenders", CONTENDERS)):
            choices(command, name, known, all=False)
        command.add_argument("--shapes", nargs="+", metavar="B,T,D,H")

    report = add("report", "the tables of the README and the figures, from the rows")
    report.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    report.add_argument("--readme", type=Path, default=HERE / "README.md")

    scan = add("scan", "jaxseq.scan beside lax.scan; rows to results/scan")
    scan_options.add(scan, HERE)
    real = add("real", "training steps by both scans; rows to results/real")
    real_options.add(real, HERE)

    native = add(
        "native", "the native CPU engine beside others; rows to results/native"
    )
    native_options.add(native, HERE)

    compile_tpu = add("compile-tpu", "compile the TPU kernels for chips not here")
    compile_tpu.add_argument("--quick", action="store_true", help="one chip and width")
    compile_tpu.add_argument("--results", type=Path, metavar="FILE", help="JSON lines")

    compile_slice = add("compile-slice", "compile a training step for slices of TPUs")
    slice_options.add(compile_slice)

    scaling = add("scaling", "what a step costs on many chips, by a model")
    text = "rows of benchmarks.scaling.measure"
    rows, figure = (
        RESULTS / "scaling" / name for name in ("cpu-amd-epyc-2.jsonl", "tpu.png")
    )
    scaling.add_argument("--measured", type=Path, default=rows, help=text)
    scaling.add_argument("--figure", type=Path, default=figure, metavar="FILE")

    check = add("check-gpu", "all checks and measurements on a GPU, in 9 minutes")
    check.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    check.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    return parser.parse_args(argv)


def cases_of(options: argparse.Namespace) -> list[Case]:
    cases = SETS[options.cases]
    known = list(dict.fromkeys(case.shape for case in cases))
    for shape in options.shapes or ():
        if shape not in known:
            raise UsageError(f"--shapes: {shape!r} is not one of {' '.join(known)}")
    found = [
        case
        for case in cases
        if case.op in (options.ops or OPS)
        and case.mode in (options.modes or MODES)
        and case.shape in (options.shapes or known)
    ]
    if not found:
        raise UsageError(f"--cases {options.cases} has none of these modes and shapes")
    return found


def run(options: argparse.Namespace) -> int:
    """Returns in how many cases jaxseq was not right."""
    cases = cases_of(options)

    from benchmarks.contenders import load, usual
    from benchmarks.device import find_device
    from benchmarks.loop import measure_all
    from benchmarks.measure import REPEATS, measure

    names = {case: options.contenders or usual(case, options.device) for case in cases}
    every = dict.fromkeys(name for some in names.values() for name in some)
    # PyTorch before JAX has a device: what CUDA libraries it loads, JAX takes
    contenders = {name: load(name, options.device) for name in reversed(every)}
    device = find_device(options.device)
    if options.rounds is None:
        options.rounds = ROUNDS[options.cases]
    rounds = options.rounds
    repeats = 0 if options.no_compile_times or not rounds else REPEATS

    def rows(case: Case) -> list[dict[str, Any]]:
        some = {name: contenders[name] for name in names[case]}
        return measure(case, some, device, rounds, repeats)

    guess = lambda case: seconds(case, len(names[case]) + 1, rounds, options)
    how: Any = {"base": "jaxseq", "ours": "jaxseq", "fresh": repeats > 0}
    return measure_all(options, device, cases, rows, seconds=guess, **how)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 1 if something of jaxseq's is wrong, 2 for wrong input."""
    failed = 0
    try:
        options = parse(argv)
        if options.command == "run":
            failed = run(options)
        elif options.command == "profile":
            profile(options)
        elif options.command == "report":
            from benchmarks.report import report

            report(options.results, options.readme)
        elif options.command == "compile-tpu":
            from benchmarks.tpu_compile import compile_all

            failed = compile_all(options.quick, options.results)
        elif options.command == "compile-slice":
            from benchmarks.slices.compile import compile_slices

            failed = compile_slices(options)
        elif options.command == "scaling":
            from benchmarks.scaling.report import report

            report(options.measured, options.figure)
        elif options.command in ("scan", "real", "native"):
            failed = scans(options)
        else:
            from benchmarks.gpu_check import check

            failed = check(options.results, options.dry_run)
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"benchmarks: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: stopped; go on with --resume", file=sys.stderr)
        return 130
    return 1 if failed else 0


def scans(options: argparse.Namespace) -> int:
    folder = f"benchmarks.{options.command}"
    if options.report:
        report = importlib.import_module(f"{folder}.report").report
        report(options.results, options.page)
        return 0
    try:
        return importlib.import_module(f"{folder}.run").run(options)
    except ModuleNotFoundError as error:
        reason = f"no module {error.name!r}; pip install 'jaxseq[benchmarks]'"
        raise UsageError(reason) from error


def profile(options: argparse.Namespace) -> None:
    from benchmarks.contenders import load
    from benchmarks.device import device_name, find_device
    from benchmarks.profile import profile_all

    names = options.contenders or ["jaxseq"]
    if "torch" in names:
        raise UsageError("--contenders: PyTorch has none of XLA's kernels")
    path = options.results / f"{device_name(find_device('cpu'))}.jsonl"
    cases = [c for c in cases_of(options) if c.mode in BOTH and not c.variant]
    if not cases:
        raise UsageError("profile takes whole sequences: --modes forward,gradient")
    profile_all(cases, {n: load(n, "cpu") for n in names}, options.calls, path)


if __name__ == "__main__":
    sys.exit(main())
