"""CUB-200-2011: 11,788 photographs of 200 species of birds (Wah et al. 2011).

The split is that of Qi, Brown & Lowe, "Low-shot learning with imprinted weights", 2018: the first
100 classes are base classes, the others novel ones.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import cache
from .dataset import Dataset, Splits
from .folders import Member, listed_pictures

OFFICIAL = {"all": "10", "train": "1", "test": "0"}  # their flags in train_test_split.txt


def cub(
    source: str | os.PathLike[str] | None = None,
    *,
    size: int = 224,
    official: str = "all",
    base: int = 100,
) -> Splits:
    """CUB-200-2011 as it is downloaded: train are the first classes, test the others.

    Args:
        source: the folder `CUB_200_2011` with `images.txt`, `image_class_labels.txt`,
            `train_test_split.txt`, `classes.txt` and the folder `images`, or the folder that holds
            this one. None means the folder `cub` in the environment's METASHOT_DATA, else in the
            cache folder.
        size: pixels along a side; pictures are stretched to a square, by area where they shrink.
        official: the pictures that are officially for "train" or "test", or "all". The paper
            trains on the train pictures of base classes, takes its examples of novel classes from
            theirs, and tests on the test pictures of both.
        base: the number of classes in train.

    Returns:
        Images [n, size, size, 3] uint8, decoded once and then cached, which become -1 to 1;
        classes are in the order of their numbers. A picture that cannot be decoded is left out
        with a warning.

    Raises:
        FileNotFoundError: a list or a picture that is not there.
        ValueError: a bad argument, a damaged list, or a class without a picture that can be
            decoded.
    """
    if size < 8:
        raise ValueError(f"size is {size}; it is at least 8")
    if official not in OFFICIAL:
        raise ValueError(f"official is {official!r}; it is one of {', '.join(OFFICIAL)}")
    place = Path(source or Path(os.environ.get("METASHOT_DATA") or cache.folder()) / "cub")
    if (place / "CUB_200_2011").is_dir():
        place /= "CUB_200_2011"
    classes = _table(place, "classes.txt")
    images = _table(place, "images.txt")
    labels = _of_images(place, "image_class_labels.txt", images, set(classes))
    flags = _of_images(place, "train_test_split.txt", images, {"0", "1"})
    if not 0 < base < len(classes):
        raise ValueError(f"base is {base}; it leaves some of the {len(classes)} classes for test")
    first = set(list(classes)[:base])

    def part(name: str, is_base: bool) -> Dataset:
        members = [
            Member(path, "", classes[labels[i]])
            for i, path in images.items()
            if flags[i] in OFFICIAL[official] and (labels[i] in first) == is_base
        ]
        entry = f"cub-{name}-{official}-{base}"
        return listed_pictures(entry, place / "images", members, size=size)

    return Splits(part("base", True), None, part("novel", False))


def _table(place: Path, name: str) -> dict[str, str]:
    """What a list says of each number, in its order."""
    path = place / name
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {name} in {place}: name the folder CUB_200_2011 as it was unpacked"
        )
    found: dict[str, str] = {}
    for line in path.read_text("utf-8").splitlines():
        number, _, value = line.strip().partition(" ")
        if number in found or not value:
            raise ValueError(
                f"{path} is damaged: its lines are a new number and a value, not {line!r}"
            )
        found[number] = value
    return found


def _of_images(place: Path, name: str, images: dict[str, str], values: set[str]) -> dict[str, str]:
    """What a list says of each image."""
    found = _table(place, name)
    if found.keys() != images.keys() or not values.issuperset(found.values()):
        raise ValueError(
            f"{place / name} does not give each image of images.txt one of the {len(values)} "
            "values that it can have: unpack the archive again"
        )
    return found
