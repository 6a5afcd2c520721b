"""`python -m benchmarks scaling`: the model's tables, and its figure."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.rows import read
from benchmarks.scaling import processes
from benchmarks.scaling.chips import CHIPS, COUNTS
from benchmarks.scaling.model import Chip, Cost, Net, step

NET = Net()
ROWS = 16  # of a chip
BATCH = 4096  # of all chips
NAMES = {
    "products": "products",
    "vmem": "weights through VMEM",
    "hbm": "HBM",
    "sum": "sum of gradients",
    "latency": "latency",
}
COLORS = {
    "products": "#0072B2",
    "vmem": "#CC79A7",
    "hbm": "#009E73",
    "sum": "#D55E00",
    "latency": "0.45",
}


def costs(chip: Chip, rows: int | None) -> list[Cost]:
    """With that many rows for each chip, or a batch that they divide."""
    return [step(NET, chip, n, BATCH / n if rows is None else rows) for n in COUNTS]


def report(measured: Path, figure: Path) -> None:
    for chip in CHIPS:
        for rows, title in ((ROWS, f"{ROWS} rows a chip"), (None, f"{BATCH} rows")):
            print(f"\n{chip.name}, {title}, milliseconds\n")
            table(costs(chip, rows), rows)
    compared(measured)
    draw(figure)


def table(found: list[Cost], rows: int | None) -> None:
    print(f"| chips | {' | '.join(NAMES.values())} | step | tokens a second | bound |")
    print("|--:" * (len(NAMES) + 3) + "|---|")
    for n, cost in zip(COUNTS, found, strict=True):
        tokens = (BATCH if rows is None else n * rows) * NET.window / cost.total
        times = [f"{1e3 * t:.3f}" for t in (*cost, cost.total)]
        each = [str(n), *times, f"{tokens / 1e6:.0f} M", NAMES[cost.bound]]
        print(f"| {' | '.join(each)} |")


def compared(path: Path) -> None:
    """The model beside what was measured."""
    found = processes.runs(read(path))
    machine = processes.fit(found)
    print(
        f"\n{machine.rate / 1e9:.0f} G operations/s, {1e3 * machine.start:.1f} ms a "
        f"step, {1e6 * machine.message:.0f} µs a message, {machine.link / 1e9:.2f} GB/s"
        f", {1e3 * machine.turn:.1f} ms a turn\n"
    )
    print("| processes | B,T,layers,H | computing | sum | turns | model | measured | |")
    print("|--:|---|--:|--:|--:|--:|--:|--:|")
    for run in found:
        net, share = run.net, processes.step(run.net, machine, run.batch, run.processes)
        size = f"{run.batch},{net.window},{net.layers},{net.hidden}"
        times = [f"{1e3 * t:.1f}" for t in (*share, sum(share), run.step)]
        off = f"{100 * (sum(share) / run.step - 1):+.0f} %"
        print(f"| {run.processes} | {size} | {' | '.join(times)} | {off} |")


def draw(path: Path) -> None:
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    grid: Any = figure.subplots(2, len(CHIPS), sharex=True, sharey="row")
    titles = f"{ROWS} rows a chip", f"{BATCH:,} rows in all"
    for line, rows, title in zip(grid, (ROWS, None), titles, strict=True):
        for ax, chip in zip(line, CHIPS, strict=True):
            panel(ax, costs(chip, rows))
            ax.set_title(f"{chip.name}, {title}", fontsize=10)
    for ax in grid[:, 0]:
        ax.set_ylabel("milliseconds a step")
    for ax in grid[-1]:
        ax.set_xlabel("chips")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=9)
    figure.savefig(path, dpi=100)


def panel(ax: Any, found: list[Cost]) -> None:
    for name, label in NAMES.items():
        times = [1e3 * getattr(cost, name) for cost in found]
        ax.plot(
            COUNTS,
            times,
            "o-",
            color=COLORS[name],
            label=label,
            ms=3.5,
            lw=1.3,
            zorder=2.2,
        )
    totals = [1e3 * cost.total for cost in found]
    ax.plot(COUNTS, totals, "k-", lw=2.2, label="step", zorder=2.5)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(COUNTS, [str(n) for n in COUNTS])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda t, _: f"{t:g}")
    ax.set_axisbelow(True)
    ax.grid(color="0.9")
