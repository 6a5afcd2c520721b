"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass, replace
from typing import Any

from experiments.frame.options import option, seed

TASKS = ("tmaze", "repeat", "cartpole")
NETWORKS = ("gru", "lstm", "rnn", "mlp")
# which options say something of a memory
OF_MEMORY = ("burn_in", "begin", "span")


@dataclass(frozen=True)
class Settings:
    task: str = option(
        "tmaze", f"{', '.join(TASKS)}, or gymnax:NAME of an environment of gymnax"
    )
    length: int = option(
        50,
        "steps of the corridor of tmaze; how many steps back repeat asks for; steps "
        "after which cartpole ends (of gymnax it changes nothing)",
    )
    network: str = option("gru", "of the policy", choices=NETWORKS)
    hidden: int = option(32, "width of the network and of its state")
    span: int | None = option(
        None, "gates of a GRU or an LSTM begin open for up to so many steps", low=2
    )
    seeds: int = option(5, "policies trained side by side, from seeds of their own")
    envs: int = option(64, "environments of each policy")
    rollout: int = option(128, "steps of all environments between two updates")
    chunk: int = option(
        128, "steps that a gradient goes back over, a part of --rollout"
    )
    burn_in: int = option(
        16, "steps before a chunk that are run again to bring its first state up to "
        "date", low=0,
    )  # fmt: skip
    begin: str = option(
        "stored", "the state that burn-in, or else the chunk, begins with: that of the "
        "policy when it acted, or zeros", choices=("stored", "zeros"),
    )  # fmt: skip
    done: str = option(
        "last", "the observation that comes with an episode's flag done: its last, or "
        "the first of the next episode", choices=("last", "first"),
    )  # fmt: skip
    steps: int = option(100, "rollouts that are learnt from", fixed=False)
    epochs: int = option(4, "times that a rollout is gone over")
    minibatches: int = option(4, "updates of the weights each time")
    learning_rate: float = option(2e-3, "at first; it falls to 0", fixed=False)
    discount: float = option(0.99, "of rewards, for each step", high=1)
    trace: float = option(0.95, "λ of the advantages", high=1)
    clip: float = option(0.2, "how far a ratio may be from 1")
    entropy: float = option(0.01, "weight of the entropy of the policy")
    seed: int = seed("that those of the policies come from")


# what differs from the above for a task
PRESETS: dict[str, dict[str, Any]] = {
    "tmaze": {"span": 50},
    "repeat": {"length": 4, "chunk": 64, "steps": 150},
    "cartpole": {"length": 200, "envs": 16, "chunk": 64, "steps": 150},
}


def preset(given: dict[str, Any]) -> Settings:
    """The settings of a task, where the user gives no others."""
    task = given.get("task", Settings.task)
    found = Settings(**PRESETS.get(task, {}), task=task)
    network = given.get("network", found.network)
    if network in ("rnn", "mlp"):  # which has no gates
        found = replace(found, span=None)
    return replace(found, burn_in=0) if network == "mlp" else found
