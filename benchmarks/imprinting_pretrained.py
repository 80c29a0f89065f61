"""Imprinting on the embedding of EfficientNet-Lite0, with no training: new classes of three sets.

    METASHOT_DATA=DIR python benchmarks/imprinting_pretrained.py [SET ...]

DIR holds the archives that SETS names. 5-way accuracy is over 600 episodes with 15 queries a class;
n-shot accuracy is over all classes of the set, on the last 10 pictures of a permutation of each
class, by the first n (or all before these 10, where a class has fewer): the mean of five
permutations. Each set has two rows: exemplars as they are, and each with three more views of it
(mirrored, its middle, and that mirrored). Queries are always as they are.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import results

import metashot
from metashot import enrolment, recognition
from metashot.base import Array, Episode, Examples, Network
from metashot.data import ClassImages, Dataset, Episodes, Prepare, four_views, select
from metashot.data.folders import labelled

SHOTS, TRIALS, HELD_OUT = (1, 2, 5, 10, 20), 5, 10


class Set(NamedTuple):
    archive: str
    classes: str | None  # list of those used; all by default


SETS = {
    "caltech101": Set("caltech101/caltech101_128px.zip", "split_novel.txt"),
    "flowers102": Set("flowers102/flowers102_96px.zip", "split_test.txt"),
    "cub20": Set("cub20/cub20_160px.zip", None),
}


def read(archive: str, classes: str | None) -> Dataset:
    place = Path(os.environ["METASHOT_DATA"]) / archive
    pictures = labelled(place, size=224, crop=True)
    if classes is None:
        return pictures
    wanted = (place.parent / classes).read_text().split()
    return select(pictures, [pictures.names.index(name) for name in wanted])


def embeddings(pictures: Dataset) -> np.ndarray:
    """[n, 4, 1280]: of four views of each picture."""
    classifier = enrolment.pretrained()
    variables, prepare = classifier.variables, classifier.pictures.prepare
    network = classifier.config.learner.network.build()
    body: Any = {"params": variables["params"]["network"], "state": variables["state"]["network"]}
    each = lambda x: jax.lax.map(lambda view: network.apply(body, view)[0], four_views(prepare(x)))
    embed = jax.jit(lambda x: each(x).swapaxes(0, 1))
    return recognition.side_by_side(embed, np.asarray(pictures.arrays.images))


def with_views(episode: Episode, count: int) -> Episode:
    """Supports with so many views of each exemplar, queries with the first."""
    inputs, targets, mask = episode.support
    rows = inputs[:, :count].reshape(-1, inputs.shape[-1])
    each = lambda x: jnp.repeat(x, count, axis=0)
    query = episode.query._replace(inputs=episode.query.inputs[:, 0])
    return Episode(Examples(rows, each(targets), each(mask)), query, episode.about)


def episodic(z: np.ndarray, pictures: Dataset, shot: int, count: int) -> tuple[float, float]:
    """5-way accuracy and its interval."""
    learner, variables = classifier(5)
    whole = pictures.arrays
    arrays = ClassImages(z, whole.offset, whole.count, whole.largest)

    def sample(key: Array, arrays: ClassImages) -> Episode:
        drawn = metashot.sample_episode(key, arrays, 5, shot, 15, prepare=Prepare(1.0, 0.0))
        return with_views(drawn, count)

    return metashot.evaluate(learner, variables, Episodes(arrays, sample)).summary["accuracy"]


def all_way(z: np.ndarray, pictures: Dataset, shot: int, count: int) -> float:
    """Accuracy among all classes."""
    learner, variables = classifier(pictures.classes)
    labels = recognition.labels_of(pictures)
    right = []
    for trial in range(TRIALS):
        draw = np.random.default_rng(trial)
        rows = [draw.permutation(np.flatnonzero(labels == c)) for c in range(pictures.classes)]
        support = np.concatenate([r[:-HELD_OUT][:shot] for r in rows])
        query = np.concatenate([r[-HELD_OUT:] for r in rows])
        parts = (Examples(*map(jnp.asarray, (z[r], labels[r], r >= 0))) for r in (support, query))
        episode = with_views(Episode(*parts), count)
        task = learner.adapt(variables, episode.support)
        logits = learner.predict(variables, task, episode.query.inputs)
        right.append((logits.argmax(1) == episode.query.targets).mean())
    return float(np.mean(right))


def classifier(way: int) -> tuple[metashot.Learner, metashot.Variables]:
    """Imprinting on embeddings that are made already."""
    same = Network(
        lambda key, x: {"params": {}, "state": {}},
        lambda variables, x, *, train=False, mask=None, key=None: (x, {}),
    )
    learner = metashot.imprinting(network=same, way=way, size=None)
    batch = Examples(jnp.ones((1, 1280)), jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    return learner, learner.init(jax.random.key(0), Episode(batch, batch))


def main(names: list[str]) -> None:
    for name in names or SETS:
        pictures = read(*SETS[name])
        z = embeddings(pictures)
        for count, suffix in ((1, ""), (4, "_views")):
            five = {shot: episodic(z, pictures, shot, count) for shot in (1, 5)}
            row = {
                "name": name + suffix,
                "classes": pictures.classes,
                "value": five[1][0],
                "interval": five[1][1],
                "five_shot": five[5],
                "all_classes": {n: all_way(z, pictures, n, count) for n in SHOTS},
                "command": f"python benchmarks/imprinting_pretrained.py {name}",
            }
            results.add("imprinting_pretrained", row)
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
