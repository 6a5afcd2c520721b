"""Files written whole or not at all."""

import os
from pathlib import Path


def write(path: Path, content: str | bytes) -> None:
    """Writes under another name, which then becomes `path`."""
    part = path.with_name(path.name + ".part")
    data = content.encode() if isinstance(content, str) else content
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
