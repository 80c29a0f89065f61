"""Views of pictures: every one is a cut of the picture or of its mirror image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metashot.base import Examples
from metashot.data import augment, copies, four_views

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
