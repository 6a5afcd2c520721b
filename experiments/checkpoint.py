"""Checkpoints of a run, written by Orbax: whole or not at all."""

import copy
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from experiments.errors import InputError

# what Orbax tells of its housekeeping is not for the user of a command
logging.getLogger("absl").setLevel(logging.ERROR)


def has_checkpoints(run: Path) -> bool:
    return (run / "checkpoints").is_dir()


def refuse_run(out: Path) -> None:
    """Raises if a folder that is to hold several runs is one itself."""
    if has_checkpoints(out):
        raise InputError(f"--out {out}: holds a run; choose another folder")


def refuse_runs(folders: Iterable[Path], resume: bool) -> None:
    """Raises if one of the folders holds a run that is not to be gone on with."""
    for run in folders:
        if has_checkpoints(run) and not resume:
            raise InputError(
                f"--out {run}: holds a run already; --resume goes on with it, or "
                "choose another folder"
            )


def make_folder(out: Path) -> None:
    """Makes the folder of a run, or says why it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # runs beside this one may try too
            pass
    except OSError as e:
        raise InputError(f"--out {out}: cannot write there: {e.strerror}") from e


class Checkpoints:
    """The newest two checkpoints of a run: arrays, and facts as JSON.

    A checkpoint is renamed into place when it is complete, so killing the run at
    any moment leaves the last complete one.
    """

    def __init__(self, run: Path, *, read_only: bool = False):
        self.run = run
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=not read_only, read_only=read_only
        )
        with self.told("opened"):
            folder = (run / "checkpoints").resolve()
            self.manager = ocp.CheckpointManager(folder, options=options)

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Orbax fails in many ways; the user of a command is told one line."""
        try:
            yield
        except Exception as e:
            first = (str(e) or type(e).__name__).splitlines()[0]
            message = f"{self.run}: the checkpoint cannot be {what}: {first}"
            raise InputError(message) from e

    @property
    def newest(self) -> int | None:
        return self.manager.latest_step()

    def facts(self) -> dict[str, Any]:
        """The JSON part of the newest checkpoint."""
        args = ocp.args.Composite(facts=ocp.args.JsonRestore())
        with self.told("read"):
            return self.manager.restore(self.newest, args=args)["facts"]

    def arrays(self, like: Any) -> Any:
        """The arrays of the newest checkpoint, in the structure of `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(target))
        with self.told("read"):
            return self.manager.restore(self.newest, args=args)["arrays"]

    def save(self, step: int, arrays: Any, facts: Mapping[str, Any]) -> None:
        # before Orbax begins, which leaves pieces and many lines where it cannot end
        needed = sum(array.nbytes for array in jax.tree.leaves(arrays)) + 2**20
        free = shutil.disk_usage(self.run).free
        if free < needed:
            raise InputError(
                f"{self.run}: no space left for a checkpoint of {needed / 1e6:.0f} MB"
            )
        # a copy: Orbax writes in the background, while the run goes on
        copied = ocp.args.JsonSave(copy.deepcopy(dict(facts)))
        args = ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), facts=copied)
        with self.told("written"):
            self.manager.save(step, args=args)

    def close(self) -> None:
        """Waits for what is being written."""
        with self.told("written"):
            self.manager.wait_until_finished()
            self.manager.close()
