"""A classifier as one file that runs by jax, without metashot: docs/export.md says how."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from .base import Array
from .config import Imprinting
from .enrolment import check_new
from .learners.imprinting import scale_of
from .nets import unit, with_embedding
from .recognition import Classifier
from .runs import versions

PLATFORMS = ("cpu", "cuda", "tpu")


def export(classifier: Classifier, path: str | os.PathLike[str]) -> None:
    """Write a classifier as a file for `numpy.load`, which runs where metashot is not installed.

    Its entry "model" is a `jax.export.Exported` for cpu, cuda and tpu, with the weights in it: from
    pictures [n, height, width, channels] uint8, for any n, to "probabilities" [n, classes] and, of
    an `imprinting`, "embeddings" [n, D] of length one. Beside it are "names", "crop" and
    "versions", and of an `imprinting` "columns" [classes, D] of length one and "scale".

    Args:
        classifier: of `stored`, `few_shot` or `enroll`.
        path: of the new file, letters.npz say.

    Raises:
        ValueError: a file that exists.

    Example:
        metashot.export(metashot.stored("runs/letters"), "letters.npz")
    """
    place = Path(path)
    check_new(place, "file")
    answer, entries = _answers(classifier)
    (n,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((n, *classifier.pictures.shape), jnp.uint8)
    model = jax.export.export(jax.jit(answer), platforms=PLATFORMS)(images)
    entries |= {
        "model": np.frombuffer(model.serialize(), np.uint8),
        "names": np.array(classifier.names, np.str_),
        "crop": np.array(classifier.pictures.crop),
        "versions": np.array(json.dumps(versions())),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as temporary:
        whole = Path(temporary) / "whole.npz"  # renamed once it is whole
        np.savez(whole, **entries)
        whole.rename(place)


def _answers(
    classifier: Classifier,
) -> tuple[Callable[[Array], dict[str, Array]], dict[str, Any]]:
    """From images [n, H, W, C] to what the classifier says of them, and what it says it by."""
    learner, variables, task, names, pictures, config, _ = classifier
    made = config.learner

    def chances(logits: Array) -> Array:
        return jax.nn.softmax(logits)[:, : len(names)]

    def by_logits(images: Array) -> dict[str, Array]:
        logits = learner.predict(variables, task, pictures.prepare(images))
        return {"probabilities": chances(logits)}

    if not isinstance(made, Imprinting):
        return by_logits, {}
    body = with_embedding(made.network.build(), made.size)
    columns, scale = unit(task["columns"]), scale_of(variables, made.scale_param)

    def by_cosines(images: Array) -> dict[str, Array]:
        """As `predict` has it, with the network once for both results."""
        z = unit(body.apply(variables, pictures.prepare(images))[0])
        logits = jnp.where(task["known"], scale * (z @ columns.T), -jnp.inf)
        return {"probabilities": chances(logits), "embeddings": z}

    return by_cosines, {"columns": np.asarray(columns[: len(names)]), "scale": np.asarray(scale)}
