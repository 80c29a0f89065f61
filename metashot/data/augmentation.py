"""Other views of the same pictures, drawn on the device inside the compiled step."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..base import Array, Examples


def augment(key: Array, images: Array, *, shift: int = 0, flip: bool = False) -> Array:
    """Each picture cut at another place, and half of them mirrored.

    Args:
        key: a random key.
        images: [n, H, W, C], of any dtype.
        shift: pixels that a picture moves at most, up, down, left and right; its edge is repeated
            where it left. An eighth of the side is a crop of 224 of 256, as in Qi, Brown & Lowe.
        flip: mirror left and right, of half of the pictures.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: a shift under 0.
    """
    if shift < 0:
        raise ValueError(f"shift is {shift}; it is at least 0 pixels")
    n, height, width, _ = images.shape
    move_key, flip_key = jax.random.split(key)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(n,))
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    if shift:
        moves = jax.random.randint(move_key, (2, n), -shift, shift + 1)
        rows = jnp.clip(jnp.arange(height) + moves[0][:, None], 0, height - 1)  # [n, H]
        columns = jnp.clip(jnp.arange(width) + moves[1][:, None], 0, width - 1)
        images = jax.vmap(lambda x, i, j: x[i][:, j])(images, rows, columns)
    return images


def redraw(
    key: Array,
    drawings: Array,
    *,
    rotation: float = 0.0,
    shear: float = 0.0,
    scale: float = 0.0,
    shift: float = 0.0,
    stroke: float = 0.0,
) -> Array:
    """Each drawing as another hand might have drawn it; every number is evenly drawn.

    Args:
        key: a random key.
        drawings: [n, H, W, C] float, ink 1 on paper 0; what comes in from outside is paper.
        rotation: degrees, at most, to either side.
        shear: how far a column slants, over its height.
        scale: logarithm of the height, and of the width by itself.
        shift: share of a side, down and to the right.
        stroke: how far ink grows to its neighbours (1 is a whole pixel), or shrinks.

    Returns:
        Drawings of the same shape and dtype.
    """
    most = [rotation * jnp.pi / 180, shear, scale, scale, shift, shift, stroke]
    draws = jax.random.uniform(key, (7, len(drawings)), drawings.dtype, -1)
    angle, slant, height, width, down, right, pen = draws * jnp.array(most, drawings.dtype)[:, None]
    cos, sin, tall, wide = jnp.cos(angle), jnp.sin(angle), jnp.exp(height), jnp.exp(width)
    # Where a pixel of the new drawing was in the old one: turned, then slanted, then stretched.
    rows = [[cos * tall, -sin * wide], [sin * tall + cos * tall * slant, cos * wide]]
    matrices = jnp.moveaxis(jnp.array(rows), -1, 0)  # [n, 2, 2]
    sides = jnp.array(drawings.shape[1:3], drawings.dtype)
    moved = _affine(drawings, matrices, jnp.stack([down, right], -1) * sides)
    if not stroke:
        return moved
    pen = pen[:, None, None, None]
    grown = [_extreme(jnp.maximum, moved), _extreme(jnp.minimum, moved)]
    return jnp.where(pen > 0, moved + pen * (grown[0] - moved), moved - pen * (grown[1] - moved))


def _affine(images: Array, matrices: Array, shifts: Array) -> Array:
    """New pixel y is the old one at M (y - c) + c + s about the middle c, between pixels linear."""
    height, width = images.shape[1:3]
    middle = (jnp.array([height, width], images.dtype) - 1) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    places = jnp.einsum("nij,hwj->nhwi", matrices, grid - middle) + (middle + shifts)[:, None, None]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = jnp.clip(places + 1, 0, jnp.array([height + 1, width + 1]) - 1e-4)
    low = jnp.floor(places).astype(jnp.int32)
    part = (places - low)[..., None, :]  # [n, H, W, 1, 2]

    def at(image: Array, down: int, right: int, low: Array) -> Array:
        return image[low[..., 0] + down, low[..., 1] + right]

    total = jnp.zeros_like(images)
    for down in (0, 1):
        for right in (0, 1):
            corner = jax.vmap(lambda image, low, d=down, r=right: at(image, d, r, low))(padded, low)
            weight = jnp.where(jnp.array([down, right]) == 1, part, 1 - part).prod(-1)
            total += weight * corner
    return total


def _extreme(of: Any, images: Array) -> Array:
    """The largest or smallest of each pixel and its eight neighbours; the edge is repeated."""
    for axis in (1, 2):
        size = images.shape[axis]
        padded = jnp.pad(images, [(int(a == axis),) * 2 for a in range(4)], mode="edge")
        parts = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
        images = functools.reduce(of, parts)
    return images


def copies(
    key: Array, examples: Examples, count: int = 5, *, shift: int = 0, flip: bool = False
) -> Examples:
    """So many other views of each example, for imprinting with augmentation.

    Qi, Brown & Lowe average the embeddings of five, without the example itself.

    Args:
        key: a random key.
        examples: n of pictures.
        count: views of each.
        shift, flip: of `augment`.

    Returns:
        n * count examples; those of one stand together.
    """
    repeated = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x), count, axis=0), examples)
    views = augment(key, repeated.inputs, shift=shift, flip=flip)
    return repeated._replace(inputs=views)


def four_views(images: Array) -> Array:
    """[4, n, H, W, C] of images [n, H, W, C]: each, mirrored, its middle, and that mirrored.

    The middle is seven eighths of the sides, enlarged. For photographs; letters have a left.
    """
    top, left = images.shape[1] // 16, images.shape[2] // 16
    middle = images[:, top : images.shape[1] - top, left : images.shape[2] - left]
    middle = jax.image.resize(middle, images.shape, "cubic")
    return jnp.stack([images, images[:, :, ::-1], middle, middle[:, :, ::-1]])
