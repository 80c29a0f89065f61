"""Evaluation: a fixed list of episodes, one jitted call, every episode's figure kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from . import metrics
from .base import Array, Learner, PyTree, Variables
from .data.episodes import Episodes, episode_key
from .devices import compiler_options, divide, episode_mesh, over_episodes, replicate

VALIDATION, TEST = 1, 2  # the streams of episodes that are not for training, which is 0


class Evaluation(NamedTuple):
    """What a learner reached."""

    summary: dict[str, tuple[float, float]]  # name: (value, half width of its 95 % interval)
    measures: PyTree  # what the metric measured, each leaf [episodes, ...]

    @property
    def score(self) -> float:
        """The first figure of the summary."""
        return next(iter(self.summary.values()))[0]


def evaluate(
    learner: Learner,
    variables: Variables,
    episodes: Episodes,
    *,
    count: int = 600,
    seed: int = 0,
    stream: int = TEST,
    chunk: int | None = None,
    metric: metrics.Metric = metrics.accuracy,
) -> Evaluation:
    """Adapt to each episode's support, answer its queries, and measure.

    The same seed and stream give every learner the same episodes; a published list is gone through
    in its order, whatever they are.

    Args:
        learner: closed over.
        variables: of the learner.
        episodes: where they come from (`metashot.data.episodes`).
        count: how many.
        seed: of the list of episodes; stream: which of the seed's lists.
        chunk: episodes that a device holds at once; None is 1 on a CPU and 25 elsewhere.
        metric: what is measured.

    Raises:
        ValueError: a count or chunk under 1.
    """
    settings = {"count": count, "seed": seed, "stream": stream, "chunk": chunk, "metric": metric}
    return evaluator(learner, episodes, **settings)(variables)


def evaluator(
    learner: Learner,
    episodes: Episodes,
    *,
    count: int = 600,
    seed: int = 0,
    stream: int = TEST,
    chunk: int | None = None,
    metric: metrics.Metric = metrics.accuracy,
) -> Callable[[Variables], Evaluation]:
    """`evaluate`, compiled once for many variables."""
    for name, value in {"count": count, "chunk": chunk}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it is at least 1")
    mesh = episode_mesh(count)
    arrays = replicate(episodes.arrays, mesh)
    settings = {"count": count, "seed": seed, "stream": stream, "chunk": chunk, "metric": metric}
    sample, listed = episodes.sample, episodes.listed
    measure_all = make_measure_all(learner, sample, mesh, listed=listed, **settings)

    def run(variables: Variables) -> Evaluation:
        measures = jax.tree.map(np.asarray, measure_all(replicate(variables, mesh), arrays))
        return Evaluation(metric.summary(measures), measures)

    return run


def make_measure_all(
    learner: Learner,
    sample: Callable[[Array, Any], Any],
    mesh: Mesh,
    *,
    count: int,
    seed: int,
    stream: int,
    chunk: int | None,
    metric: metrics.Metric,
    listed: Callable[[Array, Any], Any] | None = None,
) -> Any:
    """A jitted (variables, arrays) -> measures of the whole list, each leaf [count, ...]."""
    held = chunk or (1 if jax.default_backend() == "cpu" else 25)
    width = min(held, count // mesh.size) * mesh.size  # episodes at once, over all devices
    rounds = -(-count // width)

    def measure(variables: Variables, arrays: PyTree, i: Array) -> PyTree:
        sample_key, adapt_key = jax.random.split(episode_key(seed, stream, i))
        episode = listed(i, arrays) if listed else sample(sample_key, arrays)
        task = learner.adapt(variables, episode.support, adapt_key)
        outputs = learner.predict(variables, task, episode.query.inputs)
        return metric.measure(outputs, episode.query, episode.about)

    @partial(jax.jit, compiler_options=compiler_options())
    def measure_all(variables: Variables, arrays: PyTree) -> PyTree:
        # A last round that is not full repeats episodes from the start of the list.
        index = jnp.arange(rounds * width) % count
        index = divide(index.reshape(rounds, width), mesh)
        one = partial(measure, variables, arrays)
        measures = jax.lax.map(lambda some: over_episodes(one, some), index)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], measures)

    return measure_all
