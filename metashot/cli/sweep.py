"""`metashot sweep CONFIG`: the same training from several seeds, and how far results differ."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..config import Experiment
from .main import CallError
from .run import config_call, figure_of, interrupted

EXAMPLE = "metashot sweep glyphs_meta_lstm --seeds 3 --steps 300"


@dataclass(frozen=True)
class Options:
    """Train and test one run a seed; every field of the config is an option."""

    config: Annotated[Experiment, tyro.conf.arg(name="")]
    seeds: int = 3
    """how many, from the config's seed on"""
    workdir: Path | None = None
    """folder of the runs seed0, seed1, ...; runs/CONFIG_sweep by default"""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """go on with the sweep in the workdir; what is finished is not trained again"""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print one JSON object as the last line"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    name, options, folder = config_call(
        "sweep", Options, arguments, example=EXAMPLE, suffix="_sweep"
    )
    config: Experiment = options.config
    if options.seeds < 1:
        raise CallError(f"--seeds is {options.seeds}; it is at least 1")

    from .. import experiment  # from here on, jax

    report = sys.stderr if options.json else sys.stdout
    rows: list[dict[str, Any]] = []
    try:
        for member in experiment.sweep(config, folder, seeds=options.seeds, resume=options.resume):
            value, half = next(iter(member.reached.summary.values()))
            rows.append({"seed": member.seed, config.test.figure: value, "interval": half})
            rows[-1] |= {"step": member.step, "run": str(member.folder)}
            shown = f"{100 * value:.2f} ± {100 * half:.2f} %"
            print(f"seed {member.seed}: {shown} at step {member.step:,}", file=report, flush=True)
    except KeyboardInterrupt:
        return interrupted(folder, f"sweep {name} --seeds {options.seeds}")
    figures = [row[config.test.figure] for row in rows]
    result = {
        "config": name,
        **vars(config.test),
        "episodes": config.test_episodes,
        "mean": statistics.fmean(figures),
        "lowest": min(figures),
        "highest": max(figures),
        "deviation": statistics.stdev(figures) if len(figures) > 1 else None,
        "seeds": rows,
    }
    print(_line(result, figure_of(config.test), folder), file=report)
    if options.json:
        print(json.dumps(result))
    return 0


def _line(result: dict[str, Any], figure: str, folder: Path) -> str:
    low, high, deviation = (result[name] for name in ("lowest", "highest", "deviation"))
    spread = "" if deviation is None else f", standard deviation {100 * deviation:.2f} %"
    return (
        f"{Path(result['config']).stem}: {figure} of "
        f"{len(result['seeds'])} seeds: mean {100 * result['mean']:.2f} %, "
        f"range {100 * low:.2f} to {100 * high:.2f} %{spread} "
        f"(same {result['episodes']} episodes; runs in {folder})"
    )
