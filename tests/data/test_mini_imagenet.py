"""miniImageNet: lists and pictures made up here, and the published lists."""

from __future__ import annotations

import gzip
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metashot.data import mini_imagenet
from metashot.data.dataset import Prepare

MODULE = sys.modules[mini_imagenet.__module__]  # the package's attribute is the function
LISTS = Path(os.environ.get("METASHOT_DATA", "nowhere")) / "miniimagenet_splits"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="METASHOT_DATA has no such lists")
LABELS = {"train": ("n03", "n01"), "val": ("n02",), "test": ("n05", "n04")}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with five classes of two pictures each, each of one shade and another."""
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path))
    folder = tmp_path / "mini_imagenet"
    (folder / "images").mkdir(parents=True)
    for part, labels in LABELS.items():
        rows = [(f"{label}0000{i}.jpg", label) for i in (2, 1) for label in labels]
        lines = ["filename,label", *(",".join(row) for row in rows)]
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
        for name, label in rows:
            pixels = np.full((50, 40, 3), 10 * int(label[1:]) + int(name[7]), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
    return folder


def test_what_is_read_is_what_is_listed(source: Path):
    splits = mini_imagenet()
    assert [part and part.names for part in splits] == [("n01", "n03"), ("n02",), ("n04", "n05")]
    train = splits.train
    assert train.shape == (84, 84, 3)
    assert train.prepare == Prepare()
    assert train.paths == ("n0100002.jpg", "n0100001.jpg", "n0300002.jpg", "n0300001.jpg")
    shades = np.repeat([12, 11, 32, 31], 84 * 84 * 3).reshape(4, 84, 84, 3)
    np.testing.assert_allclose(train.arrays.images, shades, atol=1)  # JPEG


def test_a_picture_is_stretched_to_a_square(source: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (168, 252, 3), np.uint8)
    Image.fromarray(pixels).save(source / "images" / "n0200001.jpg", "PNG")
    val = mini_imagenet().val
    assert val is not None
    mean = pixels.reshape(84, 2, 84, 3, 3).mean((1, 3))
    np.testing.assert_allclose(val.arrays.images[1], mean, atol=1)  # rounded after each axis


def test_pictures_beside_packed_lists(source: Path):
    wanted = mini_imagenet(source, size=8).test
    for path in (source / "images").iterdir():
        path.rename(source / path.name)
    (source / "images").rmdir()
    for path in list(source.glob("*.csv")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    found = mini_imagenet(source, size=8).test
    assert found.paths == wanted.paths
    np.testing.assert_array_equal(found.arrays.images, wanted.arrays.images)


def test_only_changed_pictures_are_decoded_again(source: Path, monkeypatch: pytest.MonkeyPatch):
    mini_imagenet()
    monkeypatch.setattr(MODULE.pictures, "squares", None)
    assert mini_imagenet().train.classes == 2
    os.utime(source / "images" / "n0100001.jpg", (1, 1))
    with pytest.raises(TypeError):
        mini_imagenet()


def test_missing_pictures_are_counted(source: Path):
    (source / "images" / "n0300002.jpg").unlink()
    (source / "images" / "n0400001.jpg").unlink()
    said = rf"^2 of the 10 pictures .* not in {source}/images, the first of them n0300002\.jpg: "
    with pytest.raises(FileNotFoundError, match=said):
        mini_imagenet()


def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("METASHOT_DATA", raising=False)
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"no train\.csv in {tmp_path}/mini_imagenet: "):
        mini_imagenet()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: (s / "val.csv").write_text(""), r"val\.csv is not a list of the form"),
        (lambda s: (s / "val.csv").write_text("filename,label\n"), r"val\.csv is not a list"),
        (lambda s: (s / "val.csv").write_text("n0200001.jpg,n02\n"), r"val\.csv is not a list"),
        (lambda s: (s / "val.csv").write_text("filename,label\nn02\n"), r"val\.csv is not a list"),
        (
            lambda s: (s / "images" / "n0200001.jpg").write_bytes(b"no picture"),
            r"1 pictures .* cannot be decoded, the first of them .*n0200001\.jpg \(",
        ),
    ],
)
def test_damage_is_named(source: Path, damage: Callable[[Path], object], said: str):
    damage(source)
    with pytest.raises(ValueError, match=said):
        mini_imagenet()


def test_a_size_too_small(source: Path):
    with pytest.raises(ValueError, match="size is 7; it is at least 8"):
        mini_imagenet(size=7)


@needs_lists
def test_the_published_lists():
    labels = []
    for part, classes in (("train", 64), ("val", 16), ("test", 20)):
        rows = MODULE._listed(LISTS, part)
        count = Counter(row.label for row in rows)
        assert sorted(count.values()) == [600] * classes
        assert all(row.filename.startswith(row.label) for row in rows)
        labels += count
    assert len(set(labels)) == 100
