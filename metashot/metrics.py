"""Metrics: what is measured of one episode inside jit, and what is reported of many."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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
