"""`metashot predict RUN IMAGE...`: what one's own pictures show."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .main import CallError, parse
from .run import checkpoint_of, classifier_of, left_out_named

if TYPE_CHECKING:
    from ..recognition import Prediction

EXAMPLE = "metashot predict runs/letters one.png two.png"
NONE = "none of these"
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Options:
    """Say which class each picture shows: one that the run stores, or one of a support folder."""

    run: tyro.conf.Positional[Path]
    """folder of the run, or what `metashot enroll` wrote"""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """pictures to name"""
    support: Path | None = None
    """a folder of pictures for each class, one picture is enough; with any learner"""
    checkpoint: str = "best"
    """best by validation, last, or a step"""
    top: int = 3
    """classes to tell for each picture"""
    reject: float | None = None
    """answer "none of these" where a picture is like no class, by thresholds that wrongly refuse
    about this share of the pictures of a class, or fewer: 0.05, say. For classes of an Imprinting;
    its training measured the thresholds on classes that it did not see"""
    csv: Switch = False
    """print a table: image,class,probability"""
    json: Switch = False
    """print one JSON object"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, arguments, command="predict", example=EXAMPLE)
    if not options.images:
        raise CallError("which pictures? name them after the run")
    for image in options.images:
        if not image.is_file():
            raise CallError(
                f"{image} is {'a folder' if image.is_dir() else 'no file'}: name pictures"
            )
    if options.top < 1:
        raise CallError(f"--top is {options.top}; it is at least 1")
    if options.reject is not None and not 0 < options.reject < 1:
        raise CallError(f"--reject is {options.reject}; it is a share, above 0 and under 1")
    if options.csv and options.json:
        raise CallError("--csv and --json: choose one")

    from ..recognition import classify  # from here on, jax

    with left_out_named() as left_out:
        checkpoint = checkpoint_of(options.checkpoint)
        classifier = classifier_of(options.run, options.support, checkpoint)
        predictions = classify(classifier, options.images, top=options.top, reject=options.reject)
    _tell(predictions, options)
    return 1 if left_out else 0


def _tell(predictions: list[Prediction], options: Options) -> None:
    if options.json:
        print(json.dumps({"predictions": [_object(p) for p in predictions]}))
    elif options.csv:
        table = csv.writer(sys.stdout)
        table.writerow(("image", "class", "probability"))
        table.writerows((p.image, *(p.ranked[0] if p.known else (NONE, ""))) for p in predictions)
    else:
        for prediction in predictions:
            told = ", ".join(f"{n} {100 * q:.1f} %" for n, q in prediction.ranked)
            print(f"{prediction.image}: " + (told if prediction.known else f"{NONE} ({told})"))


def _object(prediction: Prediction) -> dict[str, Any]:
    ranked = [{"class": name, "probability": q} for name, q in prediction.ranked]
    first = ranked[0] if prediction.known else {"class": None, "probability": None}
    return {"image": prediction.image, **first, "top": ranked}
