"""Contact sheets: the images are found again in the picture."""

from __future__ import annotations

import numpy as np
import pytest

from metashot.data import from_arrays
from metashot.data.contact_sheet import contact_sheet
from metashot.data.dataset import Dataset

GAP = 4


def shades(side: int, channels: int, counts: tuple[int, ...] = (3, 2, 3)) -> Dataset:
    """Each image of one shade, 50 c + i, so that a pixel tells which it is."""
    labels = np.repeat(np.arange(len(counts)), counts)
    shade = np.concatenate([50 * c + np.arange(n) for c, n in enumerate(counts)])
    images = np.broadcast_to(shade[:, None, None, None], (len(shade), side, side, channels))
    return from_arrays(images.astype(np.uint8), labels, ("a", "bb", "a long name " * 9))


@pytest.mark.parametrize(("side", "times", "channels"), [(28, 3, 1), (32, 2, 3), (70, 1, 3)])
def test_a_row_a_class_and_small_images_enlarged(side: int, times: int, channels: int):
    sheet = contact_sheet(shades(side, channels))
    assert sheet.mode == ("L" if channels == 1 else "RGB")
    cell = side * times + GAP
    assert sheet.height == 3 * cell + GAP
    left = sheet.width - 3 * cell
    assert left > 0
    pixels = np.asarray(sheet.convert("L"))
    seen = np.array(
        [
            [
                pixels[GAP + cell * r : cell * (r + 1), left + cell * c :][:, : cell - GAP]
                for c in range(3)
            ]
            for r in range(3)
        ]
    )
    assert (seen == seen[..., :1, :1]).all()  # nothing overlaps
    first = np.sort(seen[:, :, 0, 0], axis=1)
    paper = 211  # light grey, where a class has no third image
    np.testing.assert_array_equal(first, [[0, 1, 2], [50, 51, paper], [100, 101, 102]])
    assert (pixels[:, : left - 2 * GAP] < 100).any(1).reshape(-1).any()  # names


def test_fewer_are_drawn_from_the_seed():
    dataset = shades(64, 1, (20, 20, 20))
    sheets = [contact_sheet(dataset, classes=2, images=5, seed=seed) for seed in (0, 0, 1)]
    assert sheets[0].height == 2 * (64 + GAP) + GAP
    assert sheets[0] == sheets[1]
    assert sheets[0] != sheets[2]


@pytest.mark.parametrize("name", ["classes", "images"])
def test_nothing_to_show(name: str):
    with pytest.raises(ValueError, match=f"{name} is 0; it is at least 1"):
        contact_sheet(shades(8, 1), **{name: 0})
