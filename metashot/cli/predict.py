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
    if options.csv and options.json:
        raise CallError("--csv and --json: choose one")

    from ..recognition import classify  # from here on, jax

    with left_out_named() as left_out:
        checkpoint = checkpoint_of(options.checkpoint)
        classifier = classifier_of(options.run, options.support, checkpoint)
        predictions = classify(classifier, options.images)
    _tell(predictions, options)
    return 1 if left_out else 0


def _tell(predictions: list[Prediction], options: Options) -> None:
    if options.json:
        print(json.dumps({"predictions": [_object(p, options.top) for p in predictions]}))
    elif options.csv:
        table = csv.writer(sys.stdout)
        table.writerow(("image", "class", "probability"))
        table.writerows((p.image, name, q) for p in predictions for name, q in p.ranked[:1])
    else:
        for prediction in predictions:
            ranked = prediction.ranked[: options.top]
            print(f"{prediction.image}: " + ", ".join(f"{n} {100 * q:.1f} %" for n, q in ranked))


def _object(prediction: Prediction, top: int) -> dict[str, Any]:
    ranked = [{"class": name, "probability": q} for name, q in prediction.ranked[:top]]
    return {"image": prediction.image, **ranked[0], "top": ranked}
