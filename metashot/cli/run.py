"""What the commands that start a run share, and those about a finished one."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config as configs
from ..config import Experiment, MaskSizes, Sizes
from .main import CallError, parse

if TYPE_CHECKING:
    from ..data import Dataset
    from ..recognition import Classifier


def config_call(
    command: str, kind: Any, arguments: list[str], *, example: str, suffix: str = ""
) -> tuple[str, Any, Path]:
    """Parse `CONFIG [OPTIONS]`; gives the config's name, the options, and the folder to write.

    Args:
        command: its name.
        kind: dataclass of the options, with config, workdir and resume among them.
        arguments: without the command.
        example: of a call.
        suffix: of the default folder, runs/CONFIG.

    Raises:
        CallError: no config, or a mistake in an option.
    """
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(f"example:\n  {example}\n\nusage: metashot {command} CONFIG [OPTIONS]\n")
            print(f"metashot configs lists them, metashot {command} CONFIG --help the options.")
            raise SystemExit(0)
        raise CallError(f"which config? one of {', '.join(configs.installed())}, or a file")
    name, *rest = arguments

    def options_over(default: Experiment) -> Any:
        settings = {"command": f"{command} {name}", "example": example}
        return parse(kind, rest, default=kind(default), **settings)

    options = options_over(configs.read(name))
    folder: Path = options.workdir or Path("runs") / f"{Path(name).stem}{suffix}"
    if options.resume and (folder / "config.py").exists():
        options = options_over(configs.read(folder / "config.py"))  # as it began
    configs.check(options.config)
    return name, options, folder


def dataset_of(run: Path, config: Experiment, split: str, source: str | None) -> Dataset:
    """A split of the data of a run, from the folder `source` where they have moved.

    Raises:
        CallError: data that come from no folder, or have no such split.
    """
    data = config.data
    if source and not hasattr(data, "source"):
        raise CallError(f"--source: the data of {run} come from no folder")
    if source:
        data = dataclasses.replace(data, source=source)
    dataset = getattr(data.load(), split)
    if dataset is None:
        raise CallError(f"the data of {run} have no {split} split")
    return dataset


def classifier_of(run: Path, support: Path | None, checkpoint: str | int) -> Classifier:
    """A trained learner, adapted to a support folder; without one, the classes that it stores."""
    from ..recognition import few_shot, stored

    if support is None:
        return stored(run, checkpoint=checkpoint)
    return few_shot(run, support, checkpoint=checkpoint)


@contextmanager
def left_out_named() -> Iterator[list[str]]:
    """Names the pictures that are left out meanwhile on stderr; gives them, filled at the end."""
    from ..data.pictures import LeftOut

    left_out: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LeftOut)
        yield left_out
    for warning in caught:
        print(warning.message, file=sys.stderr)
    left_out += [str(w.message) for w in caught if issubclass(w.category, LeftOut)]


def checkpoint_of(text: str) -> str | int:
    """What `--checkpoint` names: "best", "last", or a step."""
    return int(text) if text.isdigit() else text


def interrupted(folder: Path, call: str) -> int:
    """Inside `except KeyboardInterrupt`: say how the work in a folder goes on; the exit code.

    Before anything was saved the exception goes its way.
    """
    if not (folder / "config.py").exists():
        raise
    again = f"metashot {call} --workdir {folder} --resume"
    print(f"interrupted; saved. Go on with: {again}", file=sys.stderr)
    return 130


def figure_of(test: Sizes | MaskSizes) -> str:
    """What a figure of test episodes is of."""
    if isinstance(test, MaskSizes):
        return f"{test.shot}-shot mean IoU"
    return f"{test.way}-way {test.shot}-shot accuracy"


def aligned(rows: list[list[str]]) -> str:
    """Lines of cells, each column as wide as its widest."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [zip(row, widths, strict=True) for row in rows]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)
