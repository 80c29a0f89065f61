"""Metrics: what is measured of one episode inside jit, and what is reported of many."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from .base import Array, Examples, PyTree
from .losses import counted


class Metric(NamedTuple):
    """The first entry of a summary decides which checkpoint is best: larger is better."""

    measure: Callable[[Array, Examples, PyTree], PyTree]  # (outputs, query, about)
    summary: Callable[[PyTree], dict[str, tuple[float, float]]]  # -> {name: (value, half width)}


def mean_and_interval(values: NDArray[np.floating]) -> tuple[float, float]:
    """The mean of n figures and its 95 % half width, 1.96 standard errors with ddof 1.

    Example:
        >>> mean, half_width = mean_and_interval(np.array([40.0, 60.0]))
        >>> mean, round(half_width, 6)
        (50.0, 19.6)
    """
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    spread = float(np.std(values, ddof=1))
    return float(np.mean(values)), 1.96 * spread / len(values) ** 0.5


def _count_correct(outputs: Array, query: Examples, about: PyTree) -> PyTree:
    mask = counted(query)
    right = (outputs.argmax(-1) == query.targets) & mask
    return {"correct": right.sum(dtype=jnp.int32), "counted": mask.sum(dtype=jnp.int32)}


def _share_correct(measures: PyTree) -> NDArray[np.float64]:
    return np.divide(measures["correct"], np.maximum(measures["counted"], 1), dtype=np.float64)


def _summarise(measures: PyTree) -> dict[str, tuple[float, float]]:
    return {"accuracy": mean_and_interval(_share_correct(measures))}


accuracy = Metric(
    measure=_count_correct,
    summary=_summarise,
)


def _share_of_the_best(outputs: Array, query: Examples, about: PyTree) -> PyTree:
    if query.targets.ndim == 2:  # paired: [p, q] that match
        right, mask = query.targets > 0, counted(query)
        trial = (right & mask).any(-1)
        outputs = jnp.where(mask, outputs, -jnp.inf)
    else:
        right = jax.nn.one_hot(query.targets, outputs.shape[-1], dtype=bool)
        trial = counted(query)
    best = outputs == outputs.max(-1, keepdims=True)
    return {"right": (best & right).sum(-1) / best.sum(-1), "trial": trial}


def _summarise_trials(measures: PyTree) -> dict[str, tuple[float, float]]:
    share, half = mean_and_interval(measures["right"][measures["trial"]])
    return {"accuracy": (share, half), "error": (1 - share, half)}


one_shot = Metric(measure=_share_of_the_best, summary=_summarise_trials)
"""The error rate of trials, each the choice of the one that matches, with its 95 % interval.

A trial is an exemplar of a paired episode and its candidates, or a query of an ordinary one and the
classes. n equal best scores of which one is right are 1/n of a right answer.
"""


def count_pixels(outputs: Array, query: Examples, about: PyTree) -> PyTree:
    """The pixels of each query: {"counts" [q, 4] int32, "class" [], "pictures" [q]}.

    Counted are those of the class that were found, wrongly found and missed, and the background
    that was left (tp, fp, fn, tn); of padding and pixels that do not count, none.

    Args:
        outputs: logits [q, H, W]; foreground is above 0.
        query: masks [q, H, W] of 1, 0, and -1 for what does not count.
        about: {"class" [], "pictures" [q]}, which class is asked for, in which pictures.
    """
    answer, truth = outputs > 0, query.targets > 0
    counts = (query.targets >= 0) & query.mask[:, None, None]
    kinds = [answer & truth, answer & ~truth, ~answer & truth, ~answer & ~truth]
    found = [(kind & counts).sum((1, 2), dtype=jnp.int32) for kind in kinds]
    return {"counts": jnp.stack(found, -1), "class": about["class"], "pictures": about["pictures"]}


def class_iou(measures: PyTree) -> dict[int, float]:
    """Intersection over union of each class that was asked for, of pixels summed over all queries.

    Args:
        measures: what `count_pixels` measured, stacked.
    """
    classes, table = _by_picture(measures)
    return dict(zip(classes.tolist(), _iou(table.sum(0)).tolist(), strict=True))


def mean_iou(classes: int | None = None) -> Metric:
    """`class_iou` averaged over classes: the score of PASCAL-5i. Background is no class.

    The interval is a seeded bootstrap over pictures, in which a class that no drawn picture has is
    left out.

    Args:
        classes: how many there are, where one that was never asked for counts as 0; None averages
            over those that were.
    """

    def summary(measures: PyTree) -> dict[str, tuple[float, float]]:
        asked, table = _by_picture(measures)
        share = 1 if classes is None else len(asked) / classes

        def score(sums: Counts) -> Floats:
            there = sums.any(-1)
            return share * np.where(there, _iou(sums), 0).sum(-1) / np.maximum(there.sum(-1), 1)

        return {"mean_iou": _bootstrapped(table, score)}

    return Metric(count_pixels, summary)


def _summarise_binary(measures: PyTree) -> dict[str, tuple[float, float]]:
    _, table = _by_picture(measures)

    def score(sums: Counts) -> Floats:
        pooled = sums.sum(-2)
        return (_iou(pooled) + _iou(pooled[..., ::-1])) / 2

    return {"binary_iou": _bootstrapped(table, score)}


def _summarise_images(measures: PyTree) -> dict[str, tuple[float, float]]:
    counts = np.asarray(measures["counts"]).reshape(-1, 4)
    return {"image_iou": mean_and_interval(_iou(counts[counts.any(-1)]))}


# Mean of the foreground's and the background's intersection over union, pixels of all classes
# pooled (co-FCN and those after it); means of each query's own are `image_iou`. Neither is the
# score of PASCAL-5i, which is `mean_iou(5)`.
binary_iou = Metric(count_pixels, _summarise_binary)
image_iou = Metric(count_pixels, _summarise_images)

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def _iou(counts: Counts) -> Floats:
    """[...] of counts [..., 4], whose order backwards is that of the background."""
    return counts[..., 0] / np.maximum(counts[..., :3].sum(-1), 1)


def _by_picture(measures: PyTree) -> tuple[NDArray[np.int64], Counts]:
    """The classes asked for, and their counts [pictures, classes, 4]."""
    counts = np.asarray(measures["counts"])
    asked, of_class = np.unique(measures["class"], return_inverse=True)
    pictures, place = np.unique(measures["pictures"], return_inverse=True)
    table = np.zeros((len(pictures), len(asked), 4), np.int64)
    np.add.at(table, (place.reshape(counts.shape[:2]), of_class[:, None]), counts)
    return asked, table


def _bootstrapped(
    table: Counts, score: Callable[[Counts], Floats], draws: int = 1000
) -> tuple[float, float]:
    """A score of counts [pictures, classes, 4] summed over pictures, and half its 95 % range."""
    n = len(table)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), draws)
    drawn = score((weights @ table.reshape(n, -1)).reshape(draws, *table.shape[1:]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(score(table.sum(0))), float(high - low) / 2
