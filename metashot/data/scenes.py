"""Scenes of glyphs: several characters on one sheet, and the mask of one of them. Drawn on the
device, from class images that fit in it whole; nothing to download.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..base import Array, Episode, Examples
from .dataset import ClassImages, Dataset
from .episodes import Episodes


def scene_episodes(
    dataset: Dataset,
    *,
    size: int = 128,
    shot: int = 1,
    query: int = 1,
    objects: int = 5,
    same: int = 2,
) -> Episodes:
    """Episodes of one class against all else: sheets with characters, and where one of them is.

    Each sheet has `objects` characters in places that do not overlap, 1 to `same` of them drawings
    of the class that is asked for, the others of other classes, as likely of any alphabet. The mask
    is the character's ink and what is within a tenth of its size. No drawing of the class comes
    twice in an episode.

    Args:
        dataset: classes of small pictures, 1 where there is ink once prepared (`metashot.data.
            glyphs`); each class has `same` drawings for each sheet.
        size: pixels along a side of a sheet.
        shot, query: sheets of each part.
        objects: characters of a sheet.
        same: most of them that are of the class.

    Raises:
        ValueError: sizes under 1; too many characters for a sheet, or too few drawings or classes.

    Example:
        >>> import numpy as np
        >>> from metashot.data import from_arrays
        >>> data = from_arrays(np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3)
        >>> source = scene_episodes(data, size=32, objects=3, same=1)
        >>> episode = jax.eval_shape(source.sample, jax.random.key(0), source.arrays)
        >>> episode.query.inputs.shape, episode.query.targets.shape
        ((1, 32, 32, 1), (1, 32, 32))
    """
    side = dataset.shape[0]
    cells = int(size // (1.2 * side))  # along a side, with room to move
    sheets = shot + query
    for name, value in {"shot": shot, "query": query, "same": same}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it is at least 1")
    if not same <= objects <= cells**2:
        raise ValueError(
            f"objects is {objects}; a sheet of {size} pixels has room for {same} to {cells**2} "
            f"characters of {side}"
        )
    if dataset.smallest < same * sheets:
        raise ValueError(
            f"{sheets} sheets with {same} of a class need {same * sheets} drawings, but the "
            f"smallest class has only {dataset.smallest}"
        )
    if dataset.classes < 2:
        raise ValueError("a sheet has characters of other classes, but the data have only 1 class")
    play = size / cells - side  # of a character in its cell
    reach = max(1, side // 10)

    def sheet(key: Array, data: ClassImages, number: Array, own: Array) -> tuple[Array, Array]:
        """A sheet [size, size, C] and its mask, of a class and drawings of it [same]."""
        place_key, move_key, other_key, many_key = jax.random.split(key, 4)
        places = jax.random.permutation(place_key, cells**2)[:objects]
        moved = jax.random.uniform(move_key, (objects, 2)) * play
        corners = jnp.stack([places // cells, places % cells], -1) * size / cells + moved
        which, within = jax.random.uniform(other_key, (2, objects))
        others = jnp.floor(which * (len(data.count) - 1)).astype(jnp.int32)
        others += others >= number
        drawings = jnp.floor(within * data.count[others]).astype(jnp.int32)
        rows = data.offset[others] + drawings
        wanted = jnp.arange(objects) < jax.random.randint(many_key, (), 1, same + 1)
        rows = jnp.where(wanted, data.offset[number] + own[jnp.arange(objects) % same], rows)
        ink = dataset.prepare(jnp.asarray(data.images)[rows])  # [objects, side, side, C]
        near = jax.lax.reduce_window(
            ink.max(-1), 0.0, jax.lax.max, (1, *(2 * reach + 1,) * 2), (1, 1, 1), "SAME"
        )
        masks = (near > 0.3) & wanted[:, None, None]
        canvas = jnp.zeros((size, size, ink.shape[-1] + 1))
        tiles = jnp.concatenate([ink, masks[..., None]], -1)
        corners = jnp.floor(corners).astype(jnp.int32)

        def put(canvas: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
            pixels, (top, left) = tile[0], tile[1]
            return jax.lax.dynamic_update_slice(canvas, pixels, (top, left, 0)), None

        canvas, _ = jax.lax.scan(put, canvas, (tiles, corners))
        return canvas[..., :-1], (canvas[..., -1] > 0).astype(jnp.int32)

    def sample(key: Array, arrays: ClassImages) -> Episode:
        data: ClassImages = jax.tree.map(jnp.asarray, arrays)
        class_key, own_key, sheets_key = jax.random.split(key, 3)
        number = jax.random.randint(class_key, (), 0, len(data.count))
        free = jnp.arange(data.largest) < data.count[number]
        draws = jnp.where(free, jax.random.uniform(own_key, (data.largest,)), -1)
        own = jax.lax.top_k(draws, same * sheets)[1].reshape(sheets, same)
        keys = jax.random.split(sheets_key, sheets)
        pictures, masks = jax.vmap(lambda key, own: sheet(key, data, number, own))(keys, own)
        every = Examples(pictures, masks, jnp.ones(sheets, bool))
        support, asked = (
            jax.tree.map(lambda x, part=part: x[part], every)
            for part in (slice(shot), slice(shot, None))
        )
        # Each episode's sheets are its own.
        pictures = jax.random.bits(key, (query,)).astype(jnp.int32)
        return Episode(support, asked, {"class": number, "pictures": pictures})

    return Episodes(dataset.arrays, sample, dataset.prepare)
