"""Data sets in memory."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metashot.data.dataset import INK, Dataset, Prepare, from_arrays, rotations, select


def images(n: int, side: int = 6) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 1), np.uint8)


@pytest.fixture
def ragged() -> Dataset:
    """Classes of 2, 3 and 1 images, given in a mixed order."""
    return from_arrays(
        images(6),
        np.array([1, 0, 2, 1, 0, 1]),
        ("a", "b", "c"),
        groups=("x", "x", "y"),
        drawers=np.arange(6),
        paths=tuple("012345"),
        prepare=INK,
    )


def rows(dataset: Dataset, c: int) -> NDArray[np.uint8]:
    offset, count = int(dataset.arrays.offset[c]), int(dataset.arrays.count[c])
    return np.asarray(dataset.arrays.images[offset : offset + count])


def test_from_arrays_sorts_by_class_and_keeps_the_order_within(ragged: Dataset):
    np.testing.assert_array_equal(ragged.arrays.count, [2, 3, 1])
    np.testing.assert_array_equal(ragged.arrays.offset, [0, 2, 5])
    np.testing.assert_array_equal(ragged.drawers, [1, 4, 0, 3, 5, 2])
    assert ragged.paths == tuple("140352")
    np.testing.assert_array_equal(rows(ragged, 1), images(6)[[0, 3, 5]])
    assert (ragged.classes, ragged.smallest, ragged.shape) == (3, 1, (6, 6, 1))
    assert ragged.arrays.largest == 3


def test_sorted_images_are_not_copied():
    given = images(4)
    dataset = from_arrays(given, np.array([0, 0, 1, 1]))
    assert np.shares_memory(dataset.arrays.images, given)
    assert dataset.names == ("0", "1")


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((4, 6, 6), [0, 0, 1, 1], r"\[n, H, W, C\]"),
        ((4, 6, 6, 1), [0, 0, 1], "as many labels"),
        ((4, 6, 6, 1), [0, 0, 2, 2], "needs an image"),
        ((0, 6, 6, 1), [], "needs an image"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(shape: list[int], labels: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        from_arrays(np.zeros(shape, np.uint8), np.array(labels, int))


def test_float_images_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        from_arrays(np.zeros((2, 6, 6, 1)), np.array([0, 1]))  # pyright: ignore


def test_select_takes_classes_in_the_order_given(ragged: Dataset):
    chosen = select(ragged, [2, 0])
    assert (chosen.names, chosen.groups, chosen.paths) == (("c", "a"), ("y", "x"), tuple("214"))
    np.testing.assert_array_equal(chosen.drawers, [2, 1, 4])
    np.testing.assert_array_equal(chosen.arrays.images, images(6)[[2, 1, 4]])
    assert chosen.prepare == INK


def test_rotations_are_those_of_pillow(ragged: Dataset):
    turned = rotations(ragged)
    assert turned.classes == 12
    assert turned.names[4:8] == ("b/rot000", "b/rot090", "b/rot180", "b/rot270")
    turns = ("rot000", "rot090", "rot180", "rot270")
    assert turned.groups == tuple(f"{g}/{turn}" for g in ("x", "x", "y") for turn in turns)
    for c in range(3):
        for k in range(4):
            for before, after in zip(rows(ragged, c), rows(turned, 4 * c + k), strict=True):
                picture = Image.fromarray(before[..., 0]).rotate(90 * k)
                np.testing.assert_array_equal(after[..., 0], picture)
    np.testing.assert_array_equal(turned.drawers[8:20], [0, 3, 5] * 4)
    assert turned.paths[8:20] == tuple("035") * 4


def test_prepare_maps_pixels_to_floats():
    pixels = jnp.array([0, 51, 255], jnp.uint8)
    np.testing.assert_allclose(Prepare()(pixels), [0, 0.2, 1], rtol=1e-6)
    np.testing.assert_allclose(INK(pixels), [1, 0.8, 0], atol=1e-6)
