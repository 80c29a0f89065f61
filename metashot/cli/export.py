"""`metashot export RUN --out FILE`: a classifier as one file that needs jax, but not metashot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from .main import parse
from .run import checkpoint_of, classifier_of, left_out_named

EXAMPLE = "metashot export runs/letters --out letters.npz"


@dataclass(frozen=True)
class Options:
    """Write a classifier as one file that runs by jax alone, on cpu, cuda and tpu.

    numpy.load reads it: "model" is a serialized jax.export.Exported from pictures [n, height,
    width, channels] uint8 to probabilities, "names" are its classes. Of weight imprinting it gives
    embeddings too, to imprint further classes on. docs/export.md has the lines that do this.
    """

    run: tyro.conf.Positional[Path]
    """folder of the run, or what `metashot enroll` wrote"""
    out: Path
    """file to write, .npz by custom"""
    support: Path | None = None
    """a folder of pictures for each class, one picture is enough; with any learner"""
    checkpoint: str = "best"
    """best by validation, last, or a step"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, arguments, command="export", example=EXAMPLE)

    from .. import enrolment, portable  # from here on, jax

    enrolment.check_new(options.out, "file")
    with left_out_named() as left_out:
        checkpoint = checkpoint_of(options.checkpoint)
        classifier = classifier_of(options.run, options.support, checkpoint)
    portable.export(classifier, options.out)
    size = "x".join(map(str, classifier.pictures.shape))
    print(
        f"{len(classifier.names)} classes of {size} pictures, for {', '.join(portable.PLATFORMS)}, "
        f"in {options.out}: {options.out.stat().st_size / 1e6:.1f} MB"
    )
    return 1 if left_out else 0
