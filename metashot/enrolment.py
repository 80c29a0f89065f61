"""Growing a classifier from single pictures: folders of new classes become columns of its head."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from . import config as configs
from .base import Array, Examples, Learner, PyTree, Variables
from .checkpoints import Checkpoints
from .config import Batch, ClassFolders, ConfigError, EfficientNetLite0, Experiment, Imprinting
from .data import Prepare, four_views
from .data.folders import labelled
from .learners.imprinting import grow, imprint, task_of
from .loading import read_similarities, write_classes
from .recognition import (
    Classifier,
    Pictures,
    embeddings,
    labels_of,
    stored,
    stored_task,
)
from .runs import versions

CAPACITY = 64  # columns of a classifier that starts empty
POWER = 0.75  # of the pre-trained features: 5-way 1-shot +1.0 % on Flowers-102's training classes
SHIPPED = Path(__file__).parent / "shipped"


def embedded() -> Classifier:
    """A classifier without a class yet, on an embedding of drawn characters.

    It comes with metashot: the run of configs/glyphs_imprinting.py, without its classes.
    """
    return stored(SHIPPED / "glyphs")


def pretrained(path: str | os.PathLike[str] | None = None) -> Classifier:
    """A classifier without a class yet, on the embedding of EfficientNet-Lite0 (ImageNet-1k).

    Its features are raised to the power 0.75, so that strong ones weigh less. What it refuses
    (`classify(..., reject=)`) goes by the similarities of 64 classes of Caltech-101, as
    benchmarks/ship_efficientnet_lite0.py measured them; with weights of one's own it refuses
    nothing.

    Args:
        path: as for `metashot.pretrained.efficientnet_lite0`; None reads the weights of the extra
            "pretrained".

    Raises:
        ImportError: the extra is not installed.
        ValueError: weights of another network.
    """
    from .pretrained import efficientnet_lite0

    body = efficientnet_lite0(path)
    made = Imprinting(network=EfficientNetLite0(power=POWER), size=None, classes=CAPACITY)
    pictures = Pictures((224, 224, 3), Prepare(1 / 128, -127 / 128), crop=True)
    config = Experiment(ClassFolders(".", size=224), made, steps=1, train=Batch())
    columns = jnp.zeros((CAPACITY, 1280))
    variables: Variables = {
        "params": {
            "network": body["params"],
            "columns": columns,
            "scale": jnp.asarray(made.scale, columns.dtype),
        },
        "state": {"network": body["state"], "sum": columns, "count": columns[:, 0]},
    }
    learner = made.build(CAPACITY)
    task = stored_task(learner, variables, pictures)
    similarities = read_similarities(SHIPPED / "efficientnet_lite0", 0) if path is None else None
    return Classifier(learner, variables, task, (), pictures, config, similarities)


def enroll(
    classifier: Classifier,
    source: str | os.PathLike[str],
    *,
    merge: bool = False,
    views: bool = False,
) -> Classifier:
    """The classifier with the classes of a folder; the columns of all others keep their bits.

    Args:
        classifier: of `stored`, `pretrained` or `embedded`.
        source: a folder of pictures for each class; one picture is enough.
        merge: add the pictures of classes that were enrolled before to these.
        views: average four views of each picture (`metashot.data.four_views`), for photographs.

    Raises:
        FileNotFoundError: no such source.
        ValueError: no class folders, a learner that cannot store classes, a class that is there
            already, or with `merge` one that was trained.

    Example:
        mine = metashot.enroll(metashot.stored("runs/glyphs_imprinting"), "letters")
        for answer in metashot.classify(mine, ["one.png", "two.png"]):
            print(answer.image, *answer.ranked[0])
    """
    learner, variables, _, names, pictures, config, similarities = classifier
    made = config.learner
    if not isinstance(made, Imprinting):
        raise ConfigError(
            f"classes are enrolled into an Imprinting, not into {type(made).__name__}"
        )
    shown = labelled(source, **pictures.reading)
    _refuse(classifier, shown.names, merge)
    names += tuple(name for name in shown.names if name not in names)
    capacity = len(variables["params"]["columns"])
    while capacity < len(names):
        capacity *= 2
    variables = grow(variables, capacity)
    labels = np.array([names.index(name) for name in shown.names])[labels_of(shown)]
    shower = _seeing_views(learner) if views else learner
    z = embeddings(classifier._replace(learner=shower), np.asarray(shown.arrays.images))
    embedded = learner._replace(adapt=lambda _, support, key: task_of(support, capacity))
    shots = Examples(jnp.asarray(z), jnp.asarray(labels), jnp.ones(len(z), bool))
    variables = jax.jit(partial(imprint, embedded))(variables, shots)
    config = dataclasses.replace(config, learner=dataclasses.replace(made, classes=capacity))
    task = stored_task(learner, variables, pictures)
    return Classifier(learner, variables, task, names, pictures, config, similarities)


def _seeing_views(learner: Learner) -> Learner:
    """Which makes a column of the mean of four views of each example, which count as one."""

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        # One view at a time: all at once take much memory.
        each = lambda x: learner.adapt(variables, support._replace(inputs=x), key)
        tasks = jax.lax.map(each, four_views(support.inputs))
        return {name: x.mean(0) if name == "columns" else x[0] for name, x in tasks.items()}

    return learner._replace(adapt=adapt)


def _refuse(classifier: Classifier, new: tuple[str, ...], merge: bool) -> None:
    """Refuse names that are there already and cannot or should not be added to."""
    counts = np.asarray(classifier.variables["state"]["count"])
    for name in sorted(set(new) & set(classifier.names)):
        if not merge:
            raise ConfigError(f"there is a class {name} already: rename the folder, or merge")
        if not counts[classifier.names.index(name)]:
            raise ConfigError(
                f"class {name} was trained, so it has no sum of examples to add to: "
                "rename the folder"
            )


def forget(classifier: Classifier, names: Iterable[str]) -> Classifier:
    """The classifier without some of its classes; the columns of all others keep their bits.

    The others keep their order too, and move up to the labels that become free.

    Args:
        classifier: of `stored` or `enroll`.
        names: of the classes to remove.

    Raises:
        ValueError: a name of no class.

    Example:
        mine = metashot.forget(metashot.stored("runs/letters"), ["ox"])
    """
    gone = set(names)
    for name in sorted(gone.difference(classifier.names)):
        close = difflib.get_close_matches(name, classifier.names)
        hint = f"did you mean {' or '.join(close)}?" if close else "see `metashot classes`"
        raise ConfigError(f"there is no class {name}: {hint}")
    kept = [label for label, name in enumerate(classifier.names) if name not in gone]
    params, state = classifier.variables["params"], classifier.variables["state"]
    move = lambda x: jnp.zeros_like(x).at[: len(kept)].set(x[jnp.array(kept, int)])
    variables: Variables = {
        "params": {**params, "columns": move(params["columns"])},
        "state": {**state, "sum": move(state["sum"]), "count": move(state["count"])},
    }
    task = stored_task(classifier.learner, variables, classifier.pictures)
    left = tuple(classifier.names[label] for label in kept)
    return classifier._replace(variables=variables, task=task, names=left)


def save(classifier: Classifier, folder: str | os.PathLike[str]) -> None:
    """Write a classifier as the folder of a run, for `stored` and the command line.

    Raises:
        ValueError: a folder that exists.
    """
    place = Path(folder)
    check_new(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    _, variables, _, names, pictures, config, similarities = classifier
    facts = {"input_shape": pictures.shape, "prepare": pictures.prepare, "crop": pictures.crop}
    facts |= {"versions": versions()}
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as temporary:
        whole = Path(temporary) / "run"  # renamed once it is whole
        whole.mkdir()
        (whole / "config.py").write_text(configs.as_text(config))
        (whole / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
        write_classes(whole, names, similarities)
        with closing(Checkpoints(whole / "checkpoints")) as checkpoints:
            checkpoints.save(0, {"variables": variables}, score=0.0)
        whole.rename(place)


def check_new(place: Path, kind: str = "folder") -> None:
    """Refuse a folder, or another kind of place, that exists: nothing is written over.

    Raises:
        ValueError: it does.
    """
    if place.exists():
        raise ConfigError(f"{place} exists: name a new {kind}")
