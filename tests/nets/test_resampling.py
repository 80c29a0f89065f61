"""Maps made larger and smaller: filters worked out by hand, `lax`, means over blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from metashot import nets

pytestmark = pytest.mark.usefixtures("quick_compile", "float64")


def row(values: list[float], stride: int = 2) -> np.ndarray:
    """A line of cells enlarged: its middle rows are the line in both directions' filters."""
    maps = jnp.asarray(values)[None] * jnp.ones((2, 1))
    size = (3 * stride, stride * (len(values) + 1))
    return np.asarray(nets.transposed_bilinear(maps, stride, size))[stride]


def test_taps() -> None:
    assert nets.bilinear_taps(2).tolist() == [0.25, 0.75, 0.75, 0.25]
    taps = nets.bilinear_taps(32)
    assert taps[0] == taps[-1] == 0.015625
    assert taps[31] == taps[32] == 0.984375
    assert taps.sum() == 32
    np.testing.assert_array_equal(taps[:32] + taps[32:], 1)


@pytest.mark.parametrize(
    ("cells", "pixels"),
    [
        ([1, 3], [0.25, 0.75, 1.5, 2.5, 2.25, 0.75]),
        ([2, -10], [0.5, 1.5, -1, -7, -7.5, -2.5]),
        ([10, -2], [2.5, 7.5, 7, 1, -1.5, -0.5]),
    ],
)
def test_a_line_by_hand(cells: list[float], pixels: list[float]) -> None:
    np.testing.assert_allclose(row(cells), pixels, atol=1e-12)


def test_upsampling_is_of_logits_not_of_probabilities() -> None:
    chances = np.asarray(jax.nn.sigmoid(jnp.array([10.0, -2.0])))
    enlarged = row(chances.tolist())
    desired = [0.249989, 0.749966, 0.779767, 0.339391, 0.089402, 0.029801]
    np.testing.assert_allclose(enlarged, desired, atol=1e-6)
    assert (enlarged > 0.5).tolist() == [0, 1, 1, 0, 0, 0]
    assert (row([10, -2]) > 0).tolist() == [1, 1, 1, 1, 0, 0]


def test_it_is_the_transposed_convolution() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 4))
    taps = nets.bilinear_taps(4)
    kernel = jnp.asarray(np.outer(taps, taps))[..., None, None]
    whole = lax.conv_transpose(
        jnp.asarray(maps)[..., None], kernel, (4, 4), [(7, 7)] * 2, transpose_kernel=True
    )
    assert whole.shape[1:3] == (16, 20)
    ours = nets.transposed_bilinear(jnp.asarray(maps), 4, (9, 11), offset=5)
    np.testing.assert_allclose(ours, whole[:, 5:14, 5:16, 0], atol=1e-12)


def test_more_pixels_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match="16 cells make 544 pixels; 540 from 19 on are more"):
        nets.transposed_bilinear(jnp.zeros((16, 16)), 32, (540, 500), offset=19)


@pytest.mark.parametrize("size", [(3, 4), (2, 2)])
def test_area_means_of_blocks(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 12, 8))
    h, w = size
    desired = maps.reshape(2, h, 12 // h, w, 8 // w).mean((2, 4))
    np.testing.assert_allclose(nets.area_means(jnp.asarray(maps), size), desired, atol=1e-12)


def test_area_means_of_parts_of_pixels() -> None:
    """Three pixels in two cells: the middle one is half in each."""
    found = nets.area_means(jnp.array([[3.0, 6.0, 0.0]]), (1, 2))
    np.testing.assert_allclose(found, [[4.0, 2.0]], atol=1e-12)


def test_patches_of_the_papers_baselines() -> None:
    """Case A16: a patch is of the class if more than half of it is."""
    mask = np.zeros((64, 64))
    mask[:32, :17] = mask[32:, 32:48] = 1
    means = nets.patch_means(jnp.asarray(mask), 32, (2, 2), 0)
    np.testing.assert_allclose(means, [[0.53125, 0], [0, 0.5]])


def test_what_a_patch_has_outside_is_background() -> None:
    """The first patch begins 24 pixels before the picture, as with 121 zeros of padding."""
    means = nets.patch_means(jnp.ones((40, 40)), 32, (3, 3), -24)
    shares = np.array([8 / 32, 1, 0])
    np.testing.assert_allclose(means, shares[:, None] * shares)
