"""Other views of the same pictures, drawn on the device inside the compiled step."""

from __future__ import annotations

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
