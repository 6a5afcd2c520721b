"""The models and their sizes."""

from collections.abc import Iterable

from benchmarks.cases import Case
from benchmarks.real.training import Sizes

MODELS = ("ppo", "scanned_rnn", "rssm", "characters")
SIZES = {
    "default": {
        "ppo": Sizes(32, 128, 128, 128),
        "scanned_rnn": Sizes(32, 128, 128, 128),
        "rssm": Sizes(16, 64, 256, 256),
        "characters": Sizes(32, 128, 64, 256),
    },
    "tiny": {
        "ppo": Sizes(8, 6, 8, 8),
        "scanned_rnn": Sizes(8, 6, 8, 8),
        "rssm": Sizes(2, 5, 16, 8),
        "characters": Sizes(2, 6, 4, 8),
    },
}
EXACT = 1e-9  # of a step in float64


def cases(models: Iterable[str] = MODELS, size: str = "default") -> list[Case]:
    return [Case(name, "training", *SIZES[size][name]) for name in models]
