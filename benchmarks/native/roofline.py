"""Tables of the part `products`: what bounds each shape, and the parts of gradients."""

from statistics import median

from benchmarks.cases import OPS
from benchmarks.native.bounds import bounds, gflop_of_parts
from benchmarks.native.cases import NATIVE, PRODUCTS
from benchmarks.native.kinds import kind_of
from benchmarks.native.parts import BACKWARD, FORWARD, REST, SUMS
from benchmarks.native.tables import SHAPE, groups, percent
from benchmarks.report import markdown, number, select
from benchmarks.rows import Group, Row, case_of

FORWARD_BOUNDS = (
    "**What bounds the forward pass**, in milliseconds. *Arithmetic*: the operations "
    "of the products at the peak rate. *Weights*: reading w_h once a step for each "
    "block of rows, at the rate at which the threads read arrays of its size. "
    "*Arrays*: reading what the engine's calls are given and writing what they return "
    "at the rates of memory, here {read:.1f} and {write:.1f} GB/s; arrays of a few "
    "megabytes stay in a cache, and take less. *Layer* is the engine's, and "
    "*products* the same without its functions."
)
GRADIENT_BOUNDS = (
    "**What bounds gradients**, the forward pass included, in milliseconds. Each array "
    "counts in every call of the engine that is given it or returns it."
)
REACH = (
    "If its functions cost nothing, `lstm` could be {median:.2f} times as fast as "
    "PyTorch ({mode}, the median over the shapes), and {lowest:.2f} times at {at}, the "
    "lowest."
)
PARTS = (
    "**Where gradients spend their time**, in milliseconds, by JAX's profiler, and the "
    "share of the peak that the products of each part reach. *Forward* saves what "
    "*backward* reads; *sums* are the calls for the gradients of matrices, bias and x; "
    "the *rest* is outside the engine."
)


def sections(rows: list[Row]) -> list[str]:
    """Of the rows of the part, with what is said of each table."""
    found, place = [], lambda row: OPS.index(row["op"])
    rows = sorted(rows, key=place)
    abouts = {"forward": FORWARD_BOUNDS, "gradient": GRADIENT_BOUNDS}
    for mode, about in abouts.items():
        own = groups(select(rows, mode=mode))
        if lines := [line for group in own if (line := bound_line(group))]:
            head = ["GFLOP", "arithmetic", "weights", "arrays", PRODUCTS, "layer"]
            head += ["torch", f"torch / {PRODUCTS}"]
            rates = next(row["bandwidth"] for row in rows if "bandwidth" in row)
            found += [about.format(**rates), markdown(["", SHAPE], head, lines)]
        if reach := [pair for group in own if (pair := reached(group))]:
            low, at = min(reach)
            how = {"median": median(r for r, _ in reach), "lowest": low, "at": at}
            found.append(REACH.format(mode=mode, **how))
    if lines := [line for group in groups(rows) if (line := parts_line(group))]:
        kinds = FORWARD, BACKWARD, SUMS
        head = [text for name in kinds for text in (name, "of peak")]
        found += [PARTS, markdown(["", SHAPE], [*head, REST], lines)]
    return found


def ms(group: Group, name: str) -> float | None:
    return group.get(name, {}).get("median_ms")


def bound_line(group: Group) -> list[str] | None:
    row = group.get(NATIVE)
    if row is None or not row["median_ms"] or "bandwidth" not in row:
        return None
    times = [ms(group, name) for name in (PRODUCTS, NATIVE, "torch")]
    pair = reached(group)
    cells = [str(kind_of(row)), case_of(row).shape]
    cells += map(number, (row["gflop"], *bounds(row), *times))
    return [*cells, "–" if pair is None else f"{pair[0]:.2f}"]


def reached(group: Group) -> tuple[float, str] | None:
    """PyTorch's time over that of the products, and the shape."""
    torch, own = ms(group, "torch"), ms(group, PRODUCTS)
    if not (torch and own):
        return None
    return torch / own, case_of(group[PRODUCTS]).shape


def parts_line(group: Group) -> list[str] | None:
    row = group.get(NATIVE, {})
    if not row.get("parts"):
        return None
    case, peak = case_of(row), row["peaks"][str(row["cores"])]
    cells = [str(kind_of(row)), case.shape]
    for name, work in gflop_of_parts(case).items():
        spent = row["parts"][name]
        share = 1e3 * work / spent / peak if spent else None
        cells += [number(spent or None), percent(share)]
    return [*cells, number(row["parts"][REST])]
