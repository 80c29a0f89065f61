"""One's own pictures: a trained learner that knows a support, or stored classes, names them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from .base import Examples, Learner, PyTree, Variables
from .config import ConfigError, Experiment, Imprinting
from .data import Dataset, Prepare
from .data.folders import labelled
from .data.pictures import LeftOut, squares
from .devices import compiler_options
from .learners.imprinting import grow
from .loading import class_names, load, read_config, read_facts, trained_way

BATCH = 32  # pictures answered at once


class Pictures(NamedTuple):
    """How a picture file becomes an input."""

    shape: tuple[int, int, int]  # height, width, channels
    prepare: Prepare = Prepare()  # makes floats of it
    crop: bool = False  # to the square in its middle; else it is stretched

    @property
    def reading(self) -> dict[str, Any]:
        """Keywords of those who read files."""
        return {"size": self.shape[0], "channels": self.shape[2], "crop": self.crop}


class Classifier(NamedTuple):
    """A task that is ready to answer, and what its classes are called."""

    learner: Learner
    variables: Variables
    task: PyTree
    names: tuple[str, ...]  # of class 0, 1, ...
    pictures: Pictures
    config: Experiment  # of the learner


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
    pictures = _pictures_of(Path(run))
    examples = labelled(support, **pictures.reading)
    config = read_config(run)
    trained = trained_way(config)
    way = examples.classes if examples.classes > trained else None
    learner, variables, *_ = load(run, checkpoint=checkpoint, way=way)
    if isinstance(config.learner, Imprinting):  # whose columns are of a number of their own
        capacity = len(variables["params"]["columns"])
        variables = grow(variables, max(capacity, examples.classes))
    adapt = jax.jit(learner.adapt, compiler_options=compiler_options())
    everything = as_examples(examples.arrays.images, labels_of(examples), pictures)
    task = adapt(variables, everything, jax.random.key(0))
    return Classifier(learner, variables, task, examples.names, pictures, config)


def stored(run: str | Path, *, checkpoint: str | int = "best") -> Classifier:
    """A trained classifier, with the classes that it was trained on or that were enrolled.

    Args:
        run: folder of the run, or what `metashot enroll` wrote.
        checkpoint: "best" by validation, "last", or a step.

    Raises:
        ValueError: no run, or one that stores no classes.
    """
    pictures = _pictures_of(Path(run))
    names = class_names(Path(run))
    if names is None:
        raise ConfigError(f"{run} stores no classes: give a support folder with examples of some")
    config = read_config(run)
    learner, variables, *_ = load(run, checkpoint=checkpoint)
    task = stored_task(learner, variables, pictures)
    return Classifier(learner, variables, task, names, pictures, config)


def stored_task(learner: Learner, variables: Variables, pictures: Pictures) -> PyTree:
    """The task of a classifier that is shown no support: its stored classes."""
    nothing = np.zeros((0, *pictures.shape), np.uint8)
    return learner.adapt(variables, as_examples(nothing, np.zeros(0, np.int32), pictures))


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
    read = lambda i: Path(paths[i]).read_bytes()
    pixels, ailing = squares(read, len(paths), **classifier.pictures.reading)
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
    learner, variables, task, names, pictures, _ = classifier
    predict = jax.jit(learner.predict, compiler_options=compiler_options())
    found = np.zeros((len(images), len(names)), np.float32)
    for rows, batch in in_batches(images):
        logits = predict(variables, task, pictures.prepare(jnp.asarray(batch)))
        chances = np.asarray(jax.nn.softmax(logits))[:, : len(names)]
        found[rows] = chances[: len(found[rows])]
    return found


def in_batches(images: NDArray[np.uint8]) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """(rows, their images) in batches of one size, so of one program; the last is filled up."""
    size = min(BATCH, len(images))
    for start in range(0, len(images), max(size, 1)):
        rows = slice(start, start + size)
        batch = np.zeros((size, *images.shape[1:]), np.uint8)
        batch[: len(images[rows])] = images[rows]
        yield rows, batch


def _pictures_of(run: Path) -> Pictures:
    """How the pictures that a run was trained on became its inputs."""
    facts = read_facts(run)
    shape = tuple(facts["input_shape"])
    if facts.get("prepare") is None or len(shape) != 3 or shape[0] != shape[1]:
        raise ConfigError(f"{run} does not say how a picture becomes an input of its learner")
    return Pictures(shape, Prepare(*facts["prepare"]), facts.get("crop", False))


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """[n]: the class of each image."""
    return np.repeat(np.arange(dataset.classes), np.asarray(dataset.arrays.count))


def as_examples(images: Any, labels: NDArray[np.integer], pictures: Pictures) -> Examples:
    """Images [n, H, W, C] uint8 as a support set; a label of -1 does not count."""
    targets = jnp.asarray(labels, jnp.int32)
    return Examples(pictures.prepare(jnp.asarray(images)), targets, targets >= 0)
