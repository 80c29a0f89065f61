"""One's own pictures: a support folder makes a trained learner a classifier of its classes."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from .base import Examples, Learner, PyTree, Variables
from .config import ConfigError
from .data import Dataset, Prepare
from .data.folders import labelled
from .data.pictures import LeftOut, squares
from .loading import load, read_config, trained_way

BATCH = 32  # pictures answered at once


class Classifier(NamedTuple):
    """A task that is ready to answer, and what its classes are called."""

    learner: Learner
    variables: Variables
    task: PyTree
    names: tuple[str, ...]  # of class 0, 1, ...
    shape: tuple[int, int, int]  # of a picture: height, width, channels
    prepare: Prepare  # makes floats of pictures


class Prediction(NamedTuple):
    """What a picture shows: (name, probability) of each class, the most likely first."""

    image: str
    ranked: tuple[tuple[str, float], ...]


def few_shot(
    run: str | Path, support: str | os.PathLike[str], *, checkpoint: str | int = "best"
) -> Classifier:
    """A trained learner, adapted to the classes of a folder.

    Args:
        run: folder of the run.
        support: a folder of pictures for each class; one picture is enough.
        checkpoint: "best" by validation, "last", or a step.

    Raises:
        FileNotFoundError: no such support.
        ValueError: no run, one that was not trained on pictures, a support without class folders,
            or with more classes than the run's parameters are for.
    """
    shape, prepare = _pictures_of(Path(run))
    examples = labelled(support, size=shape[0], channels=shape[2])
    trained = trained_way(read_config(run))
    way = examples.classes if examples.classes > trained else None
    learner, variables, *_ = load(run, checkpoint=checkpoint, way=way)
    adapt = jax.jit(learner.adapt)
    task = adapt(variables, _examples(examples, prepare), jax.random.key(0))
    return Classifier(learner, variables, task, examples.names, shape, prepare)


def classify(classifier: Classifier, images: Iterable[str | Path]) -> list[Prediction]:
    """What picture files show; one that cannot be decoded is left out with a warning.

    Raises:
        OSError: a file cannot be opened.

    Example:
        classifier = metashot.few_shot("runs/glyphs_prototypical", "letters")
        for image, ranked in metashot.classify(classifier, ["one.png", "two.png"]):
            print(image, *ranked[0])
    """
    paths = [str(path) for path in images]
    size, _, channels = classifier.shape
    pixels, ailing = squares(lambda i: Path(paths[i]).read_bytes(), len(paths), size, channels)
    for i in ailing:
        message = f"{paths[i]} is not a picture that can be decoded: it is left out"
        warnings.warn(message, LeftOut, stacklevel=2)
    kept = [i for i in range(len(paths)) if i not in ailing]
    found = probabilities(classifier, pixels[kept])
    order = np.argsort(-found, axis=1, kind="stable")
    return [
        Prediction(paths[i], tuple((classifier.names[c], float(row[c])) for c in best))
        for i, row, best in zip(kept, found, order, strict=True)
    ]


def probabilities(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, classes] of images [n, height, width, channels]: the softmax of the learner's logits."""
    learner, variables, task, names, shape, prepare = classifier
    predict = jax.jit(learner.predict)
    rows = min(BATCH, max(len(images), 1))
    found = [np.zeros((0, len(names)), np.float32)]
    for start in range(0, len(images), rows):
        batch = np.zeros((rows, *shape), np.uint8)  # one size, so one program
        some = images[start : start + rows]
        batch[: len(some)] = some
        logits = predict(variables, task, prepare(jnp.asarray(batch)))
        found.append(np.asarray(jax.nn.softmax(logits))[: len(some), : len(names)])
    return np.concatenate(found)


def _pictures_of(run: Path) -> tuple[tuple[int, int, int], Prepare]:
    """The shape of the pictures that a run was trained on, and how they became floats."""
    if not (run / "run.json").exists():
        raise ConfigError(f"{run} holds no run of metashot (no run.json)")
    facts = json.loads((run / "run.json").read_text())
    shape = tuple(facts["input_shape"])
    if facts.get("prepare") is None or len(shape) != 3 or shape[0] != shape[1]:
        raise ConfigError(f"{run} does not say how a picture becomes an input of its learner")
    return shape, Prepare(*facts["prepare"])


def _examples(dataset: Dataset, prepare: Prepare) -> Examples:
    """All images of a data set, as a support set."""
    arrays = dataclasses.asdict(dataset.arrays)
    targets = np.repeat(np.arange(dataset.classes), arrays["count"])
    images = prepare(jnp.asarray(arrays["images"]))
    return Examples(images, jnp.asarray(targets, jnp.int32), jnp.ones(len(images), bool))
