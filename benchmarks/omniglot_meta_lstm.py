"""Omniglot, 5-way: the Meta-Learner LSTM and what it is compared with.

    METASHOT_DATA=DIR python benchmarks/omniglot_meta_lstm.py [ROW ...]

Each row trains by the installed config (or goes on with a run that was cut short), tests on 600
episodes of test characters, and is written at once. Rows that stand already are left alone unless
they are named.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import results

import metashot
from metashot import config, experiment, runs

NAME = "omniglot_meta_lstm"
RUNS = Path("runs") / "benchmarks"


class Row(NamedTuple):
    config: str | None  # None compares pixels
    shot: int
    paper: float | None = None


ROWS = {
    "meta_lstm_5w1s": Row("omniglot_meta_lstm", 1),
    "meta_lstm_5w5s": Row("omniglot_meta_lstm_5shot", 5),
    "prototypical_5w1s": Row("omniglot_prototypical", 1, 0.988),
    "prototypical_5w5s": Row("omniglot_prototypical", 5, 0.997),
    "nearest_pixel_5w1s": Row(None, 1),
    "nearest_pixel_5w5s": Row(None, 5),
}


def measure(name: str, repacked: bool) -> dict[str, Any]:
    """Train what a row needs, unless it is there, and test it."""
    row = ROWS[name]
    command = f"python benchmarks/{NAME}.py {name}"
    data = config.Omniglot(repacked=repacked)
    test = metashot.episodes(data.load().test, way=5, shot=row.shot, query=15)
    seen, seconds, seed = 0, 0.0, 0
    if row.config is None:
        learner: metashot.Learner = metashot.nearest_neighbor(way=5)
        variables: metashot.Variables = {"params": {}, "state": {}}
    else:
        settings = dataclasses.replace(config.read(row.config), data=data)
        folder = RUNS / row.config
        if not _finished(folder, settings.steps):
            experiment.run(settings, folder, resume=(folder / "config.py").exists())
        learner, variables, step, _ = metashot.load(folder, way=5)
        last = runs.read_history(folder)[-1]
        seen, seconds, seed = step * settings.meta_batch, last["seconds"], settings.seed
    result = metashot.evaluate(learner, variables, test, count=600)
    value, interval = result.summary["accuracy"]
    versions = runs.versions()
    return {
        "name": name,
        "value": value,
        "interval": interval,
        "paper": row.paper,
        "episodes": seen,
        "seconds": seconds,
        "seed": seed,
        "device": versions["device"],
        "versions": versions,
        "command": command,
    }


def _finished(folder: Path, steps: int) -> bool:
    history = runs.read_history(folder)
    return any("val_accuracy" in row and row["step"] == steps for row in history)


def main(names: list[str]) -> None:
    repacked = "--repacked" in names
    names = [name for name in names if name != "--repacked"]
    unknown = set(names) - set(ROWS)
    if unknown:
        sys.exit(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    done = {row["name"] for row in results.rows(NAME)}
    for name in names or [name for name in ROWS if name not in done]:
        row = measure(name, repacked)
        results.add(NAME, row)
        print(f"{name}: {100 * row['value']:.2f} ± {100 * row['interval']:.2f} %", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
