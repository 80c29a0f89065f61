"""iNaturalist 2017: photographs of 5,089 species, few of most (Van Horn et al. 2018).

The split is that of Qi, Brown & Lowe, "Low-shot learning with imprinted weights", 2018: classes
with at least 100 pictures for training are base classes, 1,240 of them, the others novel ones.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from . import cache
from .dataset import Dataset, Splits
from .folders import Member, listed_pictures

OFFICIAL = ("train", "val")


def inaturalist(
    source: str | os.PathLike[str] | None = None,
    *,
    size: int = 64,
    official: str = "train",
    least: int = 100,
) -> Splits:
    """iNaturalist 2017 as it is downloaded: train are the classes with many pictures, test others.

    Args:
        source: the folder with `train2017.json` and `val2017.json`, in COCO's form, and the folder
            `train_val_images`. None means the folder `inaturalist` in the environment's
            METASHOT_DATA, else in the cache folder.
        size: pixels along a side; pictures are stretched to a square, by area where they shrink.
            The 579,184 pictures for training take 7 GB of memory at 64, and 87 GB at 224.
        official: the pictures that are officially for "train" or "val". The paper trains on the
            train pictures of base classes, takes its examples of novel classes from theirs, and
            tests on the val pictures of both.
        least: of a base class's pictures for training.

    Returns:
        Images [n, size, size, 3] uint8, decoded once and then cached, which become -1 to 1; names
        are the species', in the order of the alphabet, groups the supercategories. A picture that
        cannot be decoded is left out with a warning.

    Raises:
        FileNotFoundError: a list or a picture that is not there.
        ValueError: a bad argument, a damaged list, no class for one part, or a class without a
            picture that can be decoded.
    """
    if size < 8:
        raise ValueError(f"size is {size}; it is at least 8")
    if official not in OFFICIAL:
        raise ValueError(f"official is {official!r}; it is one of {', '.join(OFFICIAL)}")
    place = Path(source or Path(os.environ.get("METASHOT_DATA") or cache.folder()) / "inaturalist")
    train = _listed(place, "train2017.json")
    count = Counter(member.name for member in train.members)
    chosen = train if official == "train" else _listed(place, "val2017.json")

    def part(name: str, is_base: bool) -> Dataset:
        members = [m for m in chosen.members if (count[m.name] >= least) == is_base]
        if not members:
            many = "at least" if is_base else "fewer than"
            raise ValueError(f"{place} has no class with {many} {least} pictures: change least")
        entry = f"inaturalist-{name}-{official}-{least}"
        found = listed_pictures(entry, place, members, size=size)
        return dataclasses.replace(found, groups=tuple(chosen.groups[n] for n in found.names))

    return Splits(part("base", True), None, part("novel", False))


class Listed(NamedTuple):
    """What a list says."""

    members: list[Member]
    groups: dict[str, str]  # by name of the class


def _listed(place: Path, name: str) -> Listed:
    path = place / name
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {name} in {place}: name the folder with iNaturalist's train2017.json, "
            "val2017.json and train_val_images"
        )
    try:
        whole: dict[str, list[dict[str, Any]]] = json.loads(path.read_bytes())
        files = {image["id"]: image["file_name"] for image in whole["images"]}
        names = {each["id"]: each["name"] for each in whole["categories"]}
        groups = {each["name"]: each["supercategory"] for each in whole["categories"]}
        members = [
            Member(files[each["image_id"]], "", names[each["category_id"]])
            for each in whole["annotations"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no list of iNaturalist 2017 with images, categories and annotations "
            f"({type(error).__name__}: {error}): fetch it again"
        ) from error
    return Listed(members, groups)
