"""How similar pictures are to the column of their class: by that, others are none of these.

The more examples made a column, the more similar the other pictures of its class are to it: with
EfficientNet-Lite0 on photographs the median cosine is 0.57 for one example and 0.73 for ten. So
each number of examples has quantiles of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .data import Dataset
from .loading import Similarities
from .recognition import Classifier, embeddings

SHOTS = (1, 2, 5, 10)
CLASSES, PICTURES, DRAWS = 100, 30, 5  # most that are looked at, and choices of the examples


def similarities(classifier: Classifier, dataset: Dataset) -> Similarities:
    """Quantiles of the cosine between a picture and the mean direction of others of its class.

    Args:
        classifier: an Imprinting; its own classes play no part.
        dataset: classes that training did not see. (Those that it saw are closer together, and so
            more than the share asked for of other classes' pictures would be refused.)

    Returns:
        The 0, 1, ... 100 % quantiles for each number of examples that a class has pictures for.
    """
    draw = np.random.default_rng(0)
    count, offset = np.asarray(dataset.arrays.count), np.asarray(dataset.arrays.offset)
    chosen = draw.permutation(dataset.classes)[:CLASSES]
    rows = [offset[c] + draw.permutation(count[c])[:PICTURES] for c in chosen]
    z = embeddings(classifier, np.asarray(dataset.arrays.images)[np.concatenate(rows)])
    classes = np.split(z, np.cumsum([len(r) for r in rows])[:-1])
    found = {
        n: [_cosines(draw.permutation(z), n) for _ in range(DRAWS) for z in classes if len(z) > n]
        for n in SHOTS
    }
    return {n: _quantiles(np.concatenate(cosines)) for n, cosines in found.items() if cosines}


def _cosines(z: NDArray[np.float32], shot: int) -> NDArray[np.float32]:
    """Between the mean direction of the first rows and each of the others."""
    column = z[:shot].sum(0)
    return z[shot:] @ column / np.linalg.norm(column)


def _quantiles(cosines: NDArray[np.float32]) -> list[float]:
    return np.quantile(cosines, np.linspace(0, 1, 101)).round(4).tolist()
