"""Random search over ranges of a configuration's numbers, on validation episodes only."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import config as configs
from .config import ConfigError, Experiment, Ranges
from .experiment import build, refuse_changes, refuse_folder, run
from .loading import read_config
from .runs import read_history, write_atomically

DONE = "trial.json"


class Trial(NamedTuple):
    """One run of a search."""

    number: int
    folder: Path
    setting: dict[str, float]  # what was drawn, by dotted names
    score: float | None  # the best of its validations; None if the loss became infinite


def search(
    config: Experiment,
    ranges: Ranges,
    workdir: str | Path,
    *,
    trials: int = 20,
    resume: bool = False,
    progress: bool = True,
) -> Iterator[Trial]:
    """Train a run a trial, with numbers drawn evenly in their logarithms, in workdir/trial0 ....

    Trial i of a configuration's seed is always the same: a longer search has the same first trials.

    Args:
        config: of all that is not drawn.
        ranges: {dotted name: (least, most)}, both above 0.
        workdir: of the runs; each ends with a trial.json.
        trials: how many.
        resume: go on; trials that are finished are not trained again.
        progress: as of `metashot.train`.

    Raises:
        ConfigError: before anything is written; a name of no number, an empty range, data
            without classes for choosing.
    """
    folder = Path(workdir)
    refuse_folder(folder, resume)
    if resume:
        refuse_changes(read_config(folder), config)
    settings = [drawn(ranges, config.seed, i) for i in range(trials)]
    changed = [with_numbers(config, setting) for setting in settings]
    for each in changed:
        configs.check(each)
    if build(config).validation is None:
        raise ConfigError(
            "the data have no classes for choosing, and a search must not look at those for "
            "testing: take a split with some, such as --data.split alphabets_tuning of Omniglot"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.py", configs.as_text(config))
    for i, (setting, each) in enumerate(zip(settings, changed, strict=True)):
        own = folder / f"trial{i}"
        if not (own / DONE).exists():
            score = _trained(each, own, progress=progress)
            write_atomically(own / DONE, json.dumps({**setting, "score": score}) + "\n")
        yield Trial(i, own, setting, json.loads((own / DONE).read_text())["score"])


def _trained(config: Experiment, folder: Path, *, progress: bool) -> float | None:
    """The best figure of a run's validations."""
    try:
        run(config, folder, resume=(folder / "config.py").exists(), progress=progress)
    except FloatingPointError:
        return None
    told = (row.get(f"val_{config.test.figure}", -math.inf) for row in read_history(folder))
    return max(told)


def drawn(ranges: Ranges, seed: int, trial: int) -> dict[str, float]:
    """The numbers of a trial.

    Raises:
        ConfigError: a range that is none.
    """
    for name, (least, most) in ranges.items():
        if not 0 < least <= most:
            raise ConfigError(f"the range of {name} is {least} to {most}; it is above 0, rising")
    shares = np.random.default_rng([seed, trial]).uniform(size=len(ranges))
    return {
        name: float(least * (most / least) ** share)
        for (name, (least, most)), share in zip(ranges.items(), shares, strict=True)
    }


def with_numbers(config: Any, numbers: dict[str, float]) -> Any:
    """A configuration with other numbers, by dotted names.

    Raises:
        ConfigError: a name of no field.
    """
    for name, value in numbers.items():
        first, _, rest = name.partition(".")
        fields = [field.name for field in dataclasses.fields(config)]
        if first not in fields:
            kind = type(config).__name__
            raise ConfigError(f"{kind} has no field {first}; its fields are {', '.join(fields)}")
        inner = with_numbers(getattr(config, first), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{first: inner})
    return config
