"""A file that is written whole, or not at all."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def replaced(path: str) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when all of it is on disk.

    Until then it lies beside it under another name. A process that is killed may leave
    it there; after an exception it is removed.
    """
    path = os.path.realpath(path)  # what a link leads to, as `open` has it
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".jaxseq-{secrets.token_hex(4)}.tmp")
    file = open(temporary, "xb")
    try:
        with file:
            yield file
            with suppress(FileNotFoundError):  # a new file has the mode that is usual
                os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.remove(temporary)
        raise
    if os.name == "posix":  # the new name too, where a folder can be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
