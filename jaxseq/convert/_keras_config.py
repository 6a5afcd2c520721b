"""What the configurations of recurrent layers of Keras say, and whether it is so."""

from collections.abc import Mapping
from typing import Any

from jaxseq._base.check import check, check_choice
from jaxseq.convert._common import NAMES, Found
from jaxseq.convert._network import width_out

MERGES = {"concat": "concat", "sum": "sum", "ave": "mean", None: None}


def options(config: Any, n: int) -> dict[str, Any]:
    """The options of `from_keras` that the configurations of n layers say."""
    found = [_of_layer(one, at) for at, one in _each(config, n).items()]
    for i, one in enumerate(found):
        _check_same(f"config[{i}]", found[0], one, "the first layer")
    return found[0]


def check_weights(config: Any, layers: list[list[Found]]) -> None:
    """Checks that layers are what their configurations say."""
    each = _each(config, len(layers)).items()
    for (name, one), both in zip(each, layers, strict=True):
        ways = _directions(one, name)
        expected = ["2 or 3 arrays", "4 or 6 arrays of a Bidirectional"][len(ways) - 1]
        ok = len(ways) == len(both)
        check(ok, name, f"that of weights of {len(both)} direction(s)", expected)
        for own, found in zip(ways, both, strict=True):
            _check_kind(_of_cell(own, name), name, found)


def _each(config: Any, n: int) -> dict[str, Mapping[str, Any]]:
    """The configuration of each layer, by its name in errors."""
    each: Any = [config] if isinstance(config, Mapping) else config
    ok = type(each) in (list, tuple) and all(isinstance(one, Mapping) for one in each)
    expected = "layer.get_config(), or a list of them"
    check(ok, "config", expected, type(config).__name__)
    check(len(each) == n, "config", f"one for each of {n} layers", len(each))
    return {f"config[{i}]": one for i, one in enumerate(each)}


def _of_layer(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    mode: Any = config.get("merge_mode", "concat")
    check_choice(mode, f"{name}.merge_mode", tuple(MERGES))
    ways = _directions(config, name)
    backwards = ways[0].get("go_backwards", False)
    if len(ways) == 2:
        expected = "a Bidirectional whose first layer runs forward"
        check(not backwards, name, expected, "one with go_backwards=True")
    first, *other = (_of_direction(_of_cell(own, name), name) for own in ways)
    for own in other:
        _check_same(name, first, own, "its forward layer")
    return first | {"reverse": backwards, "merge": MERGES[mode]}


def _directions(config: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The configurations of the layers of both directions, or the one that it is."""
    if "merge_mode" not in config:
        return [config]
    check("layer" in config, name, "the config of a Bidirectional", sorted(config))
    layer = config["layer"]
    return [own["config"] for own in (layer, config.get("backward_layer") or layer)]


def _of_cell(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What says how a cell computes, which an `RNN` layer has apart."""
    cell = config.get("cell")
    own = config if cell is None else cell["config"]
    expected = "that of a SimpleRNN, LSTM or GRU, or of an RNN with a cell of one"
    got = f"no activation in {cell['class_name'] if cell else 'it'}"
    check("activation" in own, name, expected, got)
    return own


def _of_direction(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = {
        "activation": config["activation"],
        "recurrent_activation": config.get("recurrent_activation", "sigmoid"),
        "reset_after": config.get("reset_after"),
    }
    for key in ("activation", "recurrent_activation"):
        expected = f"a name; pass a function of your own as `{key}`, without `config`"
        ok = isinstance(found[key], str)
        check(ok, f"{name}.{key}", expected, "a function of your own")
    return found


def _check_same(
    name: str, first: dict[str, Any], other: dict[str, Any], which: str
) -> None:
    differ = [key for key in first if first[key] != other[key]]
    said = lambda own: ", ".join(f"{key}={own[key]!r}" for key in differ)
    check(not differ, name, f"{said(first)}, as of {which}", said(other))


def _check_kind(config: Mapping[str, Any], name: str, found: Found) -> None:
    """Checks the kind, the width and the bias of a direction's weights."""
    gates = 3 if "reset_after" in config else 4 if "unit_forget_bias" in config else 1
    gates = 4 if gates == 1 and "recurrent_activation" in config else gates
    expected = f"that of {NAMES[found.gates]}, as the weights are"
    check(found.gates == gates, name, expected, f"that of {NAMES[gates]}")
    H, biased = width_out(found.weights.w_h), found.weights.b is not None
    for key, own in (("units", H), ("use_bias", biased)):
        said = config.get(key, own)
        check(said == own, f"{name}.{key}", f"{own}, as of the weights", said)
