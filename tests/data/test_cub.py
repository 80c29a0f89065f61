"""CUB-200-2011: a folder of its layout made up here, and some of the real pictures."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metashot.data import Dataset, cub, pictures
from metashot.data.pictures import LeftOut

REAL = Path(os.environ.get("METASHOT_DATA", "nowhere")) / "cub20"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason="METASHOT_DATA has no CUB-200-2011")
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")


def lists(folder: Path, images: list[tuple[str, str, str]]) -> None:
    """The official lists of images (path, class, flag)."""
    folder.mkdir(parents=True)
    names = sorted({name for _, name, _ in images})
    columns = {
        "images": [path for path, _, _ in images],
        "image_class_labels": [str(names.index(name) + 1) for _, name, _ in images],
        "train_test_split": [flag for _, _, flag in images],
        "classes": names,
        "bounding_boxes": ["0.0 0.0 9.0 9.0"] * len(images),
    }
    for file, values in columns.items():
        lines = [f"{number} {value}\n" for number, value in enumerate(values, 1)]
        (folder / f"{file}.txt").write_text("".join(lines))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with three species of four pictures each, of shade 10 (number) + picture."""
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path))
    folder = tmp_path / "cub" / "CUB_200_2011"
    pictures = [(bird, i) for bird in BIRDS for i in range(4)]
    lists(folder, [(f"{bird}/{bird}_{i}.jpg", bird, str(int(i > 1))) for bird, i in pictures])
    for bird, i in pictures:
        (folder / "images" / bird).mkdir(parents=True, exist_ok=True)
        shade = np.full((40, 50, 3), 10 * int(bird[2]) + i, np.uint8)
        Image.fromarray(shade).save(folder / "images" / bird / f"{bird}_{i}.jpg", quality=100)
    return folder


def shades(dataset: Dataset) -> list[int]:
    images = np.asarray(dataset.arrays.images)
    assert images.shape[1:] == (8, 8, 3)
    return np.rint(images.mean((1, 2, 3))).astype(int).tolist()


def test_the_first_classes_are_the_base_classes(source: Path):
    splits = cub(size=8, base=2)
    assert splits.val is None
    assert (splits.train.names, splits.test.names) == (BIRDS[:2], BIRDS[2:])
    assert shades(splits.train) == [10, 11, 12, 13, 20, 21, 22, 23]
    assert splits.test.paths[0] == f"{BIRDS[2]}/{BIRDS[2]}_0.jpg"
    black_and_white = splits.test.prepare(np.array([0, 255], np.uint8))  # pyright: ignore
    np.testing.assert_allclose(black_and_white, [-1, 1], atol=1e-6)
    same = cub(source, size=8, base=1)
    assert (same.train.names, same.test.names) == (BIRDS[:1], BIRDS[1:])


def test_official_parts_are_disjoint_pictures_of_the_same_classes(source: Path):
    train, test = (cub(size=8, base=2, official=part) for part in ("train", "test"))
    assert (shades(train.train), shades(train.test)) == ([12, 13, 22, 23], [32, 33])
    assert (shades(test.train), shades(test.test)) == ([10, 11, 20, 21], [30, 31])
    assert train.train.names == test.train.names


def test_what_was_read_is_kept_and_damaged_pictures_are_named(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    path = f"{BIRDS[0]}/{BIRDS[0]}_1.jpg"
    (source / "images" / path).write_bytes(b"no picture")
    for _ in range(2):  # the second time from the cache
        with pytest.warns(LeftOut, match=f"{path} in .*images is not a picture"):
            assert shades(cub(size=8, base=2).train) == [10, 12, 13, 20, 21, 22, 23]
        monkeypatch.setattr(pictures, "squares", None)


def test_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no classes\.txt in .*cub: name the folder CUB_"):
        cub()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 7}, "size is 7; it is at least 8"),
        ({"official": "val"}, "official is 'val'; it is one of all, train, test"),
        ({"base": 0}, "base is 0; it leaves some of the 3 classes for test"),
        ({"base": 3}, "base is 3; it leaves some of the 3"),
    ],
)
def test_bad_arguments(source: Path, settings: dict[str, int], said: str):
    with pytest.raises(ValueError, match=said):
        cub(**settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: (s / "images.txt").write_text("1\n"), r"images\.txt is damaged: .* not '1'"),
        (lambda s: (s / "classes.txt").write_text("1 a\n1 b\n"), r"classes\.txt is damaged"),
        (
            lambda s: (s / "train_test_split.txt").write_text("1 1\n"),
            r"train_test_split\.txt does not give each image of images\.txt one of the 2 values",
        ),
        (
            lambda s: (s / "image_class_labels.txt").write_text(
                "".join(f"{i} 4\n" for i in range(1, 13))
            ),
            r"image_class_labels\.txt does not give each image .* one of the 3 values",
        ),
    ],
)
def test_damaged_lists_are_named(source: Path, damage: Callable[[Path], object], said: str):
    damage(source)
    with pytest.raises(ValueError, match=said):
        cub(size=8, base=2)


def test_missing_pictures_are_counted(source: Path):
    (source / "images" / BIRDS[0] / f"{BIRDS[0]}_0.jpg").unlink()
    (source / "images" / BIRDS[1] / f"{BIRDS[1]}_3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of the 8 pictures listed are not in .*images"):
        cub(size=8, base=2)


@needs_data
def test_some_real_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    with (REAL / "images.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    birds = sorted({row["file"].split("/")[0] for row in rows})[:3]
    rows = [row for row in rows if row["file"].split("/")[0] in birds]
    lists(tmp_path / "cub", [(r["file"], r["file"].split("/")[0], r["cub_is_train"]) for r in rows])
    [archive] = REAL.glob("*.zip")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "cub" / "images", [row["file"] for row in rows])
    splits = cub(tmp_path / "cub", size=16, base=2, official="train")
    assert splits.train.classes + splits.test.classes == 3
    kept = {*splits.train.paths, *splits.test.paths}
    assert kept == {row["file"] for row in rows if row["cub_is_train"] == "1"}
