"""Checkpoints by orbax: the latest and the best are kept, saved in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

from .base import PyTree


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


class Checkpoints:
    """The checkpoints of one run, in `folder/<step>`."""

    def __init__(self, folder: Path) -> None:
        policy = keep.AnyPreservationPolicy(
            [keep.LatestN(1), keep.BestN(get_metric_fn=_score, n=1)]
        )
        options = ocp.CheckpointManagerOptions(
            best_fn=_score, best_mode="max", preservation_policy=policy
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, items: dict[str, PyTree], score: float) -> None:
        """Copy the items off the device, then write them in the background."""
        saved = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        self._manager.save(step, args=ocp.args.Composite(**saved), metrics={"score": score})

    def restore(self, step: int, like: dict[str, PyTree]) -> dict[str, Any]:
        """Items saved at a step, with the structure, dtypes and placement of those in `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        wanted = {name: ocp.args.StandardRestore(item) for name, item in target.items()}
        return dict(self._manager.restore(step, args=ocp.args.Composite(**wanted)))

    def steps(self) -> list[int]:
        """The steps that have a checkpoint."""
        return sorted(self._manager.all_steps())

    def last(self) -> int | None:
        """The step of the latest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the checkpoint with the highest score."""
        return self._manager.best_step()

    def wait(self) -> None:
        """Until all is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Write what is under way, then let go."""
        self._manager.close()
