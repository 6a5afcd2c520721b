"""Checkpoints of a run, written by Orbax: whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from experiments.errors import InputError


class Checkpoints:
    """The newest two checkpoints in `folder`: arrays, and facts as JSON.

    A checkpoint is renamed into place when it is complete, so killing the run at
    any moment leaves the last complete one.
    """

    def __init__(self, folder: Path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").touch()
            (folder / ".writable").unlink()
        except OSError as e:
            raise InputError(f"--out {folder}: cannot write there: {e.strerror}") from e
        self.folder = folder.resolve()
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self.manager = ocp.CheckpointManager(
            self.folder / "checkpoints", options=options
        )

    @property
    def newest(self) -> int | None:
        return self.manager.latest_step()

    def facts(self) -> dict[str, Any]:
        """The JSON part of the newest checkpoint."""
        if self.newest is None:
            raise InputError(f"{self.folder}: no complete checkpoint there")
        args = ocp.args.Composite(facts=ocp.args.JsonRestore())
        return self.manager.restore(self.newest, args=args)["facts"]

    def arrays(self, like: Any) -> Any:
        """The arrays of the newest checkpoint, in the structure of `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(target))
        return self.manager.restore(self.newest, args=args)["arrays"]

    def save(self, step: int, arrays: Any, facts: Mapping[str, Any]) -> None:
        args = ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays), facts=ocp.args.JsonSave(dict(facts))
        )
        self.manager.save(step, args=args)

    def close(self) -> None:
        """Waits for what is being written."""
        self.manager.wait_until_finished()
        self.manager.close()
