"""iNaturalist 2017: a folder of its layout, made up here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metashot.data import Dataset, inaturalist

SPECIES = {
    "Sceloporus woodi": "Reptilia",
    "Danaus plexippus": "Insecta",
    "Apis mellifera": "Insecta",
}
COUNTS = {"train": (3, 1, 4), "val": (1, 2, 1)}  # pictures of each species


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder; a picture's shade is 20 (its species), 10 more in val, and its number."""
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path))
    folder = tmp_path / "inaturalist"
    categories = [
        {"id": i, "name": name, "supercategory": group}
        for i, (name, group) in enumerate(SPECIES.items())
    ]
    for part, counts in COUNTS.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for each, count in zip(categories, counts, strict=True):
            for i in range(count):
                home = f"train_val_images/{each['supercategory']}/{each['name']}"
                shade = 20 * each["id"] + i + (10 if part == "val" else 0)
                images.append({"id": 7 * len(images), "file_name": f"{home}/{shade}.jpg"})
                annotations.append({"image_id": images[-1]["id"], "category_id": each["id"]})
                (folder / home).mkdir(parents=True, exist_ok=True)
                pixels = np.full((30, 20, 3), shade, np.uint8)
                Image.fromarray(pixels).save(folder / home / f"{shade}.jpg", quality=100)
        # Their order is no order of the classes.
        whole = {"images": images, "annotations": annotations[::-1], "categories": categories}
        (folder / f"{part}2017.json").write_text(json.dumps(whole))
    return folder


def shades(dataset: Dataset) -> list[int]:
    return np.rint(np.asarray(dataset.arrays.images).mean((1, 2, 3))).astype(int).tolist()


def test_classes_of_many_pictures_are_base_classes(source: Path):
    splits = inaturalist(size=8, least=3)
    assert splits.val is None
    assert splits.train.names == ("Apis mellifera", "Sceloporus woodi")
    assert splits.train.groups == ("Insecta", "Reptilia")
    assert shades(splits.train) == [43, 42, 41, 40, 2, 1, 0]
    assert (splits.test.names, shades(splits.test)) == (("Danaus plexippus",), [20])
    assert splits.train.prepare.offset == -1


def test_the_pictures_for_validation_are_of_the_same_classes(source: Path):
    splits = inaturalist(source, size=8, least=3, official="val")
    assert splits.train.names == ("Apis mellifera", "Sceloporus woodi")
    assert shades(splits.train) == [50, 10]
    assert shades(splits.test) == [31, 30]  # two, as in no part of train2017.json


def test_another_place(tmp_path: Path, source: Path):
    with pytest.raises(FileNotFoundError, match=r"no train2017\.json in .*: name the folder with"):
        inaturalist(tmp_path)
    (source / "val2017.json").unlink()
    assert inaturalist(size=8, least=3).train.classes == 2
    with pytest.raises(FileNotFoundError, match=r"there is no val2017\.json in"):
        inaturalist(official="val")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 7}, "size is 7; it is at least 8"),
        ({"official": "test"}, "official is 'test'; it is one of train, val"),
        ({"least": 5}, "has no class with at least 5 pictures: change least"),
        ({"least": 1}, "has no class with fewer than 1 pictures"),
    ],
)
def test_bad_arguments(source: Path, settings: dict[str, int], said: str):
    with pytest.raises(ValueError, match=said):
        inaturalist(**settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: "{",
        lambda whole: "[]",
        lambda whole: json.dumps({**whole, "categories": []}),
        lambda whole: json.dumps({k: v for k, v in whole.items() if k != "annotations"}),
    ],
)
def test_a_damaged_list_is_named(source: Path, damage: Callable[[Any], str]):
    path = source / "train2017.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=r"train2017\.json is no list of iNaturalist 2017 with"):
        inaturalist(size=8)


def test_missing_pictures_are_counted(source: Path):
    (source / "train_val_images" / "Insecta" / "Apis mellifera" / "41.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of the 7 pictures .* mellifera/41\.jpg: unpack"
    ):
        inaturalist(size=8, least=3)
