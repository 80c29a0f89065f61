"""Sampling episodes: pure functions that run on the device, inside the training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import Array, Episode, Examples, PyTree
from .dataset import ClassImages, Dataset, Prepare

Size = int | tuple[int, int]  # a fixed number, or the (smallest, largest) of a drawn one


class Episodes(NamedTuple):
    """Where episodes come from: arrays, and a pure function that draws an episode from them."""

    arrays: PyTree
    sample: Callable[[Array, Any], Episode]  # (key, arrays) -> Episode


def episode_key(seed: int | Array, stream: int, index: int | Array) -> Array:
    """The key of an episode of a stream; devices, dispatches and resuming play no part."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), index)


def sample_episode(
    key: Array,
    data: ClassImages,
    way: Size,
    shot: Size,
    query: int,
    *,
    prepare: Prepare = Prepare(),
) -> Episode:
    """Draw classes without replacement, and of each class disjoint support and query images.

    Args:
        key: a random key.
        data: the images; each class holds at least `shot + query`.
        way: classes of an episode. A pair draws it anew each time: arrays have the larger size,
            and masks say what counts.
        shot: support images a class; a pair as above.
        query: query images a class.
        prepare: turns pixels into floats.

    Returns:
        An episode with support [way * shot, H, W, C] in random order and query
        [way * query, H, W, C] by class; targets are positions in the draw of classes;
        `about["classes"]` [way] says which classes they are.
    """
    class_key, image_key, order_key, way_key, shot_key = jax.random.split(key, 5)
    most_way, most_shot = _largest(way), _largest(shot)
    classes = _distinct(class_key, jnp.asarray(data.count.shape[0]), data.count.shape[0], most_way)
    image_keys = jax.random.split(image_key, most_way)
    draw = jax.vmap(_distinct, in_axes=(0, 0, None, None))
    within = draw(image_keys, data.count[classes], data.largest, most_shot + query)
    rows = data.offset[classes][:, None] + within  # [way, shot + query]
    targets = jnp.broadcast_to(jnp.arange(most_way)[:, None], rows.shape)
    class_counts = targets < _size(way_key, way)
    shot_counts = jnp.arange(most_shot) < _size(shot_key, shot)

    def examples(part: slice, mask: Array) -> Examples:
        images = prepare(jnp.asarray(data.images)[rows[:, part].reshape(-1)])
        return Examples(images, targets[:, part].reshape(-1), mask.reshape(-1))

    order = jax.random.permutation(order_key, most_way * most_shot)
    support = examples(slice(most_shot), class_counts[:, :most_shot] & shot_counts)
    return Episode(
        support=jax.tree.map(lambda x: x[order], support),
        query=examples(slice(most_shot, None), class_counts[:, most_shot:]),
        about={"classes": classes},
    )


def _distinct(key: Array, count: Array, bound: int, k: int) -> Array:
    """[k] different numbers below `count` (at most `bound`, which is static), in random order."""
    scores = jax.random.uniform(key, (bound,))
    return jax.lax.top_k(jnp.where(jnp.arange(bound) < count, scores, -1), k)[1]


def _largest(size: Size) -> int:
    return size if isinstance(size, int) else size[1]


def _size(key: Array, size: Size) -> Array | int:
    if isinstance(size, int):
        return size
    return jax.random.randint(key, (), size[0], size[1] + 1)


def episodes(dataset: Dataset, *, way: Size = 5, shot: Size = 1, query: int = 15) -> Episodes:
    """Episodes of a data set, as `train` and `evaluate` take them.

    Raises:
        ValueError: more classes or images than there are.

    Example:
        >>> import numpy as np
        >>> from metashot.data import from_arrays
        >>> data = from_arrays(np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3)
        >>> source = episodes(data, way=3, shot=1, query=2)
        >>> source.sample(jax.random.key(0), source.arrays).query.inputs.shape
        (6, 8, 8, 1)
    """
    problem = impossible_sizes(dataset, way=way, shot=shot, query=query)
    if problem:
        raise ValueError(problem)

    def sample(key: Array, arrays: ClassImages) -> Episode:
        return sample_episode(key, arrays, way, shot, query, prepare=dataset.prepare)

    return Episodes(dataset.arrays, sample)


def impossible_sizes(dataset: Dataset, *, way: Size, shot: Size, query: int) -> str | None:
    """What is wrong with these sizes for this data set, in a sentence; None if nothing is."""
    for name, size in {"way": way, "shot": shot, "query": query}.items():
        low, high = (size, size) if isinstance(size, int) else size
        if low < 1 or high < low:
            return f"{name} is {size}; it is at least 1, or a pair (smallest, largest)"
    if _largest(way) > dataset.classes:
        return f"way is {_largest(way)}, but the data have only {dataset.classes} classes"
    if _largest(shot) + query > dataset.smallest:
        return (
            f"shot + query is {_largest(shot)} + {query}, but the smallest class has only "
            f"{dataset.smallest} images"
        )
    return None
