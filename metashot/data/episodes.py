"""Sampling episodes: pure functions that run on the device, inside the training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base import Array, Episode, Examples, PyTree
from .augmentation import augment, redraw
from .dataset import ClassImages, Dataset, Prepare
from .families import Families, Scope, drawn_place, families, impossible_families

Size = int | tuple[int, int]  # a fixed number, or the (smallest, largest) of a drawn one


class Episodes(NamedTuple):
    """Where episodes come from: arrays, and a pure function that draws an episode from them."""

    arrays: PyTree
    sample: Callable[[Array, Any], Episode]  # (key, arrays) -> Episode
    prepare: Prepare | None = None  # how pictures became inputs, where that was all
    # (index, arrays) -> Episode of a fixed list, which evaluation goes through in its order.
    listed: Callable[[Array, Any], Episode] | None = None


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
    among: Families | None = None,
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
        among: families that the classes are all of one of, each class leading alike; None draws
            from all classes.

    Returns:
        An episode with support [way * shot, H, W, C] in random order and query
        [way * query, H, W, C] by class; targets are positions in the draw of classes;
        `about["classes"]` [way] says which classes they are.
    """
    most_way, most_shot = _largest(way), _largest(shot)
    # One draw for everything: each call of a generator costs a second of compiling.
    sizes = (2, data.count.shape[0], most_way * data.largest, most_way * most_shot)
    uniform = jax.random.uniform(key, (sum(sizes),))
    size_draws, class_draws, image_draws, order_draws = jnp.split(uniform, np.cumsum(sizes)[:-1])

    classes = jax.lax.top_k(class_draws, most_way)[1]
    if among is not None:
        classes = _of_one_family(jax.random.fold_in(key, 1), among, class_draws, most_way)
    image_draws = image_draws.reshape(most_way, data.largest)
    count, offset = jnp.asarray(data.count)[classes], jnp.asarray(data.offset)[classes]
    there = jnp.arange(data.largest) < count[:, None]
    within = jax.lax.top_k(jnp.where(there, image_draws, -1), most_shot + query)[1]
    rows = offset[:, None] + within  # [way, shot + query]
    targets = jnp.broadcast_to(jnp.arange(most_way)[:, None], rows.shape)
    class_counts = targets < _drawn(size_draws[0], way)
    shot_counts = jnp.arange(most_shot) < _drawn(size_draws[1], shot)

    def examples(part: slice, mask: Array) -> Examples:
        images = prepare(jnp.asarray(data.images)[rows[:, part].reshape(-1)])
        return Examples(images, targets[:, part].reshape(-1), mask.reshape(-1))

    support = examples(slice(most_shot), class_counts[:, :most_shot] & shot_counts)
    order = jnp.argsort(order_draws)
    return Episode(
        support=jax.tree.map(lambda x: x[order], support),
        query=examples(slice(most_shot, None), class_counts[:, most_shot:]),
        about={"classes": classes},
    )


def _of_one_family(key: Array, among: Families, draws: Array, way: int) -> Array:
    """`way` classes of the family of a class drawn by the key, by a draw [classes] for each."""
    place = drawn_place(jax.random.uniform(key), among)
    mates = jnp.arange(len(draws))
    there = mates < jnp.asarray(among.size)[place]
    chosen = jax.lax.top_k(jnp.where(there, draws, -1), way)[1]
    return jnp.asarray(among.order)[jnp.asarray(among.first)[place] + chosen]


def _largest(size: Size) -> int:
    return size if isinstance(size, int) else size[1]


def _drawn(uniform: Array, size: Size) -> Array | int:
    """A size as it is, or one of those between its ends, chosen by a number in [0, 1)."""
    if isinstance(size, int):
        return size
    return size[0] + jnp.floor(uniform * (size[1] - size[0] + 1)).astype(jnp.int32)


def episodes(
    dataset: Dataset, *, way: Size = 5, shot: Size = 1, query: int = 15, scope: Scope = "all"
) -> Episodes:
    """Episodes of a data set, as `train` and `evaluate` take them.

    Args:
        dataset: where classes and images come from.
        way, shot, query: sizes, as of `sample_episode`.
        scope: "alphabet" for classes that are all of one group of the data set, of those with
            `way` classes.

    Raises:
        ValueError: more classes or images than there are.

    Example:
        >>> import numpy as np
        >>> from metashot.data import from_arrays
        >>> data = from_arrays(np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3)
        >>> source = episodes(data, way=3, shot=1, query=2)
        >>> episode = jax.eval_shape(source.sample, jax.random.key(0), source.arrays)
        >>> episode.query.inputs.shape
        (6, 8, 8, 1)
    """
    problem = impossible_sizes(dataset, way=way, shot=shot, query=query, scope=scope)
    if problem:
        raise ValueError(problem)
    among = None if scope == "all" else families(dataset, scope, _largest(way))

    def sample(key: Array, arrays: tuple[ClassImages, Families | None]) -> Episode:
        data, among = arrays
        return sample_episode(key, data, way, shot, query, prepare=dataset.prepare, among=among)

    return Episodes((dataset.arrays, among), sample, dataset.prepare)


def batches(dataset: Dataset, *, size: int = 64, shift: int = 0, flip: bool = False) -> Episodes:
    """Plain batches for ordinary classification: episodes without support, with global labels.

    Each row is an image of a class drawn at random: classes count alike, whatever their size.

    Args:
        dataset: classes of images.
        size: images of a batch.
        shift, flip: how images are varied (`metashot.data.augment`); not at all by default.

    Raises:
        ValueError: a size under 1, or a shift under 0.

    Example:
        >>> import numpy as np
        >>> from metashot.data import from_arrays
        >>> data = from_arrays(np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3)
        >>> source = batches(data, size=4)
        >>> batch = source.sample(jax.random.key(0), source.arrays)
        >>> batch.support.inputs.shape, batch.query.inputs.shape
        ((0, 8, 8, 1), (4, 8, 8, 1))
    """
    if size < 1:
        raise ValueError(f"size is {size}; a batch holds at least 1 image")
    if shift < 0:
        raise ValueError(f"shift is {shift}; it is at least 0 pixels")

    def sample(key: Array, arrays: ClassImages) -> Episode:
        count, offset = jnp.asarray(arrays.count), jnp.asarray(arrays.offset)
        class_draws, image_draws = jax.random.uniform(key, (2, size))
        classes = jnp.floor(class_draws * len(count)).astype(jnp.int32)
        rows = offset[classes] + jnp.floor(image_draws * count[classes]).astype(jnp.int32)
        images = jnp.asarray(arrays.images)[rows]
        views = augment(jax.random.fold_in(key, 1), images, shift=shift, flip=flip)
        images = dataset.prepare(views)
        everything = Examples(images, classes, jnp.ones(size, bool))
        return Episode(support=jax.tree.map(lambda x: x[:0], everything), query=everything)

    return Episodes(dataset.arrays, sample, dataset.prepare)


def redrawn(source: Episodes, **hand: float) -> Episodes:
    """Episodes whose drawings are varied, each picture by itself: augmentation for training.

    Args:
        source: of episodes of drawings, ink 1 on paper 0.
        hand: how far, the keywords of `metashot.data.redraw`.

    Example:
        >>> import numpy as np
        >>> from metashot.data import from_arrays
        >>> data = from_arrays(np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3)
        >>> source = redrawn(episodes(data, way=3, query=2), rotation=15.0, shift=0.1)
        >>> episode = jax.eval_shape(source.sample, jax.random.key(0), source.arrays)
        >>> episode.query.inputs.shape
        (6, 8, 8, 1)
    """

    def sample(key: Array, arrays: PyTree) -> Episode:
        episode = source.sample(key, arrays)
        support, query = (
            _redrawn(jax.random.fold_in(key, 1 + i), part, hand)
            for i, part in enumerate((episode.support, episode.query))
        )
        return episode._replace(support=support, query=query)

    return Episodes(source.arrays, sample)


def _redrawn(key: Array, examples: Examples, hand: dict[str, float]) -> Examples:
    x = examples.inputs
    if not x.size:  # plain batches have no support
        return examples
    drawn = redraw(key, x.reshape(-1, *x.shape[-3:]), **hand)
    return examples._replace(inputs=drawn.reshape(x.shape))


def impossible_sizes(
    dataset: Dataset, *, way: Size, shot: Size, query: int, scope: Scope = "all"
) -> str | None:
    """What is wrong with these sizes for this data set, in a sentence; None if nothing is."""
    for name, size in {"way": way, "shot": shot, "query": query}.items():
        low, high = (size, size) if isinstance(size, int) else size
        if low < 1 or high < low:
            return f"{name} is {size}; it is at least 1, or a pair (smallest, largest)"
    if not isinstance(query, int):
        return f"query is {query}; it is one number, the same in every episode"
    if _largest(way) > dataset.classes:
        return f"way is {_largest(way)}, but the data have only {dataset.classes} classes"
    if _largest(shot) + query > dataset.smallest:
        return (
            f"shot + query is {_largest(shot)} + {query}, but the smallest class has only "
            f"{dataset.smallest} images"
        )
    return None if scope == "all" else impossible_families(dataset, scope, _largest(way))
