"""Pictures of classes that are not enrolled: how many `--reject 0.05` refuses, and at what price.

    METASHOT_DATA=DIR python benchmarks/imprinting_reject.py [SET ...]

The sets of photographs are those of imprinting_pretrained.py, on the embedding of
EfficientNet-Lite0; `glyphs` are the test characters of metashot's own drawings, on the embedding
that comes with it. Some classes, drawn at random, are enrolled from so many pictures each. Their
other pictures are known, all pictures of the other classes unknown. Figures are means of 20 draws,
the interval is that of 1.96 standard errors; AUROC is of the largest cosine. The thresholds were
measured on other classes: the base classes of Caltech-101, and the validation characters.
"""

from __future__ import annotations

import sys

import imprinting_pretrained
import numpy as np
import results
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import metashot
from metashot import enrolment, recognition
from metashot.recognition import Classifier

SHARE, DRAWS, SHOTS = 0.05, 20, (1, 2, 5, 10)
SETS = ("glyphs", *imprinting_pretrained.SETS)


def prepared(name: str) -> tuple[Classifier, list[NDArray[np.float32]]]:
    """The empty classifier, and the unit embeddings of each class of a set."""
    if name == "glyphs":
        classifier, pictures = enrolment.embedded(), metashot.data.glyphs().test
    else:
        pictures = imprinting_pretrained.read(*imprinting_pretrained.SETS[name])
        classifier = enrolment.pretrained()
    z = recognition.embeddings(classifier, np.asarray(pictures.arrays.images))
    return classifier, np.split(z, np.asarray(pictures.arrays.offset)[1:])


def unit(z: NDArray[np.float32]) -> NDArray[np.float32]:
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def drawn(
    classifier: Classifier, classes: list[NDArray[np.float32]], way: int, shot: int, seed: int
) -> tuple[float, ...]:
    """Shares of known and unknown pictures refused; the latter by one-shot thresholds; AUROC."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(classes))
    enrolled = [draw.permutation(classes[c]) for c in order[:way]]
    columns = np.stack([unit(z[:shot].sum(0)) for z in enrolled])
    known = np.concatenate([z[shot:] for z in enrolled]) @ columns.T
    unknown = np.concatenate([classes[c] for c in order[way:]]) @ columns.T
    names = tuple(map(str, order[:way]))
    least, least_of_one = (
        recognition.thresholds(
            classifier._replace(names=names, task={"count": np.full(way, n)}), SHARE
        )
        for n in (shot, 1)
    )
    refused = lambda cosines, least: float((cosines < least).all(1).mean())
    scores = np.concatenate([known.max(1), unknown.max(1)])
    is_known = np.arange(len(scores)) < len(known)
    area = float(roc_auc_score(is_known, scores))
    one = refused(unknown, least_of_one)
    return refused(known, least), refused(unknown, least), one, area


def main(names: list[str]) -> None:
    for name in names or SETS:
        classifier, classes = prepared(name)
        for way in (5, len(classes) // 2):
            for shot in SHOTS:
                figures = np.array([drawn(classifier, classes, way, shot, i) for i in range(DRAWS)])
                known, unknown, unknown_one, area = figures.mean(0).tolist()
                half = 1.96 * figures[:, 1].std(ddof=1) / np.sqrt(DRAWS)
                row = {
                    "name": f"{name}_{way}w{shot}s",
                    "value": unknown,
                    "interval": float(half),
                    "known": known,
                    "by_one_shot": unknown_one,
                    "auroc": area,
                    "command": f"python benchmarks/imprinting_reject.py {name}",
                }
                results.add("imprinting_reject", row)
                print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
