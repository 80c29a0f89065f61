"""`metashot classes RUN`: the classes that a classifier stores, or the classifier without some."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .main import CallError, parse

EXAMPLE = "metashot classes runs/letters --remove ox --out runs/fewer"


@dataclass(frozen=True)
class Options:
    """Print the name of each class that a classifier stores, by label."""

    run: tyro.conf.Positional[Path]
    """folder of the run, or what `metashot enroll` wrote"""
    remove: tuple[str, ...] = ()
    """classes to leave out; the others are kept as they are"""
    out: Path | None = None
    """folder to write the smaller classifier to, and then its classes are printed"""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print one JSON object: names"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, arguments, command="classes", example=EXAMPLE)
    if options.remove and not options.out:
        raise CallError("--remove changes nothing in place: name a new folder with --out")
    if options.out and not options.remove:
        raise CallError("--out is for a classifier without some classes: name these with --remove")

    from ..loading import CLASSES, class_names  # from here on, jax

    names = class_names(options.run)
    if names is None:
        raise CallError(f"{options.run} stores no classes (no {CLASSES})")
    if options.out:
        from .. import enrolment, recognition

        enrolment.check_new(options.out)
        fewer = enrolment.forget(recognition.stored(options.run), options.remove)
        enrolment.save(fewer, options.out)
        names = fewer.names
    print(json.dumps({"names": names}) if options.json else "\n".join(names))
    return 0
