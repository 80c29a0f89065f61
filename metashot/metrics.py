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
