"""A program and the arrays of a run as the numbers that `src/read_plan.h` reads."""

from itertools import accumulate
from typing import Any, NamedTuple

from jaxseq._engine.types import Spec, Weights
from jaxseq._kernels.cpu.blocks import Blocks, blocks_of
from jaxseq._kernels.cpu.code import Run
from jaxseq._kernels.cpu.columns import Key
from jaxseq._kernels.cpu.counts import counts_of
from jaxseq._kernels.cpu.program import Program
from jaxseq._kernels.cpu.rows import rows_of
from jaxseq._kernels.cpu.schedule import Fold

# what a reset does to a state, as in src/plan.h
CLEARED, STARTED, KEPT, LOST = range(4)
KINDS: Any = (
    "input product state extra between output shared".split()
)  # as in src/plan.h


class Flags(NamedTuple):
    """What a run is given, and what it gives."""

    start: bool
    keep_x: list[bool]
    keep_state: list[bool]
    rows: int  # of a block, at most


class Numbers(NamedTuple):
    plan: list[int]
    code: list[int]
    values: list[float]
    axes: list[int | None]  # that of rows of each array that is given, but weights


class Arrays(NamedTuple):
    """What `src/read_plan.h` asks of each array, after the array's own number."""

    # is batch first, is read one step ahead, has a matrix, has a bias, is saved
    inputs: list[tuple[Key, bool, bool, bool, bool, bool]]
    products: list[tuple[Key, bool, Blocks, bool]]  # is saved, matrix, is transposed
    extra: list[Key]
    states: list[tuple[Key, int, bool]]  # what a reset does, is saved
    outputs: list[Key]


def numbers_of(spec: Spec, weights: Weights, program: Program, flags: Flags) -> Numbers:
    step = spec.step
    own = sum(map(rows_of(step).is_given_rows, step.extra))
    each = zip(weights.w_x, weights.b, flags.keep_x, strict=True)
    batch_first = spec.batch_first or spec.turned
    arrays = Arrays(
        [
            (("input", i), batch_first, False, w is not None, b is not None, yes)
            for i, (w, b, yes) in enumerate(each)
        ],
        [
            (("product", k), spec.save, blocks_of(weights.w_h[k]), False)
            for k in step.called
        ],
        [
            *(("extra", i) for i in range(len(step.extra) - own)),
            *counts_of(program.columns),
        ],
        [
            *(
                (("state", i), flags.start, yes)
                for i, yes in enumerate(flags.keep_state)
            ),
            *((("state", len(step.state) + i), KEPT, False) for i in range(own)),
        ],
        [
            ("output", j) if p is None else ("state", p)
            for j, p in enumerate(step.tells)
        ],
    )
    return numbered(program, arrays, batch_first, spec.reverse, flags.rows)


def numbered(
    program: Program, arrays: Arrays, batch_first: bool, reverse: bool, rows: int
) -> Numbers:
    columns = dict(program.columns)
    for k, i in program.sums.items():  # the product is added to the map
        columns["input", i] = columns.pop(("product", k))
    keys = sorted(columns, key=lambda key: (KINDS.index(key[0]), key[1]))
    number = {key: i for i, key in enumerate(keys)}
    for k, i in program.sums.items():
        number["product", k] = number["input", i]

    plan = [batch_first, reverse, rows, len(keys)]
    for key in keys:
        plan += [KINDS.index(key[0]), len(columns[key]), *columns[key]]
    plan += map(len, arrays)
    for key, *flags in arrays.inputs:
        plan += [number[key], *flags]
    firsts = {key: [0, *accumulate(columns[key])] for key in keys}
    firsts |= {key: firsts[keys[number[key]]] for key in number}
    for key, saved, how, transposed in arrays.products:
        plan += [number[key], saved, transposed]
        for n in range(how.N):  # which columns the block fills
            all_columns = enumerate(firsts[key][:-1])
            own = [i for i, at in all_columns if at // how.O % how.N == n]
            plan += [len(own), *own]
    plan += [number[key] for key in arrays.extra]
    for key, *flags in arrays.states:
        plan += [number[key], *flags]
    plan += [number[key] for key in arrays.outputs]

    def places(some: Any) -> list[int]:
        found = []
        for p in some:
            column = firsts[p.key].index(p.first)
            found += [number[p.key], column, int(p.fresh)]
        return found

    axes: list[int | None] = []
    for _, first, ahead, has_w, has_b, _ in arrays.inputs:
        axes += [0 if first else 1, *[0] * ahead, *[None] * (has_w + has_b)]
    axes += [None] * (len(arrays.products) + len(arrays.extra))
    for _, reset, _ in arrays.states:
        axes += [0] * (2 if reset == STARTED else 1)

    code: list[int] = []
    values: list[float] = []
    plan += [len(program.actions), program.before]
    for a in program.actions:
        if isinstance(a, Run):
            sizes = len(a.constants), a.once, a.temporaries, len(a.code)
            plan += [1, len(a.places), *places(a.places), *sizes]
            code += [n for line in a.code for n in line]
            values += a.constants
        elif isinstance(a, Fold):
            plan += [2, a.op, number[a.out], len(a.places), *places(a.places)]
        else:
            plan += [0, a.matrix, int(a.adds), len(a.places), *places(a.places)]
    return Numbers(list(map(int, plan)), code, values, axes)
