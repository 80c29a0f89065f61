"""Maps [..., h, w] made larger or smaller, as products with fixed matrices for rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ..base import Array

Floats = NDArray[np.float64]


def bilinear_taps(stride: int) -> Floats:
    """[2 * stride]: the filter that enlarges by `stride`, 1 - |i - (stride - 1/2)| / stride.

    Example:
        >>> bilinear_taps(2).tolist()
        [0.25, 0.75, 0.75, 0.25]
    """
    return 1 - np.abs(np.arange(2 * stride) - (stride - 0.5)) / stride


def transposed_bilinear(maps: Array, stride: int, size: Sequence[int], offset: int = 0) -> Array:
    """A transposed convolution with `bilinear_taps`, without padding, of which a part is kept.

    It is the fixed layer at the end of an FCN: n cells become stride * (n + 1) pixels, and fade
    towards the border. (`jax.image.resize` neither fades nor has this alignment.)

    Args:
        maps: [..., h, w].
        stride: pixels from cell to cell.
        size: of what is kept, (H, W).
        offset: of its first pixel, in both directions.

    Returns:
        [..., H, W].

    Raises:
        ValueError: a part that reaches beyond the pixels there are.
    """
    taps = bilinear_taps(stride)

    def matrix(cells: int, kept: int) -> Floats:
        if offset < 0 or offset + kept > stride * (cells + 1):
            raise ValueError(
                f"{cells} cells make {stride * (cells + 1)} pixels; {kept} from {offset} on are "
                "more: pad the picture by more"
            )
        place = offset + np.arange(kept)[:, None] - stride * np.arange(cells)  # within the filter
        inside = (place >= 0) & (place < len(taps))
        return np.where(inside, taps[np.clip(place, 0, len(taps) - 1)], 0)

    return _resampled(maps, *map(matrix, maps.shape[-2:], size))


def area_means(maps: Array, size: Sequence[int]) -> Array:
    """[..., h, w]: means of maps [..., H, W] over size = (h, w) equal areas."""

    def matrix(pixels: int, cells: int) -> Floats:
        """[cells, pixels]: the share of each pixel in each cell."""
        ends = np.arange(cells + 1)[:, None] * pixels / cells
        covered = np.clip(ends - np.arange(pixels), 0, 1)  # of each pixel, up to each end
        return np.diff(covered, axis=0) * cells / pixels

    return _resampled(maps, *map(matrix, maps.shape[-2:], size))


def patch_means(maps: Array, side: int, cells: Sequence[int], first: int) -> Array:
    """[..., h, w]: means of maps [..., H, W] over patches; what lies outside counts as 0.

    Args:
        side: of a patch, in pixels; patches lie side by side.
        cells: (h, w), of patches.
        first: pixel at which the first begins, in both directions; it may be negative.
    """

    def matrix(pixels: int, count: int) -> Floats:
        place = np.arange(pixels) - first - side * np.arange(count)[:, None]
        return ((place >= 0) & (place < side)) / side

    return _resampled(maps, *map(matrix, maps.shape[-2:], cells))


def _resampled(maps: Array, rows: Floats, columns: Floats) -> Array:
    dtype = maps.dtype
    by_row = jnp.asarray(rows, dtype), jnp.asarray(columns, dtype)
    return jnp.einsum("...hw,Hh,Ww->...HW", maps, *by_row, precision=jax.lax.Precision.HIGHEST)
