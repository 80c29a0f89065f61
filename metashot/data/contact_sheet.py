"""A contact sheet: some images of some classes, to look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .dataset import Dataset

READABLE = 64  # pixels along a side: smaller images are enlarged
GAP = 4  # pixels around an image
LABEL = 14  # pixels of a name's letters
LONGEST = 36  # letters of a name


def contact_sheet(
    dataset: Dataset, *, classes: int = 10, images: int = 10, seed: int = 0
) -> Image.Image:
    """Images drawn at random, a row a class, with its name at the left.

    Args:
        dataset: the images, as they are stored: neither scaled nor inverted.
        classes: how many rows; all classes where there are fewer.
        images: how many of each class; all where there are fewer.
        seed: of the choice of classes and images.

    Returns:
        A grey picture for grey images, an RGB one else. Images smaller than 64 pixels are enlarged
        a whole number of times, so that each pixel stays a square.

    Raises:
        ValueError: classes or images below 1.
    """
    for name, count in {"classes": classes, "images": images}.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it is at least 1")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(dataset.classes)[:classes])
    rows = [_some(rng, dataset, c)[:images] for c in chosen]
    height, width, channels = dataset.shape
    times = -(-READABLE // max(height, width))
    cell = height * times + GAP, width * times + GAP

    font = ImageFont.load_default(LABEL)
    names = [_short(dataset.names[c]) for c in chosen]
    left = round(max(font.getlength(name) for name in names)) + 3 * GAP
    size = left + cell[1] * max(map(len, rows)), GAP + cell[0] * len(rows)
    sheet = Image.new("L" if channels == 1 else "RGB", size, "lightgrey")
    draw = ImageDraw.Draw(sheet)
    for row, (name, numbers) in enumerate(zip(names, rows, strict=True)):
        top = GAP + cell[0] * row
        draw.text((2 * GAP, top + cell[0] / 2), name, fill="black", font=font, anchor="lm")
        for column, number in enumerate(numbers):
            image = np.asarray(dataset.arrays.images[number])
            enlarged = image.repeat(times, 0).repeat(times, 1)
            picture = Image.fromarray(enlarged[..., 0] if channels == 1 else enlarged)
            sheet.paste(picture, (left + cell[1] * column, top))
    return sheet


def _some(rng: np.random.Generator, dataset: Dataset, number: int) -> NDArray[np.integer]:
    """The images of a class in random order."""
    first, count = dataset.arrays.offset[number], dataset.arrays.count[number]
    return np.asarray(first) + rng.permutation(int(count))


def _short(name: str) -> str:
    """A long name without its middle."""
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST // 2 - 2]}...{name[1 - LONGEST // 2 :]}"
