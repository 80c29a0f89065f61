"""`metashot search CONFIG`: train with numbers drawn at random, and rank them by validation."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from .. import config as configs
from ..config import Experiment
from .main import CallError
from .run import aligned, config_call, interrupted

if TYPE_CHECKING:
    from ..search import Trial

EXAMPLE = "metashot search omniglot_learnet_paper --trials 20 --steps 3000"


@dataclass(frozen=True)
class Options:
    """Train a run a trial; what its config's get_ranges() names is drawn, from the config's seed.

    Every other field of the config is an option. Validation alone decides.
    """

    config: Annotated[Experiment, tyro.conf.arg(name="")]
    trials: int = 20
    """how many"""
    workdir: Path | None = None
    """folder of the runs trial0, trial1, ...; runs/CONFIG_search by default"""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """go on with the search in the workdir; what is finished is not trained again"""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print one JSON object as the last line"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    name, options, folder = config_call(
        "search", Options, arguments, example=EXAMPLE, suffix="_search"
    )
    if options.trials < 1:
        raise CallError(f"--trials is {options.trials}; it is at least 1")
    ranges = configs.ranges(name)

    from ..search import search  # from here on, jax

    trials: list[Trial] = []
    settings = {"trials": options.trials, "resume": options.resume}
    try:
        for trial in search(options.config, ranges, folder, **settings):
            trials.append(trial)
            print(f"trial {trial.number}: {_percent(trial)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return interrupted(folder, f"search {name} --trials {options.trials}")
    trials.sort(key=lambda trial: -(trial.score or 0))
    print(_table(trials), file=sys.stderr if options.json else sys.stdout)
    if options.json:
        rows = [{**trial._asdict(), "folder": str(trial.folder)} for trial in trials]
        print(json.dumps({"config": name, "trials": rows}))
    return 0


def _percent(trial: Trial) -> str:
    if trial.score is None:
        return "stopped, its loss is not finite"
    return f"{100 * trial.score:.2f} % on validation"


def _table(trials: list[Trial]) -> str:
    """A row a trial, the best first."""
    names = list(trials[0].setting)
    cells = [["validation, %", *names, "run"]]
    for trial in trials:
        shown = "–" if trial.score is None else f"{100 * trial.score:.2f}"
        cells.append([shown, *(f"{v:.3g}" for v in trial.setting.values()), str(trial.folder)])
    return aligned(cells)
