"""What the few-shot tables share: train what a row needs, test it, write the row."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import results

import metashot
from metashot import config, experiment, runs

RUNS = Path("runs") / "benchmarks"


class Row(NamedTuple):
    config: str | None  # None compares pixels
    shot: int
    paper: float | None = None  # accuracy
    train_shot: int | None = None  # None trains as the config says, at one model for all shots
    run_of: str | None = None  # another config with the same training
    learner: dict[str, Any] | None = None  # fields of the learner that differ from the config's


def run_table(name: str, rows: dict[str, Row], data: Any, names: list[str]) -> None:
    """Measure the rows named, or those that do not stand yet, and write each at once."""
    unknown = set(names) - set(rows)
    if unknown:
        sys.exit(f"there is no row {', '.join(unknown)}; there are {', '.join(rows)}")
    done = {row["name"] for row in results.rows(name)}
    for row in names or [row for row in rows if row not in done]:
        measured = _measure(row, rows[row], data)
        measured |= {"command": f"python benchmarks/{name}.py {row}"}
        results.add(name, measured)
        print(f"{row}: {_percent(measured)}", flush=True)


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['value']:.2f} ± {100 * row['interval']:.2f} %"


def _measure(name: str, row: Row, data: Any) -> dict[str, Any]:
    splits = data.load()
    test = metashot.episodes(splits.test, way=5, shot=row.shot, query=15)
    told: dict[str, Any] = {"episodes": 0, "seconds": 0.0, "seed": 0}
    if row.config is None:
        learner: metashot.Learner = metashot.nearest_neighbor(way=5)
        variables: metashot.Variables = {"params": {}, "state": {}}
    else:
        learner, variables, told = _trained(row, data, splits)
    result = metashot.evaluate(learner, variables, test, count=600)
    value, interval = result.summary["accuracy"]
    return {"name": name, "value": value, "interval": interval, "paper": row.paper, **told}


def _trained(row: Row, data: Any, splits: metashot.Splits) -> tuple[Any, Any, dict[str, Any]]:
    """The learner of a row and its variables, from the run of its training; trains if need be."""
    name = row.run_of or row.config
    assert name is not None
    settings = dataclasses.replace(config.read(name), data=data)
    folder = RUNS / name
    if row.learner is not None:
        learner = dataclasses.replace(settings.learner, **row.learner)
        settings = dataclasses.replace(settings, learner=learner)
        folder = folder.with_name(f"{name}_{'_'.join(row.learner)}")
    if row.train_shot is not None:
        sizes = {
            part: dataclasses.replace(getattr(settings, part), shot=row.train_shot)
            for part in ("train", "test")
        }
        settings = dataclasses.replace(settings, **sizes)
        folder = folder.with_name(f"{folder.name}_{row.train_shot}shot")
    if not _finished(folder, settings.steps):
        experiment.run(settings, folder, resume=(folder / "config.py").exists())
    learner, variables, step, _ = metashot.load(folder, way=5)
    history = runs.read_history(folder)
    told = {
        "episodes": step * settings.meta_batch,
        "seconds": history[-1]["seconds"],
        "seed": settings.seed,
        "curve": [
            [point["step"] * settings.meta_batch, point["val_accuracy"]]
            for point in history
            if "val_accuracy" in point
        ],
    }
    if isinstance(settings.train, config.Batch):
        told["batch"] = settings.train.size
    if row.run_of:
        learner, chosen = _fine_tuned(row, settings.seed, splits, variables)
        told["chosen"] = chosen
    return learner, variables, told


def _fine_tuned(
    row: Row, seed: int, splits: metashot.Splits, variables: metashot.Variables
) -> tuple[metashot.Learner, dict[str, float]]:
    """Fine-tuning of a trained classifier, at the rate and decay that validation chooses."""
    assert row.config is not None
    settings = config.read(row.config).learner
    validation = metashot.episodes(splits.val or splits.train, way=5, shot=row.shot, query=15)
    choice = experiment.choose_rate(settings, 5, validation, variables, seed)
    return settings.at(5, **choice.setting), choice.setting


def _finished(folder: Path, steps: int) -> bool:
    history = runs.read_history(folder)
    return any("val_accuracy" in row and row["step"] == steps for row in history)
