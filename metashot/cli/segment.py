"""`metashot segment RUN --support IMAGE MASK IMAGE...`: mark in pictures what a mask shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .main import CallError, parse
from .run import checkpoint_of

EXAMPLE = "metashot segment runs/glyphs_segmentation --support one.png mask.png two.png"
Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Options:
    """Mark what the support's masks show: a mask and an overlay for each picture."""

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """pictures to mark"""
    support: Annotated[tuple[Pair, ...], tyro.conf.UseAppendAction] = ()
    """a picture and its mask, an indexed PNG in which all but 0 is of the class; once or more"""
    out: Path = Path("masks")
    """folder to write IMAGE_mask.png and IMAGE_overlay.png to"""
    checkpoint: str = "best"
    """best by validation, last, or a step"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, _support_last(arguments), command="segment", example=EXAMPLE)
    if not options.images:
        raise CallError("which pictures? name them after the run")
    if not options.support:
        raise CallError(f"what to mark? --support IMAGE MASK shows it: {EXAMPLE}")
    for path in (*options.images, *(path for pair in options.support for path in pair)):
        if not path.is_file():
            raise CallError(
                f"{path} is {'a folder' if path.is_dir() else 'no file'}: name pictures"
            )
    for stem, count in Counter(image.stem for image in options.images).items():
        if count > 1:
            raise CallError(f"{count} pictures are called {stem}: mark them one at a time")
        for path in _written(options.out, stem):
            if path.exists():
                raise CallError(f"{path} is there already: --out names another folder")

    from PIL import Image

    from .. import segmenting  # from here on, jax

    checkpoint = checkpoint_of(options.checkpoint)
    marks = segmenting.segmenter(options.run, options.support, checkpoint=checkpoint)
    masks = segmenting.segment(marks, options.images)
    options.out.mkdir(parents=True, exist_ok=True)
    for image, mask in zip(options.images, masks, strict=True):
        as_mask, as_overlay = _written(options.out, image.stem)
        Image.fromarray(mask.astype("uint8") * 255).save(as_mask)
        segmenting.overlay(image, mask).save(as_overlay)
        print(f"{as_mask} {as_overlay}: {100 * mask.mean():.1f} % marked")
    return 0


def _support_last(arguments: list[str]) -> list[str]:
    """Pictures may come after a support, which the parser would not take apart."""
    rest, support = list(arguments), list[str]()
    while "--support" in rest:
        i = rest.index("--support")
        support, rest = support + rest[i : i + 3], rest[:i] + rest[i + 3 :]
    return rest + support


def _written(out: Path, stem: str) -> tuple[Path, Path]:
    return out / f"{stem}_mask.png", out / f"{stem}_overlay.png"
