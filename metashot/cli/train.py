"""`metashot train CONFIG`: meta-train, then say what was reached."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from .. import config as configs
from ..config import Experiment
from .main import CallError, parse

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


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(f"example:\n  {EXAMPLE}\n\nusage: metashot train CONFIG [OPTIONS]\n")
            print("metashot configs lists the configs, metashot train CONFIG --help the options.")
            return 0
        raise CallError(f"which config? one of {', '.join(configs.installed())}, or a file")
    name, *rest = arguments
    default = configs.read(name)

    def options_over(default: Experiment) -> Options:
        settings = {"command": f"train {name}", "example": EXAMPLE}
        return parse(Options, rest, default=Options(default), **settings)

    options = options_over(default)
    folder = options.workdir or Path("runs") / Path(name).stem
    if options.resume and (folder / "config.py").exists():
        options = options_over(configs.read(folder / "config.py"))  # as it began
    config = options.config
    configs.check(config)

    from .. import experiment, plots  # from here on, jax

    try:
        trained, parts = experiment.run(config, folder, resume=options.resume)
    except KeyboardInterrupt:
        if not (folder / "config.py").exists():
            raise
        again = f"metashot train {name} --workdir {folder} --resume"
        print(f"interrupted; saved. Go on with: {again}", file=sys.stderr)
        return 130
    print(f"testing on {config.test_episodes} episodes of new classes", file=sys.stderr)
    reached, nearest = experiment.compare(config, parts, trained.variables)
    if plots.available():
        print(f"curves: {plots.curves(folder)}", file=sys.stderr)
    else:
        print("no plot: pip install 'metashot[plots]' draws the curves", file=sys.stderr)
    way, shot = config.test.way, config.test.shot
    print(
        f"{Path(name).stem}: {way}-way {shot}-shot accuracy {_percent(reached)} on new classes "
        f"after {trained.step:,} meta-steps; nearest neighbour on pixels: {_percent(nearest)} "
        f"(same {config.test_episodes} episodes; run in {folder})"
    )
    return 0


def _percent(result: Evaluation) -> str:
    """The first figure of an evaluation, in percent with its interval."""
    value, half = next(iter(result.summary.values()))
    return f"{100 * value:.1f} ± {100 * half:.1f} %"
