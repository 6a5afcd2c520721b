"""What XLA compiled, as text by which two programs can be compared."""

import re
from typing import Any


def program(compiled: Any) -> str:
    """Without names, lines of source, and the tables of these in front.

    They tell one program from its like.
    """
    text = re.sub(r", metadata=\{[^{}]*\}", "", compiled.as_text())
    tables = re.compile(r"\A.*?^(?=%|ENTRY)", re.DOTALL | re.MULTILINE)
    names: dict[str, str] = {}
    number = lambda match: names.setdefault(match[0], f"%{len(names)}")
    return re.sub(r"%[\w.-]+|\bparam_[\w.]+", number, tables.sub("", text))
