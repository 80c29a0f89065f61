"""`metashot train CONFIG`: meta-train, then say what was reached."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..config import Experiment, MaskSizes
from .main import CallError
from .run import config_call, figure_of, interrupted

if TYPE_CHECKING:
    from ..evaluation import Evaluation

EXAMPLE = "metashot train glyphs_meta_lstm --workdir runs/first --steps 300"


@dataclass(frozen=True)
class Options:
    """Meta-train what a config says; every field of the config is an option."""

    config: Annotated[Experiment, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """folder of the run; runs/CONFIG by default"""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """go on from the last checkpoint in the workdir"""
    profile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """write a profiler's trace of some dispatches, and say how busy the device was"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    name, options, folder = config_call("train", Options, arguments, example=EXAMPLE)
    config: Experiment = options.config

    if options.profile and config.steps <= config.log_every:
        raise CallError(
            f"--profile leaves the first dispatch out, and steps, {config.steps}, are no more than "
            f"log-every, {config.log_every}: take more steps, or a smaller log-every"
        )

    from .. import experiment, plots, profiling  # from here on, jax

    watch = {"resume": options.resume, "profile": options.profile}
    try:
        trained, parts = experiment.run(config, folder, **watch)
    except KeyboardInterrupt:
        return interrupted(folder, f"train {name}")
    if options.profile:
        print(profiling.report(folder / "profile"), file=sys.stderr)
    print(f"testing on {config.test_episodes} episodes of new classes", file=sys.stderr)
    reached, nearest = experiment.compare(config, parts, trained.variables)
    if plots.available():
        path = plots.save(plots.curves(trained.history), folder / "plots" / "curves.png")
        print(f"curves: {path}", file=sys.stderr)
    else:
        print("no plot: pip install 'metashot[plots]' draws the curves", file=sys.stderr)
    masks = isinstance(config.test, MaskSizes)
    other = "marking everything" if masks else "nearest neighbour on pixels"
    print(
        f"{Path(name).stem}: {figure_of(config.test)} {_percent(reached)} on new classes "
        f"after {trained.step:,} meta-steps; {other}: {_percent(nearest)} "
        f"(same {config.test_episodes} episodes; run in {folder})"
    )
    return 0


def _percent(result: Evaluation) -> str:
    """The first figure of an evaluation, in percent with its interval."""
    value, half = next(iter(result.summary.values()))
    return f"{100 * value:.1f} ± {100 * half:.1f} %"
