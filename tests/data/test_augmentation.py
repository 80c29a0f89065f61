"""Views of pictures: every one is a cut of the picture or of its mirror image."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from metashot.base import Examples
from metashot.data import augment, copies, four_views, redraw
from metashot.data.augmentation import _affine

SIDE, SHIFT, N = 5, 2, 4000
PICTURE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
PADDED = np.pad(PICTURE, [(SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)], mode="edge")
CUTS = [
    PADDED[y : y + SIDE, x : x + SIDE] for y in range(2 * SHIFT + 1) for x in range(2 * SHIFT + 1)
]


@pytest.mark.parametrize("flip", [False, True])
def test_each_cut_of_the_picture_with_its_edge_repeated_is_as_likely(flip: bool):
    pictures = jnp.broadcast_to(PICTURE, (N, *PICTURE.shape))
    views = jax.jit(lambda key, x: augment(key, x, shift=SHIFT, flip=flip))(
        jax.random.key(0), pictures
    )
    assert views.dtype == jnp.uint8
    possible = (
        [
            *CUTS,
            *(
                np.pad(PICTURE[:, ::-1], ((2, 2), (2, 2), (0, 0)), mode="edge")[
                    y : y + SIDE, x : x + SIDE
                ]
                for y in range(5)
                for x in range(5)
            ),
        ]
        if flip
        else CUTS
    )
    number = {cut.tobytes(): i for i, cut in enumerate(possible)}
    seen = np.bincount([number[view.tobytes()] for view in np.asarray(views)])
    assert len(seen) == len(possible)
    assert stats.chisquare(seen).pvalue > 1e-3


def test_without_a_shift_and_a_flip_pictures_stay_as_they_are():
    pictures = jnp.asarray(PICTURE)[None]
    np.testing.assert_array_equal(augment(jax.random.key(0), pictures), pictures)


def test_copies_of_an_example_stand_together_with_its_label():
    inputs = jnp.arange(3.0)[:, None, None, None] * jnp.ones((3, 2, 2, 1))
    examples = Examples(inputs, jnp.array([4, 0, 2]), jnp.array([True, False, True]))
    made = copies(jax.random.key(0), examples, 5, shift=1, flip=True)
    np.testing.assert_array_equal(made.inputs[:, 0, 0, 0], np.repeat([0.0, 1.0, 2.0], 5))
    np.testing.assert_array_equal(made.targets, np.repeat([4, 0, 2], 5))
    np.testing.assert_array_equal(made.mask, np.repeat([True, False, True], 5))


def test_a_shift_under_zero_is_refused():
    with pytest.raises(ValueError, match="shift is -1"):
        augment(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), shift=-1)


def test_four_views_are_the_picture_its_middle_and_their_mirror_images():
    ramp = jnp.broadcast_to(
        jnp.arange(32.0)[:, None, None], (1, 32, 32, 1)
    )  # brighter to the right
    ramp = ramp.swapaxes(1, 2)
    views = four_views(ramp)
    np.testing.assert_array_equal(views[0], ramp)
    np.testing.assert_array_equal(views[1::2], views[::2, :, :, ::-1])
    # The middle 28 columns are 2 to 29: its 32 centres lie at 1.5 + 7/8 (i + 1/2).
    wanted = 1.5 + 7 / 8 * (np.arange(32) + 0.5)
    np.testing.assert_allclose(views[2, 0, 16, 3:-3, 0], wanted[3:-3], atol=1e-3)


def test_an_affine_map_is_scipys():
    rng = np.random.default_rng(0)
    images = rng.random((3, 9, 7, 2)).astype(np.float32)
    matrices = np.eye(2) + 0.3 * rng.normal(size=(3, 2, 2))
    shifts = rng.normal(size=(3, 2))
    found = jax.jit(_affine)(images, jnp.asarray(matrices), jnp.asarray(shifts))
    middle = np.array([4.0, 3.0])
    for image, matrix, shift, moved in zip(images, matrices, shifts, found, strict=True):
        offset = middle + shift - matrix @ middle
        for c in range(2):
            # Between its edge and nothing scipy interpolates where the picture is padded.
            wide = np.pad(image[..., c], 4)
            about = offset + 4 - matrix @ np.array([4, 4])
            wanted = ndimage.affine_transform(wide, matrix, about, order=1)[4:-4, 4:-4]
            np.testing.assert_allclose(moved[..., c], wanted, atol=1e-4)


def redrawn(drawing: np.ndarray, n: int = 200, stroke: float = 0.0, **most: float) -> np.ndarray:
    """[n, H, W] views of one drawing [H, W]; one program serves all but the stroke."""
    drawings = np.broadcast_to(np.float32(drawing)[..., None], (n, *drawing.shape, 1))
    given = {"rotation": 0.0, "shear": 0.0, "scale": 0.0, "shift": 0.0, **most}
    return np.asarray(_redrawn(drawings, given, stroke))[..., 0]


@partial(jax.jit, static_argnames="stroke")
def _redrawn(drawings: jax.Array, most: dict[str, float], stroke: float) -> jax.Array:
    return redraw(jax.random.key(0), drawings, stroke=stroke, **most)


def test_redrawing_changes_only_what_it_is_asked_to():
    there = np.arange(33) - 16
    drawing = np.exp(-(there[:, None] ** 2 + there**2) / 40)  # the same in every direction
    drawings = np.broadcast_to(drawing, (200, 33, 33))
    np.testing.assert_allclose(redrawn(drawing), drawings, atol=1e-5)
    np.testing.assert_allclose(redrawn(drawing, rotation=180.0), drawings, atol=0.03)
    sizes = np.log(redrawn(drawing, scale=0.2).sum((1, 2)) / drawing.sum())
    assert abs(sizes.mean()) < 0.03  # a sum of two even draws, from -0.4 to 0.4
    assert sizes.std() == pytest.approx(0.2 * np.sqrt(2 / 3), rel=0.15)
    moved = redrawn(drawing, shift=0.1)
    centre = (moved * there).sum((1, 2)) / moved.sum((1, 2))
    assert np.abs(centre).max() == pytest.approx(3.3, abs=0.15)
    assert centre.std() == pytest.approx(3.3 / np.sqrt(3), rel=0.15)
    slanted = redrawn(drawing, shear=0.3)
    covariance = (slanted * there[:, None] * there).sum((1, 2)) / slanted.sum((1, 2))
    np.testing.assert_allclose(np.abs(covariance).max(), 0.3 * 20, rtol=0.1)


def test_strokes_grow_and_shrink_by_up_to_a_pixel():
    square = np.pad(np.ones((4, 4)), 4)
    areas = redrawn(square, 400, stroke=1.0).sum((1, 2))
    assert 4 <= areas.min() < 5
    assert 35 < areas.max() <= 36
    np.testing.assert_allclose((areas > 16).mean(), 0.5, atol=0.1)
