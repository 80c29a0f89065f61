"""Pictures with masks: what such a data set is, and episodes of one class against all else."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ..base import Array, Episode, Examples, Network, PyTree, Variables
from .dataset import Prepare
from .episodes import Episodes

VOID = 255  # the label of pixels of which nobody says what they are
OFFICIAL_SEED = 1385

Sampling = Literal["paper", "pairs", "classes"]
Void = Literal["background", "ignore"]


@flax.struct.dataclass
class MaskedImages:
    """The arrays of a data set with masks: an argument of the compiled step.

    An item is a picture and a class in it. Class c owns the items `offset[c] : offset[c] +
    count[c]`, and is `value[c]` in the label maps.
    """

    images: PyTree  # [n, H, W, C] uint8, or maps in their place (`encoded`)
    labels: Array | NDArray[np.uint8]  # [n, H, W] uint8; 0 is background, 255 void
    picture: Array | NDArray[np.int32]  # [items] int32, sorted by class
    offset: Array | NDArray[np.int32]  # [classes] int32
    count: Array | NDArray[np.int32]  # [classes] int32
    value: Array | NDArray[np.uint8]  # [classes] uint8
    largest: int = flax.struct.field(pytree_node=False)  # the largest count, a static size


@dataclasses.dataclass(frozen=True)
class MaskDataset:
    """Pictures with label maps, and what their classes are called.

    Attributes:
        arrays: pictures, label maps, and which classes are items of which pictures.
        names: of each class.
        paths: where each picture came from; may be empty.
        prepare: turns stored pixels into the floats that learners see.
    """

    arrays: MaskedImages
    names: tuple[str, ...]
    paths: tuple[str, ...] = ()
    prepare: Prepare = Prepare()

    @property
    def classes(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one picture: (H, W, C)."""
        return tuple(self.arrays.images.shape[1:])

    def with_maps(self, maps: PyTree) -> MaskDataset:
        """With arrays [n, ...] in the place of pictures, which become float32 as they are."""
        arrays = self.arrays.replace(images=maps)  # pyright: ignore[reportAttributeAccessIssue]
        return dataclasses.replace(self, arrays=arrays, prepare=Prepare(1.0))

    @property
    def items(self) -> NDArray[np.int64]:
        """[items, 2]: the picture and the class of each, classes in their order."""
        of_class = np.repeat(np.arange(self.classes), np.asarray(self.arrays.count))
        return np.stack([np.asarray(self.arrays.picture), of_class], -1)


class MaskSplits(NamedTuple):
    """Pictures and classes for meta-training, for choosing, and for the final figure."""

    train: MaskDataset
    val: MaskDataset | None
    test: MaskDataset


def from_masks(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    names: Sequence[str],
    *,
    values: Sequence[int] | None = None,
    items: NDArray[np.integer] | None = None,
    paths: tuple[str, ...] = (),
    prepare: Prepare = Prepare(),
) -> MaskDataset:
    """A data set of pictures [n, H, W, C] uint8 with label maps [n, H, W] uint8.

    Args:
        values: of each class in the label maps; by default 1, 2, ...
        items: [m, 2], the pictures and classes that count; by default all of which there is a
            pixel. Others are background wherever they are not asked for.

    Raises:
        ValueError: shapes that do not fit.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be [n, H, W, C] uint8, not {list(images.shape)} {images.dtype}"
        )
    if labels.shape != images.shape[:3] or labels.dtype != np.uint8:
        raise ValueError(
            f"{list(images.shape)} images need label maps {list(images.shape[:3])} uint8, not "
            f"{list(labels.shape)} {labels.dtype}"
        )
    value = np.arange(1, len(names) + 1) if values is None else np.asarray(values)
    if items is None:
        there = [np.isin(value, np.unique(one)) for one in labels]
        items = np.argwhere(np.reshape(there, (len(labels), len(names))))
    return MaskDataset(_arrays(images, labels, value, items), tuple(names), paths, prepare)


def _arrays(
    images: Any, labels: NDArray[np.uint8], value: NDArray[np.integer], items: NDArray[np.integer]
) -> MaskedImages:
    """Items [m, 2] of pictures and classes, sorted by class."""
    order = np.argsort(items[:, 1], kind="stable")
    count = np.bincount(items[:, 1], minlength=len(value))
    return MaskedImages(
        images=images,
        labels=labels,
        picture=items[order, 0].astype(np.int32),
        offset=(np.cumsum(count) - count).astype(np.int32),
        count=count.astype(np.int32),
        value=value.astype(np.uint8),
        largest=int(count.max(initial=0)),
    )


def part(
    dataset: MaskDataset, classes: Sequence[int], pictures: NDArray[np.bool_] | None = None
) -> MaskDataset:
    """The items of some of the classes, in the order given, in some of the pictures."""
    arrays, items = dataset.arrays, dataset.items
    kept = np.ones(len(arrays.labels), bool) if pictures is None else pictures
    rows = np.flatnonzero(kept)
    place = np.full(dataset.classes, -1)
    place[list(classes)] = np.arange(len(classes))
    items = items[kept[items[:, 0]] & (place[items[:, 1]] >= 0)]
    items = np.stack([np.searchsorted(rows, items[:, 0]), place[items[:, 1]]], -1)
    return MaskDataset(
        _arrays(
            jax.tree.map(lambda x: np.asarray(x)[rows], arrays.images),
            np.asarray(arrays.labels)[rows],
            np.asarray(arrays.value)[list(classes)],
            items,
        ),
        tuple(dataset.names[c] for c in classes),
        tuple(dataset.paths[i] for i in rows) if dataset.paths else (),
        dataset.prepare,
    )


def joined(one: MaskDataset, two: MaskDataset) -> MaskDataset:
    """Two data sets of the same classes as one.

    Raises:
        ValueError: other classes, or pictures of another size.
    """
    if one.names != two.names or one.shape != two.shape:
        raise ValueError(
            f"data sets of {one.classes} and {two.classes} classes and pictures of {one.shape} and "
            f"{two.shape} are not joined: load both with the same classes and size"
        )
    further = two.items + np.array([len(one.arrays.images), 0])
    both = lambda name: np.concatenate([getattr(d.arrays, name) for d in (one, two)])
    return from_masks(
        both("images"),
        both("labels"),
        one.names,
        values=np.asarray(one.arrays.value).tolist(),
        items=np.concatenate([one.items, further]),
        paths=one.paths + two.paths,
        prepare=one.prepare,
    )


def split_by_class(
    dataset: MaskDataset, test: Sequence[str], val: Sequence[str] = (), *, halves: bool = False
) -> MaskSplits:
    """Classes for testing and choosing, by name, and the others for training.

    A picture with an item of a class for testing is for testing, of the others one with a class for
    choosing is for choosing: no picture is in two parts, but objects that are too small for an item
    may be anywhere, as background. With `halves` the second half of the pictures is for testing and
    the first for all else, where the other parts' classes are background: for pictures that have
    many classes each.

    Raises:
        ValueError: a name of no class, a part without an item.
    """
    for name in (*test, *val):
        if name not in dataset.names:
            known = ", ".join(dataset.names)
            raise ValueError(f"there is no class {name}; the data have {known}")
    number = {name: c for c, name in enumerate(dataset.names)}
    items, left = dataset.items, np.ones(len(dataset.arrays.labels), bool)
    parts: dict[str, MaskDataset] = {}
    others = [c for name, c in number.items() if name not in (*test, *val)]
    for name, classes in (("test", test), ("val", val)):
        if classes:
            own = [number[c] for c in classes]
            theirs = np.zeros_like(left)
            theirs[items[np.isin(items[:, 1], own), 0]] = True
            if halves and name == "test":
                theirs = np.arange(len(left)) >= len(left) // 2
            parts[name] = part(dataset, own, theirs & left)
            left &= ~theirs
    parts["train"] = part(dataset, others, left)
    for name, made in parts.items():
        if not len(made.items):
            raise ValueError(f"no picture is left for {name}: choose other classes")
    return MaskSplits(parts["train"], parts.get("val"), parts["test"])


def encoded(
    dataset: MaskDataset, network: Network, variables: Variables, *, together: int = 16
) -> MaskDataset:
    """With a network's maps in the place of pictures, for methods that do not train it.

    Args:
        network: pictures to a map [n, h, w, C], or a tuple of maps.
        variables: of the network.
        together: pictures that it sees at once.

    Returns:
        A data set whose images are maps, kept as float16; it has the same items.
    """
    images = np.asarray(dataset.arrays.images)

    @jax.jit
    def maps_of(variables: Variables, pixels: Array) -> PyTree:
        maps = network.apply(variables, dataset.prepare(pixels))[0]
        return jax.tree.map(lambda x: x.astype(jnp.float16), maps)

    parts = list[PyTree]()
    for first in range(0, len(images), together):
        some = images[first : first + together]
        padded = np.pad(some, [(0, together - len(some)), (0, 0), (0, 0), (0, 0)])
        parts.append(
            jax.tree.map(lambda x, n=len(some): np.asarray(x)[:n], maps_of(variables, padded))
        )
    return dataset.with_maps(jax.tree.map(lambda *x: np.concatenate(x), *parts))


def mask_batches(dataset: MaskDataset, *, size: int = 16) -> Episodes:
    """Plain batches for ordinary segmentation: episodes without support, of pictures with items.

    Targets are label maps: 0 is background, class c of the data set is c + 1, and void -1.

    Args:
        size: pictures of a batch.
    """
    pictures = np.unique(dataset.items[:, 0]).astype(np.int32)
    number = np.zeros(256, np.int32)
    number[np.asarray(dataset.arrays.value)] = np.arange(1, dataset.classes + 1)
    number[VOID] = -1

    def sample(key: Array, arrays: tuple[MaskedImages, Array, Array]) -> Episode:
        data, rows, numbers = jax.tree.map(jnp.asarray, arrays)
        drawn = rows[jax.random.randint(key, (size,), 0, len(rows))]
        inputs = jax.tree.map(lambda x: dataset.prepare(x[drawn]), data.images)
        every = Examples(inputs, numbers[data.labels[drawn]], jnp.ones(size, bool))
        return Episode(jax.tree.map(lambda x: x[:0], every), every)

    return Episodes((dataset.arrays, pictures, number), sample, dataset.prepare)


class Groups(NamedTuple):
    """Items in groups, each of which is drawn alike."""

    order: NDArray[np.int32]  # [items], group after group
    first: NDArray[np.int32]  # [groups], the first place of each
    size: NDArray[np.int32]  # [groups]


def mask_episodes(
    dataset: MaskDataset,
    *,
    shot: int = 1,
    query: int = 1,
    sampling: Sampling = "paper",
    void: Void = "background",
) -> Episodes:
    """Episodes of one class: support pictures with masks, and queries in other pictures.

    The support is drawn from the class's other items without replacement; where there are fewer,
    rows are masked. `about` has the "class" and the queries' "pictures".

    Args:
        dataset: a class of a single item is left out.
        shot: support pictures; query: queries.
        sampling: how the first query is drawn: a picture, then a class in it ("paper"); a
            "pairs" of picture and class, as in the release; or a class of all "classes", then a
            picture.
        void: what pixels of label 255 are in targets: background, or not counted (-1).

    Raises:
        ValueError: sizes under 1, no class of two items, an argument outside its values.
    """
    refuse_sizes(dataset, shot=shot, query=query)
    groups, prepare = _groups(dataset, sampling), dataset.prepare
    if void not in ("background", "ignore"):
        raise ValueError(f"void is {void!r}; it is one of background, ignore")

    def sample(key: Array, arrays: tuple[MaskedImages, Groups]) -> Episode:
        data, among = jax.tree.map(jnp.asarray, arrays)
        uniform = jax.random.uniform(key, (2 + data.largest,))
        group = jnp.floor(uniform[0] * len(among.first)).astype(jnp.int32)
        within = jnp.floor(uniform[1] * among.size[group]).astype(jnp.int32)
        item = among.order[among.first[group] + within]
        number = jnp.searchsorted(data.offset, item, side="right") - 1  # of its class
        own, mates = item - data.offset[number], jnp.arange(data.largest)
        free = (mates < data.count[number]) & (mates != own)
        most = min(shot + query - 1, data.largest)
        # The draws of those that are not free come last; there may be too few that are.
        drawn, others = jax.lax.top_k(jnp.where(free, uniform[2:], -1), most)
        room = (0, shot + query - 1 - most)
        others, there = jnp.pad(others, room), jnp.pad(drawn >= 0, room)
        # All queries but the first come after the support, so that a small class has one.
        items = data.offset[number] + jnp.concatenate([own[None], others])
        there = jnp.pad(there, (1, 0), constant_values=True)
        return episode_of(data, number, items, there, shot, prepare, void)

    return Episodes((dataset.arrays, groups), sample, prepare)


def episode_of(
    data: MaskedImages,
    number: Array,
    items: Array,
    there: Array,
    shot: int,
    prepare: Prepare,
    void: Void,
) -> Episode:
    """The episode of a class and its items: the first query, `shot` of support, other queries."""
    pictures = jnp.asarray(data.picture)[items]
    labels = jnp.asarray(data.labels)[pictures]
    targets = (labels == jnp.asarray(data.value)[number]).astype(jnp.int32)
    if void == "ignore":
        targets = jnp.where(labels == VOID, -1, targets)
    inputs = jax.tree.map(lambda x: prepare(jnp.asarray(x)[pictures]), data.images)
    every = Examples(inputs, targets, there)
    support = jax.tree.map(lambda x: x[1 : 1 + shot], every)
    query = jax.tree.map(lambda x: jnp.concatenate([x[:1], x[1 + shot :]]), every)
    asked = jnp.concatenate([pictures[:1], pictures[1 + shot :]])
    return Episode(support, query, {"class": number, "pictures": asked})


def refuse_sizes(dataset: MaskDataset, **sizes: int) -> None:
    """
    Raises:
        ValueError: sizes under 1, no class of two items.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it is at least 1")
    if dataset.arrays.largest < 2:
        raise ValueError("an episode needs two pictures of a class, and no class has two items")


def _groups(dataset: MaskDataset, sampling: Sampling) -> Groups:
    items, count = dataset.items, np.asarray(dataset.arrays.count)
    usable = np.flatnonzero(count[items[:, 1]] > 1)
    of = {
        "paper": items[:, 0],
        "pairs": np.zeros(len(items), int),
        "classes": items[:, 1],
    }
    if sampling not in of:
        raise ValueError(f"sampling is {sampling!r}; it is one of {', '.join(of)}")
    owner = of[sampling][usable]
    order = usable[np.argsort(owner, kind="stable")]
    size = np.unique(owner, return_counts=True)[1]
    as_int = lambda x: np.asarray(x, np.int32)
    return Groups(as_int(order), as_int(np.cumsum(size) - size), as_int(size))


def official_pairs(
    dataset: MaskDataset, *, shot: int = 1, count: int = 1000, void: Void = "background"
) -> Episodes:
    """The release's list of test episodes, the same whatever the seed of an evaluation.

    Items, in the order of pictures and of classes within one, are shuffled and gone through, again
    and again; the class's other items, shuffled too, give each its support. All of it is drawn by
    one generator as Python 2 shuffled.

    Args:
        shot: support pictures, or as many as there are; count: episodes.
        void: as of `mask_episodes`.

    Raises:
        ValueError: as `mask_episodes`.
    """
    refuse_sizes(dataset, shot=shot, count=count)
    items = dataset.items
    by_picture = np.lexsort((items[:, 1], items[:, 0])).tolist()
    of_class = [np.flatnonzero(items[:, 1] == c).tolist() for c in range(dataset.classes)]
    in_order = [i for i in by_picture if len(of_class[items[i, 1]]) > 1]
    draw, left = random.Random(OFFICIAL_SEED).random, list[int]()
    chosen = np.full((count, 1 + shot), -1, np.int32)
    for row in chosen:
        left = left or shuffled(in_order, draw)
        query = left.pop(0)
        others = [i for i in of_class[items[query, 1]] if i != query]
        found = [query, *shuffled(others, draw)[:shot]]
        row[: len(found)] = found
    return listed(dataset, chosen, void=void)


def shuffled(values: Sequence[int], draw: Callable[[], float]) -> list[int]:
    """A copy in the order that Python 2's `random.shuffle(values, draw)` gives.

    Example:
        >>> shuffled(range(10), random.Random(1385).random)
        [8, 5, 3, 6, 0, 2, 7, 4, 9, 1]
    """
    values = list(values)
    for i in range(len(values) - 1, 0, -1):
        j = int(draw() * (i + 1))
        values[i], values[j] = values[j], values[i]
    return values


def listed(
    dataset: MaskDataset, chosen: NDArray[np.integer], *, void: Void = "background"
) -> Episodes:
    """A fixed list of episodes of one query each.

    Args:
        chosen: [episodes, 1 + shot], items of a class: the query, and its support; -1 where there
            is none.
        void: as of `mask_episodes`.
    """
    prepare, shot = dataset.prepare, chosen.shape[1] - 1
    classes = dataset.items[chosen[:, 0], 1].astype(np.int32)

    def at(index: Array, arrays: tuple[MaskedImages, Array, Array]) -> Episode:
        data, rows, numbers = jax.tree.map(jnp.asarray, arrays)
        row = rows[index % len(rows)]
        number = numbers[index % len(rows)]
        return episode_of(data, number, jnp.maximum(row, 0), row >= 0, shot, prepare, void)

    def sample(key: Array, arrays: tuple[MaskedImages, Array, Array]) -> Episode:
        return at(jax.random.randint(key, (), 0, len(chosen)), arrays)

    return Episodes((dataset.arrays, chosen, classes), sample, prepare, at)
