"""Checkpoints of a run, written by Orbax: whole or not at all."""

import copy
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from experiments.frame import files
from experiments.frame.errors import InputError

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


class Checkpoints:
    """The newest two checkpoints of a run: trees of arrays, and facts as JSON.

    A checkpoint is renamed into place when it is complete, so killing the run at
    any moment leaves the last complete one.
    """

    def __init__(self, run: Path, *, read_only: bool = False):
        self.run = run
        who = {}
        if read_only:  # by one process, while the others may do something else
            me = jax.process_index()
            who = {"primary_host": me, "active_processes": {me}}
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            create=not read_only,
            read_only=read_only,
            multiprocessing_options=ocp.options.MultiprocessingOptions(**who),
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

    def arrays(self, **like: Any) -> dict[str, Any]:
        """Trees of arrays of the newest checkpoint, by their names, each as `like`."""
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        parts = {k: ocp.args.StandardRestore(tree) for k, tree in shapes.items()}
        with self.told("read"):
            found = self.manager.restore(self.newest, args=ocp.args.Composite(**parts))
            return {name: found[name] for name in like}

    def save(self, step: int, facts: Mapping[str, Any], **arrays: Any) -> None:
        # before Orbax begins, which leaves pieces and many lines where it cannot end
        needed = sum(array.nbytes for array in jax.tree.leaves(arrays)) + 2**20
        free = shutil.disk_usage(self.run).free
        if free < needed:
            raise InputError(
                f"{self.run}: no space left for a checkpoint of {needed / 1e6:.0f} MB"
            )
        parts = {k: ocp.args.StandardSave(tree) for k, tree in arrays.items()}
        # a copy: Orbax writes in the background, while the run goes on
        copied = ocp.args.JsonSave(copy.deepcopy(dict(facts)))
        args = ocp.args.Composite(**parts, facts=copied)
        with self.told("written"):
            self.manager.save(step, args=args)

    def amend(self, facts: Mapping[str, Any]) -> None:
        """Puts other facts into the newest checkpoint, which is complete."""
        # Orbax cannot, but to take it away first
        place = self.run / "checkpoints" / str(self.newest) / "facts" / "metadata"
        files.write(place, json.dumps(facts))

    def wait(self) -> None:
        """Until nothing is being written."""
        with self.told("written"):
            self.manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        with self.told("written"):
            self.manager.close()
