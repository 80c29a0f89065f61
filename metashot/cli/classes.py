"""`metashot classes RUN`: the classes that a classifier stores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .main import CallError, parse

EXAMPLE = "metashot classes runs/letters"


@dataclass(frozen=True)
class Options:
    """Print the name of each class that a classifier stores, by label."""

    run: tyro.conf.Positional[Path]
    """folder of the run, or what `metashot enroll` wrote"""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print one JSON object: names"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, arguments, command="classes", example=EXAMPLE)

    from ..loading import CLASSES, class_names

    names = class_names(options.run)
    if names is None:
        raise CallError(f"{options.run} stores no classes (no {CLASSES})")
    print(json.dumps({"names": names}) if options.json else "\n".join(names))
    return 0
