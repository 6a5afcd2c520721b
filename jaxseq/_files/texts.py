"""What stands in a file beside the arrays: their tree, and checksums.

"format" is what programs of Hugging Face look for, "jaxseq" the version that has
written the file. Its other texts begin with "jaxseq." and are JSON.
"""

import json
import zlib
from typing import Any

from jaxseq._base.check import check
from jaxseq._files.container import TEXTS, Contents, checksum
from jaxseq._files.trees import described

VERSION = "jaxseq"
TREE = "jaxseq.tree"  # as `described` makes it
LIKE = "jaxseq.like"  # the first type in it for which a template is needed, if any
KEYS = "jaxseq.keys"  # implementations of random keys, by the names of their data
SUMS = "jaxseq.crc32"  # of each array, and under "__metadata__" of the other texts


def texts_of(
    weights: Any, arrays: dict[str, Any], keys: dict[str, str]
) -> dict[str, str]:
    """All texts of a file; the arrays are in the order of the leaves."""
    from jaxseq import __version__

    texts = {VERSION: __version__}
    tree, unknown = described(weights, list(arrays))
    texts[TREE] = _json(tree)
    if unknown:
        texts[LIKE] = unknown[0]
    if keys:
        texts[KEYS] = _json(keys)
    sums = {name: checksum(a) for name, a in arrays.items()}
    texts[SUMS] = _json(sums | {TEXTS: _sum(texts)})
    return {"format": "flax"} | texts


def verify(path: str, contents: Contents) -> None:
    """Checks the checksums of a file that jaxseq has written."""
    is_ours = lambda k: k == VERSION or k.startswith(f"{VERSION}.")
    ours = {k: t for k, t in contents.texts.items() if is_ours(k)}
    if not ours:
        return
    expected = "checksums, as jaxseq.save has written them"
    try:
        sums: Any = json.loads(ours.pop(SUMS, "null"))
    except (ValueError, RecursionError):
        sums = None
    ok = isinstance(sums, dict) and set(sums) == {TEXTS, *contents.arrays}
    check(ok, f"{path}: {SUMS}", f"{expected}, of all arrays", "others, or none")
    found = {name: checksum(a) for name, a in contents.arrays.items()}
    for name, got in ({TEXTS: _sum(ours)} | found).items():
        check(sums[name] == got, f"{path}: {name}", f"CRC-32 {sums[name]}", got)


def keys_of(texts: dict[str, str]) -> dict[str, str]:
    """Implementations of random keys by their names."""
    return json.loads(texts.get(KEYS, "{}"))


def _sum(texts: dict[str, str]) -> int:
    return zlib.crc32(_json(dict(sorted(texts.items()))).encode())


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
