"""The folder of a run: what TensorBoard is told is what metrics.jsonl says."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from metashot.base import Variables
from metashot.meta_step import TrainState
from metashot.runs import Run

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")

VARIABLES: Variables = {"params": {"w": jnp.zeros(2)}, "state": {}}
STATE = TrainState(VARIABLES, opt_state=(), step=jnp.zeros((), jnp.int32))


def events(folder: Path) -> Iterator[Any]:
    """The records of all event files: length, its checksum, the event, its checksum."""
    for path in folder.glob("events.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def told(run: Path) -> dict[tuple[str, int], list[float]]:
    """The values of each (name, step)."""
    found: dict[tuple[str, int], list[float]] = {}
    for event in events(run / "tensorboard"):
        for value in event.summary.value:
            found.setdefault((value.tag, event.step), []).append(value.simple_value)
    return found


def written(run: Path) -> dict[tuple[str, int], list[Any]]:
    """The same of metrics.jsonl, to the precision of an event."""
    found = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name in row.keys() - {"step", "seconds"}:
            group = "validation" if name.startswith("val_") else "training"
            found[f"{group}/{name.removeprefix('val_')}", row["step"]] = [pytest.approx(row[name])]
    return found


def note_some(run: Run, steps: range) -> None:
    for step in steps:
        run.step = step
        run.note(step, episodes=4 * step, loss=1 / step, accuracy=0.1)
        if step % 2 == 0:
            run.note(step, val_accuracy=step / 10, val_interval=0.05)
            run.save(step / 10)


def test_tensorboard_is_told_what_metrics_say(tmp_path: Path):
    run = Run(STATE, tmp_path, resume=False)
    note_some(run, range(1, 4))
    run.close()
    assert told(tmp_path) == written(tmp_path)
    assert told(tmp_path)["training/loss", 2] == [0.5]
    assert set(told(tmp_path)) >= {("validation/accuracy", 2), ("validation/interval", 2)}
    walls = [event.wall_time for event in events(tmp_path / "tensorboard") if event.summary.value]
    assert walls == sorted(walls)


def test_a_resumed_run_tells_nothing_twice(tmp_path: Path):
    run = Run(STATE, tmp_path, resume=False)
    note_some(run, range(1, 4))  # the last checkpoint is of step 2
    run.close()
    run = Run(STATE, tmp_path, resume=True)
    assert run.step == 2
    note_some(run, range(3, 5))
    run.close()
    assert told(tmp_path) == written(tmp_path)
    assert {step for _, step in told(tmp_path)} == {1, 2, 3, 4}


def test_without_tensorboardx_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    without = lambda name, *rest: None if name == "tensorboardX" else find(name, *rest)
    monkeypatch.setattr(importlib.util, "find_spec", without)
    run = Run(STATE, tmp_path, resume=False)
    note_some(run, range(1, 3))
    run.close()
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "checkpoints"}
    assert written(tmp_path)
