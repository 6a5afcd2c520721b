"""Folders that can be written, and files written whole or not at all."""

import os
import tempfile
from pathlib import Path

from experiments.frame.errors import InputError


def make_folder(out: Path) -> None:
    """Makes a folder, or says why it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # runs beside this one may try too
            pass
    except OSError as e:
        raise InputError(f"--out {out}: cannot write there: {e.strerror}") from e


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
