"""Scenes of glyphs: what is on a sheet, and what its mask is of."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from scipy import ndimage

from metashot.data import Dataset, from_arrays, scene_episodes

pytestmark = pytest.mark.usefixtures("quick_compile")


def shades(classes: int = 4, drawings: int = 8, side: int = 10) -> Dataset:
    """Squares of 6 pixels; their shade says of which class they are, and how it was drawn."""
    images = np.zeros((classes, drawings, side, side, 1), np.uint8)
    shade = 100 + 20 * np.arange(classes)[:, None] + np.arange(drawings)
    images[:, :, 2:8, 2:8, 0] = shade[:, :, None, None]
    return from_arrays(images.reshape(-1, side, side, 1), np.repeat(np.arange(classes), drawings))


def drawn(n: int, **settings: Any) -> Any:
    source = scene_episodes(shades(), size=48, **settings)
    keys = jax.random.split(jax.random.key(0), n)
    return jax.jit(jax.vmap(lambda key: source.sample(key, source.arrays)))(keys)


def test_sheets_by_their_shades() -> None:
    episodes = drawn(40, shot=2, objects=5)
    for e in range(40):
        number = int(episodes.about["class"][e])
        own = list[int]()
        for part, sheets in ((episodes.support, 2), (episodes.query, 1)):
            for i in range(sheets):
                picture = np.rint(np.asarray(part.inputs[e, i, ..., 0]) * 255).astype(int)
                mask = np.asarray(part.targets[e, i])
                found, count = ndimage.label(picture > 0)
                assert count == 5
                told = [int(picture[found == k].max()) - 100 for k in range(1, count + 1)]
                mine = [shade for shade in told if shade // 20 == number]
                own += mine
                assert 1 <= len(mine) <= 2
                # Squares of 6, and a pixel around.
                assert mask.sum() == len(mine) * 64
                inside = picture[(mask == 1) & (picture > 0)]
                assert {int(s) - 100 for s in inside} == set(mine)
                assert ((picture - 100) // 20 == number)[mask == 0].sum() == 0
        assert len(own) == len(set(own))  # no drawing twice


def test_a_scene_is_a_function_of_its_key() -> None:
    one, two = drawn(3), drawn(3)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert np.any(one.query.inputs[0] != one.query.inputs[1])
    assert one.support.inputs.shape == (3, 1, 48, 48, 1)
    assert one.query.targets.dtype == np.int32


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"query": 0}, "query is 0; it is at least 1"),
        ({"objects": 17}, "objects is 17; a sheet of 48 pixels has room for 2 to 16 characters"),
        ({"shot": 4}, "5 sheets with 2 of a class need 10 drawings, but the smallest class has"),
    ],
)
def test_sheets_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scene_episodes(shades(), size=48, **wrong)
