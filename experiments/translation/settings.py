"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

from experiments.frame.options import (
    columns,
    file_or_name,
    header,
    learning_rate,
    option,
    seed,
    separator,
    steps,
    weight_decay,
)

MODELS = ("plain", "bahdanau", "luong", "transformer")
OF_TABLES = ("columns", "header", "separator")  # of one's own
DATA = ("dates", "multi30k", "tatoeba_ko", "chatbot_ko")
MULTI30K_TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")


@dataclass(frozen=True)
class Settings:
    data: str = option(
        "dates",
        f"{', '.join(DATA)}, a table of two columns (.tsv, .csv), or the sources' "
        "file, with --target",
        kind=file_or_name,
    )
    target: str | None = option(
        None, "file of the targets, line by line those of --data", kind=file_or_name
    )
    columns: str | None = columns("source", "target")
    header: bool | None = header("source", "target")
    separator: str | None = separator()
    lower: bool = option(False, "in lower case")
    joined: int = option(1, "most sentences joined to one")
    pieces: int = option(0, "subwords in each vocabulary; 0 for characters", low=0)
    longest: int = option(100, "tokens of the longest sentence taken, its end counted")
    model: str = option("bahdanau", "the model", choices=MODELS)
    cell: str = option("lstm", "of a recurrent model", choices=("rnn", "lstm", "gru"))
    layers: int = option(1, "layers, of the encoder and of the decoder")
    hidden: int = option(96, "width of the states, or of the Transformer")
    embedding: int = option(48, "width of a token's vector, in a recurrent model")
    heads: int = option(4, "heads of the Transformer, or of multi_head")
    score: str | None = option(
        None,
        "of the attention (default: additive, which Luong et al. call concat)",
        choices=("additive", "general", "multi_head"),
    )
    feed: bool = option(False, "input feeding, of luong alone, where it is the default")
    dropout: float = option(0.1, "probability", high=0.95, fixed=False)
    label_smoothing: float = option(
        0.0, "probability spread over all tokens", high=0.95, fixed=False
    )
    tokens: int = option(2048, "tokens of a batch, padding counted")
    steps: int = steps(400)
    warmup: int = option(
        100,
        "steps in which the learning rate rises, at most a tenth of all",
        low=0,
        fixed=False,
    )
    learning_rate: float = learning_rate(4e-3)
    weight_decay: float = weight_decay(0.01)
    held_out: float = option(
        0.05, "share held out of own data, and as much to test", high=0.3, above=True
    )
    seed: int = seed("of weights, order and dropout")


MULTI30K: dict[str, Any] = {
    "lower": True, "pieces": 4000, "longest": 220, "hidden": 256, "embedding": 256,
    "dropout": 0.25, "label_smoothing": 0.1, "tokens": 1024, "steps": 5500,
    "warmup": 200, "learning_rate": 4e-3,
}  # fmt: skip
# what differs from the above for a data set, and for a model on it
PRESETS: dict[str, dict[str, Any]] = {
    "dates": {},
    "multi30k": MULTI30K,
    "tatoeba_ko": {**MULTI30K, "pieces": 2000, "dropout": 0.4, "steps": 1500},
    "chatbot_ko": {**MULTI30K, "lower": False, "steps": 2000},
}
OWN = {**MULTI30K, "lower": False}  # data of the user's
TRANSFORMER = {"hidden": 192, "layers": 3, "dropout": 0.15, "learning_rate": 2e-3}
# the score "general" is lost under Adam: see the README
LUONG = {"score": "additive", "feed": True}


def preset(given: dict[str, Any]) -> Settings:
    """The settings of a data set and a model, where the user gives no others."""
    data, model = (given.get(k, getattr(Settings, k)) for k in ("data", "model"))
    more = TRANSFORMER if model == "transformer" and data != "dates" else {}
    more = LUONG if model == "luong" else more
    own = PRESETS.get(data, OWN)
    return Settings(**{**own, **more, "data": data, "model": model})
