"""What a data set of classes of images is, in memory."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import flax.struct
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ..base import Array


class Prepare(NamedTuple):
    """How stored pixels become a learner's floats: `scale * pixel + offset`.

    The defaults map 0..255 to 0..1; `INK` makes dark ink on white paper 1 on 0.
    """

    scale: float = 1 / 255
    offset: float = 0.0

    def __call__(self, images: Array) -> Array:
        """[..., H, W, C] uint8 to float32 of the same shape; runs inside the compiled step."""
        return images.astype(jnp.float32) * self.scale + self.offset


INK = Prepare(scale=-1 / 255, offset=1.0)


@flax.struct.dataclass
class ClassImages:
    """The arrays of a data set: an argument of the compiled step.

    Class c owns the rows `offset[c] : offset[c] + count[c]` of `images`.
    """

    images: Array | NDArray[np.uint8]  # [n, H, W, C] uint8, sorted by class
    offset: Array | NDArray[np.int32]  # [classes] int32
    count: Array | NDArray[np.int32]  # [classes] int32
    largest: int = flax.struct.field(pytree_node=False)  # the largest count, a static size


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Classes of images, and what is known of each class and image.

    Attributes:
        arrays: images, and which rows are whose.
        names: of each class.
        groups: the alphabet (or other family) of each class; may be empty.
        drawers: [n] int, who made each image; may be empty.
        paths: where each image came from; may be empty.
        prepare: turns stored pixels into the floats that learners see.
    """

    arrays: ClassImages
    names: tuple[str, ...]
    groups: tuple[str, ...] = ()
    drawers: NDArray[np.int32] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    paths: tuple[str, ...] = ()
    prepare: Prepare = Prepare()

    @property
    def classes(self) -> int:
        return len(self.names)

    @property
    def smallest(self) -> int:
        """The number of images in the smallest class."""
        return int(np.min(np.asarray(self.arrays.count)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (H, W, C)."""
        return tuple(self.arrays.images.shape[1:])


class Splits(NamedTuple):
    """Disjoint classes for meta-training, for choosing, and for the final figure."""

    train: Dataset
    val: Dataset | None  # None where a published split has no part for choosing
    test: Dataset


def from_arrays(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    names: tuple[str, ...] | None = None,
    *,
    groups: tuple[str, ...] = (),
    drawers: NDArray[np.integer] | None = None,
    paths: tuple[str, ...] = (),
    prepare: Prepare = Prepare(),
) -> Dataset:
    """A data set of images [n, H, W, C] uint8 with labels [n] in 0..classes-1, in any order.

    Raises:
        ValueError: shapes that do not fit, or a class without an image.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be [n, H, W, C] uint8, not {list(images.shape)} {images.dtype}; "
            "grey pictures have C = 1"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images need as many labels, not {list(labels.shape)}")
    if not len(images):
        raise ValueError("a data set needs an image")
    names = tuple(str(c) for c in range(int(labels.max()) + 1)) if names is None else names
    count = np.bincount(labels, minlength=len(names))
    if len(count) > len(names) or not count.all():
        raise ValueError(
            f"each of the {len(names)} classes needs an image; labels are 0..{len(count) - 1}"
        )
    order = np.argsort(labels, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        images, paths = images[order], tuple(paths[i] for i in order) if paths else ()
        drawers = None if drawers is None else np.asarray(drawers)[order]
    arrays = ClassImages(
        images=images,
        offset=(np.cumsum(count) - count).astype(np.int32),
        count=count.astype(np.int32),
        largest=int(count.max()),
    )
    known = np.zeros(0, np.int32) if drawers is None else np.asarray(drawers, np.int32)
    return Dataset(arrays, names, groups, known, paths, prepare)


def select(dataset: Dataset, classes: NDArray[np.integer] | list[int]) -> Dataset:
    """The data set of some of the classes, in the order given."""
    arrays = dataset.arrays
    offset, count = np.asarray(arrays.offset), np.asarray(arrays.count)
    rows = np.concatenate([np.arange(offset[c], offset[c] + count[c]) for c in classes])
    return from_arrays(
        np.asarray(arrays.images)[rows],
        np.repeat(np.arange(len(classes)), count[classes]),
        tuple(dataset.names[c] for c in classes),
        groups=tuple(dataset.groups[c] for c in classes) if dataset.groups else (),
        drawers=dataset.drawers[rows] if len(dataset.drawers) else None,
        paths=tuple(dataset.paths[i] for i in rows) if dataset.paths else (),
        prepare=dataset.prepare,
    )


def rotations(dataset: Dataset) -> Dataset:
    """Each class four times: as it is, and turned left by 90, 180 and 270 degrees.

    The turned classes of class c are 4c .. 4c+3, named with the suffixes rot000 .. rot270, and so
    are the groups: a turned alphabet is one of its own.
    """
    arrays = dataset.arrays
    count, images = np.asarray(arrays.count), np.asarray(arrays.images)
    turned = np.stack([np.rot90(images, k, axes=(1, 2)) for k in range(4)], 1)  # [n, 4, H, W, C]
    labels = np.repeat(np.arange(len(count)), count)[:, None] * 4 + np.arange(4)
    return from_arrays(
        turned.reshape(-1, *images.shape[1:]),
        labels.reshape(-1),
        tuple(f"{name}/rot{90 * k:03d}" for name in dataset.names for k in range(4)),
        groups=tuple(f"{group}/rot{90 * k:03d}" for group in dataset.groups for k in range(4)),
        drawers=np.repeat(dataset.drawers, 4) if len(dataset.drawers) else None,
        paths=tuple(path for path in dataset.paths for _ in range(4)),
        prepare=dataset.prepare,
    )
