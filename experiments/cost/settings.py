"""What is measured: layers, and the shapes of each part."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from experiments.frame.options import option

MODELS = ("rnn", "gru", "lstm", "transformer")
HEADS = 4
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@dataclass(frozen=True)
class Settings:
    lengths: tuple[int, ...] = option((16, 64, 256, 1024), "steps T")
    batches: tuple[int, ...] = option(
        (1, 4, 16, 64), "sequences B side by side, of the middle length"
    )
    long: tuple[int, ...] = option(
        (512, 2048, 8192), "steps T for memory, with and without remat"
    )
    hidden: int = option(128, f"width, a multiple of {HEADS}")
    batch: int = option(8, "sequences of a batch, except where B is varied")
    rounds: int = option(5, "times that each is timed")
    most_mb: int = option(1500, "temporary memory above which a layer is not run")


class Case(NamedTuple):
    part: str  # of the page
    model: str
    mode: str  # "forward" or "gradient", which is forward and backward
    B: int
    T: int
    H: int
    remat: int | None = None


def cases(settings: Settings) -> list[Case]:
    """All that is measured; what is compared stands together."""
    B, H = settings.batch, settings.hidden
    longest = max(settings.lengths)
    found = [
        Case("length", model, mode, B, T, H)
        for T in settings.lengths
        for mode in ("forward", "gradient")
        for model in MODELS
    ]
    found += [  # as many tokens each
        Case("tokens", model, "forward", B * longest // T, T, H)
        for T in settings.lengths
        for model in MODELS
    ]
    middle = sorted(settings.lengths)[len(settings.lengths) // 2]
    found += [
        Case("batch", model, "forward", B, middle, H)
        for B in settings.batches
        for model in MODELS
    ]
    for T in settings.long:
        found.append(Case("long", "lstm", "gradient", B, T, H))
        found.append(Case("long", "lstm", "gradient", B, T, H, kept(T)))
        found.append(Case("long", "transformer", "gradient", B, T, H))
    return [*dict.fromkeys(found)]


def kept(T: int) -> int:
    """Steps between kept states: the power of two nearest to √T."""
    return 2 ** round(math.log2(T) / 2)


def step_flops(model: str, T: int, H: int) -> int:
    """Operations of the matrix products of one step of one sequence, forward.

    A Transformer's layer has four maps H×H, two H×2H, and 2·T·H products for its
    scores and as many for its contexts. The gradient of a product is two more.
    """
    if model == "transformer":
        return 2 * (4 * H * H + 2 * H * 2 * H + 2 * T * H)
    return 2 * (H + H) * GATES[model] * H


def flops(case: Case) -> int:
    times = 1 if case.mode == "forward" else 4 if case.remat else 3
    return times * case.B * case.T * step_flops(case.model, case.T, case.H)
