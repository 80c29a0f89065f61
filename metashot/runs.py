"""The folder of a run: its history, its checkpoints, and what made them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .base import PyTree, Variables
from .meta_step import TrainState


class Run:
    """What a run keeps: the state, its history, and both on disk where there is a workdir."""

    def __init__(self, state: TrainState, workdir: Path | None, resume: bool) -> None:
        self.state = state
        self.step = 0
        self._workdir = workdir
        self.history: list[dict[str, float]] = []
        self.checkpoints = None
        self._best: tuple[float, int, Variables] | None = None
        self._log = None
        self._events = None
        self._clock = time.perf_counter()
        if workdir is None:
            if resume:
                raise ValueError("resume needs the workdir of the run that is to go on")
            return
        from .checkpoints import Checkpoints  # orbax costs half a second: only where it is used

        workdir.mkdir(parents=True, exist_ok=True)
        self.checkpoints = Checkpoints(workdir / "checkpoints")
        last = self.checkpoints.last() if resume else None
        if last is not None:
            saved = self.checkpoints.restore(last, self._items())
            self.state = TrainState(saved["variables"], *saved["training"])
            self.step = last
            self.history = [row for row in read_history(workdir) if row["step"] <= last]
            self._clock -= max((row.get("seconds", 0.0) for row in self.history), default=0.0)
        path = workdir / "metrics.jsonl"
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in self.history))
        self._log = path.open("a", buffering=1)
        self._events = _events(workdir / "tensorboard")
        self._began = time.time() - time.perf_counter() + self._clock
        for row in self.history:
            self._tell(row)

    def _items(self) -> dict[str, PyTree]:
        """What a checkpoint holds; who only uses a learner reads its variables alone."""
        state = self.state
        return {"variables": state.variables, "training": (state.opt_state, state.step)}

    def describe(self, **facts: Any) -> None:
        """Write run.json: what a reader of the checkpoints must know, and what made them."""
        if self._workdir:
            text = json.dumps({**facts, "versions": versions()}, indent=2) + "\n"
            write_atomically(self._workdir / "run.json", text)

    def note(self, step: int, **values: float) -> None:
        """Add a row to the history."""
        row = {"step": step, **values, "seconds": round(time.perf_counter() - self._clock, 3)}
        self.history.append(row)
        if self._log:
            self._log.write(json.dumps(row) + "\n")
        self._tell(row)

    def _tell(self, row: dict[str, float]) -> None:
        """Add a row to TensorBoard's events: val_accuracy becomes validation/accuracy."""
        if self._events is None:
            return
        step, wall_time = int(row["step"]), self._began + row.get("seconds", 0.0)
        for name in row.keys() - {"step", "seconds"}:
            part = "validation" if name.startswith("val_") else "training"
            tag = f"{part}/{name.removeprefix('val_')}"
            self._events.add_scalar(tag, row[name], step, wall_time)

    def save(self, score: float) -> None:
        """Keep the state; it becomes the best one if no score was higher."""
        if self.checkpoints:
            if self.checkpoints.last() != self.step:
                self.checkpoints.save(self.step, self._items(), score)
        elif self._best is None or score > self._best[0]:
            self._best = score, self.step, jax.tree.map(jnp.copy, self.state.variables)

    def best(self) -> tuple[Variables, int]:
        """The best variables and their step, once all is on disk."""
        best, variables = self.step, self.state.variables
        if self.checkpoints:
            self.checkpoints.wait()
            best = self.checkpoints.best() or self.step
            if best != self.step:
                variables = self.checkpoints.restore(best, {"variables": variables})["variables"]
        elif self._best:
            _, best, variables = self._best
        return variables, best

    def close(self) -> None:
        if self.checkpoints:
            self.checkpoints.close()
        if self._log:
            self._log.close()
        if self._events:
            self._events.close()


def _events(folder: Path) -> Any:
    """A writer of TensorBoard's events into an emptied folder; None without tensorboardX."""
    if importlib.util.find_spec("tensorboardX") is None:
        return None
    from tensorboardX import SummaryWriter

    for old in folder.glob("events.*"):
        old.unlink()
    # A TensorBoard that has read the old events forgets them.
    return SummaryWriter(str(folder), purge_step=0, flush_secs=10)


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is never seen half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def versions() -> dict[str, str]:
    """Of Python, of the libraries that decide results, and of the device."""
    names = ("metashot", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    device = jax.devices()[0].device_kind
    if device == "cpu":
        device = f"CPU with {os.cpu_count()} cores"
    return {"python": platform.python_version(), **found, "device": device}


def read_history(workdir: str | Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl; a last line that was cut short is left out."""

    def rows(path: Path) -> Iterator[dict[str, float]]:
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return

    return list(rows(Path(workdir) / "metrics.jsonl"))
