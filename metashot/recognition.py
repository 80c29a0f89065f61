"""One's own pictures: a trained learner that knows a support, or stored classes, names them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from .base import Array, Examples, Learner, PyTree, Variables
from .config import ConfigError, Experiment, Imprinting, Learnet, Siamese
from .data import Dataset, Prepare
from .data.folders import labelled
from .data.pairs import constant
from .data.pictures import LeftOut, squares
from .devices import compiler_options, cores
from .learners.imprinting import grow, scale_of
from .loading import (
    Similarities,
    class_names,
    load,
    read_config,
    read_facts,
    read_similarities,
    trained_way,
)


def batch_size() -> int:
    """Pictures in a program: few on a CPU, where programs run side by side.

    The maps of more would lie in memory that the system clears for each call: on a core
    EfficientNet-Lite0 takes 22 ms for each of two pictures, and 29 for each of 32.
    """
    return 2 if jax.default_backend() == "cpu" else 64


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
    similarities: Similarities | None = None  # of pictures to their class, where they are known


class Prediction(NamedTuple):
    """What a picture shows: (name, probability) of classes, the most likely first."""

    image: str
    ranked: tuple[tuple[str, float], ...]
    known: bool = True  # False: none of these, by `classify(..., reject=)`


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
            or with more classes than the run's parameters are for; a picture of a single colour,
            of which a Learnet or a Siamese would make an exemplar.
    """
    pictures = pictures_of(Path(run))
    examples = labelled(support, **pictures.reading)
    config = read_config(run)
    if isinstance(config.learner, Learnet | Siamese):
        for row in constant(np.asarray(examples.arrays.images)):
            raise ConfigError(
                f"{examples.paths[row]} is empty or of a single colour, so there is nothing to "
                "match: give another exemplar"
            )
    trained = trained_way(config)
    way = examples.classes if examples.classes > trained else None
    learner, variables, step, _ = load(run, checkpoint=checkpoint, way=way)
    if isinstance(config.learner, Imprinting):  # whose columns are of a number of their own
        capacity = len(variables["params"]["columns"])
        variables = grow(variables, max(capacity, examples.classes))
    adapt = jax.jit(learner.adapt, compiler_options=compiler_options())
    everything = as_examples(examples.arrays.images, labels_of(examples), pictures)
    task = adapt(variables, everything, jax.random.key(0))
    found = read_similarities(Path(run), step)
    return Classifier(learner, variables, task, examples.names, pictures, config, found)


def stored(run: str | Path, *, checkpoint: str | int = "best") -> Classifier:
    """A trained classifier, with the classes that it was trained on or that were enrolled.

    Args:
        run: folder of the run, or what `metashot enroll` wrote.
        checkpoint: "best" by validation, "last", or a step.

    Raises:
        ValueError: no run, or one that stores no classes.
    """
    pictures = pictures_of(Path(run))
    names = class_names(Path(run))
    if names is None:
        raise ConfigError(
            f"{run} stores no classes: give a support folder with examples of some, or a run of an "
            "Imprinting"
        )
    config = read_config(run)
    learner, variables, step, _ = load(run, checkpoint=checkpoint)
    task = stored_task(learner, variables, pictures)
    columns = int(task["known"].sum())
    if columns != len(names):
        raise ConfigError(f"{run} names {len(names)} classes, but its checkpoint has {columns}")
    found = read_similarities(Path(run), step)
    return Classifier(learner, variables, task, names, pictures, config, found)


def stored_task(learner: Learner, variables: Variables, pictures: Pictures) -> PyTree:
    """The task of a classifier that is shown no support: its stored classes."""
    nothing = np.zeros((0, *pictures.shape), np.uint8)
    return learner.adapt(variables, as_examples(nothing, np.zeros(0, np.int32), pictures))


def classify(
    classifier: Classifier,
    images: Iterable[str | Path],
    *,
    top: int | None = None,
    reject: float | None = None,
) -> list[Prediction]:
    """What picture files show; one that cannot be decoded is left out with a warning.

    Args:
        classifier: of `few_shot`, `stored` or `enroll`.
        images: picture files.
        top: classes to rank for each picture; None ranks all.
        reject: the share of pictures of its classes that may be refused wrongly, above 0 and under
            1. A picture that is less similar to each class than all but this share of that class's
            pictures are is none of these: its prediction is not `known`.

    Raises:
        OSError: a file cannot be opened.
        ValueError: no class yet, a bad share, or a classifier without similarities.

    Example:
        classifier = metashot.few_shot("runs/glyphs_prototypical", "letters")
        for answer in metashot.classify(classifier, ["one.png", "two.png"]):
            print(answer.image, *answer.ranked[0])
    """
    if not classifier.names:
        raise ConfigError("there is no class yet: enroll some")
    least = None if reject is None else thresholds(classifier, reject)
    paths = [str(path) for path in images]
    read = lambda i: Path(paths[i]).read_bytes()
    pixels, ailing = squares(read, len(paths), **classifier.pictures.reading)
    for i in ailing:
        message = f"{paths[i]} is not a picture that can be decoded: it is left out"
        warnings.warn(message, LeftOut, stacklevel=2)
    kept = [i for i in range(len(paths)) if i not in ailing]
    logits = _logits(classifier, pixels[kept])
    most = len(classifier.names) if top is None else min(top, len(classifier.names))
    chances, order = map(np.asarray, jax.lax.top_k(jax.nn.softmax(logits), most))
    ranking = map(zip, order.tolist(), chances.tolist())
    known: Any = np.ones(len(kept), bool)
    if least is not None:
        known = np.any(logits / _scale(classifier) >= least, axis=1)
    return [
        Prediction(paths[i], tuple((classifier.names[c], q) for c, q in ranked), bool(like))
        for i, ranked, like in zip(kept, ranking, known, strict=True)
    ]


def thresholds(classifier: Classifier, share: float) -> NDArray[np.float64]:
    """[classes]: the cosine with a class's column that all but a share of its pictures reach.

    It is that of as many examples as the class has, or of the next smaller number that was
    measured. A trained class has that of a single example, which is rather low: how similar
    pictures that training did not see are to its column is not known.

    Raises:
        ValueError: a bad share, or a classifier without similarities.
    """
    if not 0 < share < 1:
        raise ValueError(f"reject is {share}; it is a share of pictures, above 0 and under 1")
    made, similarities = classifier.config.learner, classifier.similarities
    if not isinstance(made, Imprinting):
        raise ConfigError(
            f"pictures are refused by an Imprinting, by their cosines; {type(made).__name__} has "
            "no measure of how similar a picture is to its class: leave reject out"
        )
    if not similarities:
        raise ConfigError(
            "no similarities were measured for this checkpoint, so there is no threshold to refuse "
            "pictures by: `metashot train CONFIG --workdir RUN --resume` measures those of a run's "
            "best checkpoint, and what is enrolled from it keeps them"
        )
    count = np.asarray(classifier.task["count"])[: len(classifier.names)]
    shots = sorted(similarities)
    quantiles = [similarities[n] for n in shots]
    least = [np.interp(share, np.linspace(0, 1, len(q)), q) for q in quantiles]
    return np.array(least)[np.searchsorted(shots, np.maximum(count, shots[0]), "right") - 1]


def _scale(classifier: Classifier) -> float:
    """What the cosines of an Imprinting are multiplied by in its logits."""
    return float(scale_of(classifier.variables, classifier.config.learner.scale_param))


def probabilities(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, classes] of images [n, height, width, channels]: the softmax of the learner's logits."""
    return np.asarray(jax.nn.softmax(_logits(classifier, images)))


def _logits(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, classes] of images [n, height, width, channels]."""
    learner, variables, task, names, pictures = classifier[:5]
    predict = jax.jit(learner.predict, compiler_options=compiler_options())
    answer = lambda batch: predict(variables, task, pictures.prepare(batch))
    return side_by_side(answer, images)[:, : len(names)]


def embeddings(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, D] of images [n, height, width, channels]: their unit embeddings by an Imprinting."""
    learner, variables, pictures = classifier.learner, classifier.variables, classifier.pictures
    params, columns = variables["params"], variables["params"]["columns"]
    size = batch_size()
    room = np.zeros((size, columns.shape[1]), columns.dtype)
    variables = {**variables, "params": {**params, "columns": room}}
    each = np.arange(size)  # a class of its own
    adapt = jax.jit(learner.adapt, compiler_options=compiler_options())
    answer = lambda batch: adapt(variables, as_examples(batch, each, pictures))["columns"]
    return side_by_side(answer, images)


def side_by_side(
    answer: Callable[[NDArray[np.uint8]], Array], images: NDArray[np.uint8]
) -> NDArray[Any]:
    """[n, ...]: what a program answers to images [n, height, width, channels], a batch at a time.

    Of a network on so few pictures XLA runs little on more than one core, so programs run at once.
    """
    size = batch_size()

    def answered(start: int) -> NDArray[Any]:
        some = images[start : start + size]
        batch = np.zeros((size, *images.shape[1:]), np.uint8)  # filled up: one program for all
        batch[: len(some)] = some
        return np.asarray(answer(batch))[: len(some)]

    first, *others = range(0, max(len(images), 1), size)
    found = [answered(first)]  # which compiles
    with ThreadPoolExecutor(cores()) as pool:
        return np.concatenate([*found, *pool.map(answered, others)])


def pictures_of(run: Path) -> Pictures:
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
    return Examples(pictures.prepare(images), targets, targets >= 0)
