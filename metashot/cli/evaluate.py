"""`metashot evaluate RUN`: the figure of a trained learner on episodes of new classes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..config import MaskSizes
from .main import CallError, parse
from .run import aligned, checkpoint_of, dataset_of

EXAMPLE = "metashot evaluate runs/glyphs_meta_lstm --way 5 --shot 1,5"


@dataclass(frozen=True)
class Options:
    """Measure a trained learner on episodes of classes it has not seen."""

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    split: Literal["train", "val", "test"] = "test"
    """whose classes"""
    episodes: int | None = None
    """how many; the config's test_episodes by default"""
    way: str | None = None
    """classes of an episode; a list such as 5,20 makes a table"""
    shot: str | None = None
    """support images a class; a list such as 1,5 makes a table"""
    query: int | None = None
    """query images a class"""
    seed: int = 0
    """of the list of episodes"""
    checkpoint: str = "best"
    """best by validation, last, or a step"""
    source: str | None = None
    """folder of the data, where it has moved"""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print one JSON object as the last line"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, arguments, command="evaluate", example=EXAMPLE)
    ways, shots = _numbers("way", options.way), _numbers("shot", options.shot)
    run: Path = options.run

    from .. import experiment, loading  # from here on, jax

    config = loading.read_config(run)
    dataset = dataset_of(run, config, options.split, options.source)
    checkpoint = checkpoint_of(options.checkpoint)
    query = config.test.query if options.query is None else options.query
    count = config.test_episodes if options.episodes is None else options.episodes
    test = config.test
    shown = [{"shot": shot, "query": query} for shot in shots or [test.shot]]
    if isinstance(test, MaskSizes):
        if ways:
            raise CallError("--way: a learner of masks marks one class at a time; leave it out")
        sizes = {None: [dataclasses.replace(test, **each) for each in shown]}
    else:
        sizes = {
            way: [dataclasses.replace(test, way=way, **each) for each in shown]
            for way in ways or [test.way]
        }
    for size in chain(*sizes.values()):  # every mistake before any work
        experiment.check_sizes(config, "", size, dataset)
    loaded = {way: loading.load(run, checkpoint=checkpoint, way=way) for way in sizes}
    rows = []
    for way, size in ((way, size) for way, own in sizes.items() for size in own):
        learner, variables, step, _ = loaded[way]
        result = experiment.evaluate(
            learner,
            variables,
            experiment.episodes_of(config, dataset, size),
            count=count,
            seed=options.seed,
            metric=experiment.metric_of(config),
        )
        row = {
            "learner": type(config.learner).__name__,
            **vars(size),
            "split": options.split,
            "episodes": count,
            "step": step,
        }
        for name, (value, half) in result.summary.items():
            row |= {name: value, "interval": half}
        rows.append(row)
        if not options.json:
            print(_line(row), flush=True)
    if len(rows) > 1 and not options.json:
        print("\n" + _table(rows))
    if options.json:
        print(json.dumps({"rows": rows} if len(ways) > 1 or len(shots) > 1 else rows[0]))
    return 0


def _numbers(name: str, text: str | None) -> list[int]:
    """The numbers of "5" or "5,20", each once; none of None."""
    if text is None:
        return []
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise CallError(f"--{name} is {text}; it is a number above 0, or several such as 5,20")
    return list(dict.fromkeys(map(int, parts)))


def _line(row: dict[str, Any]) -> str:
    way = f"{row['way']}-way " if "way" in row else ""
    return (
        f"{way}{row['shot']}-shot, {row['split']} classes: {_percent(row)} % "
        f"({row['episodes']} episodes; {row['learner']} at step {row['step']:,})"
    )


def _percent(row: dict[str, Any]) -> str:
    """The figure of a row with its interval."""
    figure = row["mean_iou"] if "mean_iou" in row else row["accuracy"]
    return f"{100 * figure:.2f} ± {100 * row['interval']:.2f}"


def _table(rows: list[dict[str, Any]]) -> str:
    """A row for each number of classes, a column for each number of shots, in percent."""
    reached = {(row.get("way"), row["shot"]): _percent(row) for row in rows}
    ways, shots = (list(dict.fromkeys(row.get(name) for row in rows)) for name in ("way", "shot"))
    cells = [["", *(f"{shot}-shot" for shot in shots)]]
    cells += [
        [f"{way}-way" if way else "mean IoU", *(reached[way, shot] for shot in shots)]
        for way in ways
    ]
    return aligned(cells)
