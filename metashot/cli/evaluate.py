"""`metashot evaluate RUN`: the figure of a trained learner on episodes of new classes."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from ..config import Experiment, MaskSizes, Sizes
from .main import CallError, parse
from .run import aligned, checkpoint_of, dataset_of

EXAMPLE = "metashot evaluate runs/glyphs_meta_lstm --way 5 --shot 1,5"


@dataclass(frozen=True)
class Options:
    """Measure a trained learner on episodes of classes it has not seen."""

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    more: tyro.conf.Positional[tuple[Path, ...]] = ()
    """of further runs, such as those of other folds; then means are told too"""
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
    runs = [options.run, *options.more]
    # Every mistake before any work.
    asked = [_asked(run, options) for run in runs]
    if any(each.shown() != asked[0].shown() for each in asked):
        raise CallError("runs of other sizes have no mean: give --way and --shot")
    told = [_measured(run, each, options) for run, each in zip(runs, asked, strict=True)]
    rows = told[0] if len(runs) == 1 else [row for each in told for row in each]
    means = _means(told) if len(runs) > 1 else []
    if options.json:
        result: Any = {"rows": rows} if len(rows) > 1 else rows[0]
        print(json.dumps({**result, "mean": means} if means else result))
        return 0
    for row in means:
        print(_line(row))
    if len(told[0]) > 1:
        print("\n" + _table(means or rows))
    return 0


class _Asked(NamedTuple):
    """What of a run."""

    config: Experiment
    dataset: Any
    sizes: list[Sizes | MaskSizes]
    loaded: dict[int | None, Any]  # by the way

    def shown(self) -> list[tuple[int | None, int]]:
        return [(getattr(size, "way", None), size.shot) for size in self.sizes]


def _asked(run: Path, options: Options) -> _Asked:
    """Refuses what the run cannot give."""
    from .. import experiment, loading  # from here on, jax

    ways, shots = _numbers("way", options.way), _numbers("shot", options.shot)
    config = loading.read_config(run)
    dataset = dataset_of(run, config, options.split, options.source)
    test = config.test
    query = test.query if options.query is None else options.query
    if isinstance(test, MaskSizes):
        if ways:
            raise CallError("--way: a learner of masks marks one class at a time; leave it out")
        some: list[Any] = [test]
    else:
        some = [dataclasses.replace(test, way=way) for way in ways or [test.way]]
    sizes = [
        dataclasses.replace(size, shot=shot, query=query)
        for size in some
        for shot in shots or [test.shot]
    ]
    for size in sizes:
        experiment.check_sizes(config, "", size, dataset)
    checkpoint = checkpoint_of(options.checkpoint)
    ways_asked = dict.fromkeys(getattr(size, "way", None) for size in sizes)
    loaded = {way: loading.load(run, checkpoint=checkpoint, way=way) for way in ways_asked}
    return _Asked(config, dataset, sizes, loaded)


def _measured(run: Path, asked: _Asked, options: Options) -> list[dict[str, Any]]:
    """A row for each size."""
    from .. import experiment

    config, dataset, sizes, loaded = asked
    count = config.test_episodes if options.episodes is None else options.episodes
    rows = []
    for size in sizes:
        learner, variables, step, _ = loaded[getattr(size, "way", None)]
        result = experiment.evaluate(
            learner,
            variables,
            experiment.episodes_of(config, dataset, size),
            count=count,
            seed=options.seed,
            metric=experiment.metric_of(config),
        )
        row: dict[str, Any] = {"run": str(run)} if options.more else {}
        row |= {
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
    return rows


def _means(told: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of the rows of several runs at each size; their intervals are independent."""
    means = []
    for rows in zip(*told, strict=True):
        first = rows[0]
        name = "mean_iou" if "mean_iou" in first else "accuracy"
        mean = {**first, "run": f"mean of {len(rows)}", "step": None}
        mean[name] = statistics.fmean(row[name] for row in rows)
        mean["interval"] = sum(row["interval"] ** 2 for row in rows) ** 0.5 / len(rows)
        means.append(mean)
    return means


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
    run = f"{row['run']}: " if "run" in row else ""
    step = "" if row["step"] is None else f" at step {row['step']:,}"
    return (
        f"{run}{way}{row['shot']}-shot, {row['split']} classes: {_percent(row)} % "
        f"({row['episodes']} episodes; {row['learner']}{step})"
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
