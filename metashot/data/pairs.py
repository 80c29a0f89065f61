"""Paired episodes, in which each exemplar has queries of its own.

Of two kinds: pairs that match or not, to train on, and matching problems, to find the one of many
candidates that shows what the exemplar shows.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..base import Array, Episode, Examples
from .dataset import ClassImages, Dataset, Prepare
from .episodes import Episodes
from .families import Families, Scope, drawn_place, families, impossible_families


def pairs(
    dataset: Dataset, *, exemplars: int = 16, queries: int = 8, scope: Scope = "alphabet"
) -> Episodes:
    """Episodes of exemplars with queries that match or not, for `siamese` and `learnet`.

    An exemplar's class is any, its queries in turn another image of that class and an image of
    another class: of p * q pairs half match, where one of both numbers is even. Exemplars are drawn
    apart, and so are the queries of one: an image may come twice, but never with itself.

    Args:
        dataset: its smallest class has at least 2 images.
        exemplars: p of an episode; queries: q of each.
        scope: where a query that does not match comes from, the exemplar's "alphabet" or "all"
            classes. Alphabets are the data set's groups; one of a single class is left out.

    Raises:
        ValueError: sizes under 1, a class of one image, no alphabets.

    Example:
        >>> from metashot.data import from_arrays
        >>> data = from_arrays(np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3)
        >>> source = pairs(data, exemplars=4, queries=2, scope="all")
        >>> episode = jax.eval_shape(source.sample, jax.random.key(0), source.arrays)
        >>> episode.support.inputs.shape, episode.query.inputs.shape
        ((4, 8, 8, 1), (4, 2, 8, 8, 1))
    """
    problem = impossible_pairs(dataset, exemplars=exemplars, queries=queries, scope=scope)
    if problem:
        raise ValueError(problem)
    p, q = exemplars, queries
    match = (np.arange(p)[:, None] + np.arange(q)) % 2 == 0

    def sample(key: Array, arrays: tuple[ClassImages, Families]) -> Episode:
        data, among = jax.tree.map(jnp.asarray, arrays)
        uniform = jax.random.uniform(key, (p, 2 + 2 * q))
        sought, others, images = jnp.split(uniform, (1, 1 + q), axis=1)
        place = drawn_place(sought, among)  # [p, 1]
        first, size = among.first[place], among.size[place]
        places = jnp.where(match, place, first + _another(others, place - first, size))
        classes = among.order[place[:, 0]], among.order[places]
        return _episode(data, *classes, jnp.asarray(match), images, dataset.prepare)

    arrays = dataset.arrays, families(dataset, scope, 2)
    return Episodes(arrays, sample, dataset.prepare)


def problems(
    dataset: Dataset, *, way: int = 20, exemplars: int = 20, scope: Scope = "alphabet"
) -> Episodes:
    """Matching problems: an exemplar, and candidates of `way` classes, one of them its own.

    The class that is looked for is any, the exemplar and the candidate of that class are two
    images, the other candidates are of other classes of the same alphabet, each once; the match
    stands anywhere. `metrics.one_shot` measures the answers.

    Args:
        dataset: its smallest class has at least 2 images.
        way: candidates.
        exemplars: problems of an episode, drawn apart.
        scope: as of `pairs`; alphabets of fewer than `way` classes are left out.

    Raises:
        ValueError: sizes under 1, a class of one image, no alphabet of `way` classes.
    """
    sizes = {"way": way, "exemplars": exemplars}
    problem = impossible_pairs(dataset, **sizes, scope=scope, least=way)
    if problem:
        raise ValueError(problem)
    arrays = dataset.arrays, families(dataset, scope, way)
    largest = int(np.max(arrays[1].size))

    def sample(key: Array, arrays: tuple[ClassImages, Families]) -> Episode:
        data, among = jax.tree.map(jnp.asarray, arrays)
        uniform = jax.random.uniform(key, (exemplars, 2 + largest + 1 + way))
        sought, stands, draws, images = jnp.split(uniform, (1, 2, 2 + largest), axis=1)
        place = drawn_place(sought, among)  # [p, 1]
        first, size = among.first[place], among.size[place]
        mates = jnp.arange(largest)
        others = (mates < size) & (mates != place - first)
        chosen = first + jax.lax.top_k(jnp.where(others, draws, -1), way - 1)[1]
        places = jnp.concatenate([place, chosen], 1)
        # The match changes places with whoever stands where it shall.
        stand, order = jnp.floor(stands * way).astype(jnp.int32), jnp.arange(way)
        order = jnp.where(order == stand, 0, jnp.where(order == 0, stand, order))
        classes = among.order[place[:, 0]], among.order[jnp.take_along_axis(places, order, 1)]
        return _episode(data, *classes, order == 0, images, dataset.prepare)

    return Episodes(arrays, sample, dataset.prepare)


def paired(exemplars: Any, queries: Any, match: Any) -> Episode:
    """Pictures of one's own as a paired episode.

    Args:
        exemplars: [p, H, W, C] float, as the learner was trained on.
        queries: [p, q, H, W, C], those of each exemplar.
        match: [p, q], 1 where a query shows what its exemplar shows, 0 where it does not, -1 where
            that is not known, which counts for nothing.

    Raises:
        ValueError: pictures of different sizes or channels, a constant exemplar, other labels.

    Example:
        >>> z, x = np.eye(4)[None, ..., None], np.ones((1, 2, 4, 4, 1))
        >>> paired(z, x, np.array([[1, 0]])).query.mask.shape
        (1, 2)
    """
    z, x, targets = map(np.asarray, (exemplars, queries, match))
    if z.ndim != 4 or x.ndim != 5 or (x.shape[0], *x.shape[2:]) != z.shape:
        raise ValueError(
            f"exemplars {list(z.shape)} and queries {list(x.shape)} do not fit: give [p, H, W, C] "
            "and [p, q, H, W, C], all of one size and number of channels"
        )
    empty = constant(z)
    if len(empty):
        raise ValueError(
            f"exemplar {empty[0]} is empty or constant, so there is nothing to match: give a "
            "picture with something on it"
        )
    if targets.shape != x.shape[:2] or not np.isin(targets, (-1, 0, 1)).all():
        raise ValueError(
            f"match {list(targets.shape)} holds {np.unique(targets).tolist()[:4]}; give "
            f"{list(x.shape[:2])} labels, 1 (match), 0 (no match) or -1 (not known)"
        )
    support = Examples(jnp.asarray(z), jnp.arange(len(z)), jnp.ones(len(z), bool))
    labels = jnp.asarray(targets, jnp.int32)
    return Episode(support, Examples(jnp.asarray(x), labels, jnp.ones(labels.shape, bool)))


def constant(images: np.ndarray) -> np.ndarray:
    """Which of images [n, H, W, C] have the same value everywhere."""
    flat = images.reshape(len(images), -1)
    return np.flatnonzero(flat.min(1) == flat.max(1))


def impossible_pairs(dataset: Dataset, *, scope: Scope, least: int = 2, **sizes: int) -> str | None:
    """What is wrong with these sizes for this data set, in a sentence; None if nothing is."""
    for name, size in sizes.items():
        if size < 1:
            return f"{name} is {size}; it is at least 1"
    if dataset.smallest < 2:
        return "exemplars and their matches are two images, but the smallest class has only 1"
    return impossible_families(dataset, scope, least)


def _another(uniform: Array, one: Array, count: Array) -> Array:
    """Numbers of 0..count-1 other than `one`, by numbers in [0, 1)."""
    return (one + 1 + jnp.floor(uniform * (count - 1)).astype(jnp.int32)) % count


def _episode(
    data: ClassImages,
    own: Array,
    theirs: Array,
    match: Array,
    uniform: Array,
    prepare: Prepare,
) -> Episode:
    """The episode of exemplars of classes own [p] and queries of classes theirs [p, q].

    Args:
        match: [p, q] bool; such a query is another image than the exemplar.
        uniform: [p, 1 + q] numbers in [0, 1) that choose an image each.
    """
    any_of = lambda uniform, classes: jnp.floor(uniform * data.count[classes]).astype(jnp.int32)
    z = any_of(uniform[:, 0], own)
    another = _another(uniform[:, 1:], z[:, None], data.count[own][:, None])
    x = jnp.where(match, another, any_of(uniform[:, 1:], theirs))
    images = lambda classes, within: prepare(
        jnp.asarray(data.images)[data.offset[classes] + within]
    )
    support = Examples(images(own, z), jnp.arange(len(own)), jnp.ones(len(own), bool))
    query = Examples(images(theirs, x), match.astype(jnp.int32), jnp.ones(match.shape, bool))
    return Episode(support, query, about={"classes": own, "candidates": theirs})
