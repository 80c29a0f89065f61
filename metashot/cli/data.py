"""`metashot data prepare NAME`: put a data set into the cache."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .main import CallError, parse

EXAMPLE = "metashot data prepare omniglot --source ~/Downloads"


@dataclass(frozen=True)
class Options:
    """Decode a data set once, into the cache that training reads."""

    name: tyro.conf.Positional[Literal["glyphs", "omniglot"]]
    """of the data set"""
    source: Path | None = None
    """folder that holds its archives"""
    download: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """fetch the official archives"""
    repacked: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """accept archives other than the official ones"""
    size: int = 28
    """side of a picture in pixels"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        arguments = ["prepare", "--help"]
    if arguments[0] != "prepare":
        raise CallError(f"there is no data command {arguments[0]}; there is prepare")
    options = parse(Options, arguments[1:], command="data prepare", example=EXAMPLE)

    from ..data import cache, glyphs, prepare_omniglot

    print(f"preparing {options.name}", file=sys.stderr)
    if options.name == "glyphs":
        parts = glyphs(size=options.size)
        classes = sum(part.classes for part in parts if part)
        images = sum(len(part.arrays.images) for part in parts if part)
    else:
        dataset = prepare_omniglot(
            options.source, size=options.size, repacked=options.repacked, download=options.download
        )
        classes, images = dataset.classes, len(dataset.arrays.images)
    print(f"{options.name}: {images:,} images of {classes:,} classes, ready in {cache.folder()}")
    return 0
