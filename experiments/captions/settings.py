"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass

from experiments.frame.options import learning_rate, option, seed, steps, weight_decay

ENCODERS = ("rows", "pixels")


@dataclass(frozen=True)
class Settings:
    encoder: str = option(
        "rows",
        "an LSTM that reads the rows, or one layer over all pixels",
        choices=ENCODERS,
    )
    hidden: int = option(96, "width of the vector and of the states")
    embedding: int = option(32, "width of a letter's vector")
    dropout: float = option(0.2, "probability", high=0.95, fixed=False)
    beam: int = option(4, "names kept in the search, when tested")
    batch: int = option(64, "images of a batch, each with one language")
    steps: int = steps(1500)
    learning_rate: float = learning_rate(3e-3)
    weight_decay: float = weight_decay(0.01)
    seed: int = seed("of weights, order and dropout")
