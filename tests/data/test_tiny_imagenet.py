"""Tiny-ImageNet: a folder made up here, and the real pictures where METASHOT_DATA has them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metashot.data import Splits, tiny_imagenet

REAL = Path(os.environ.get("METASHOT_DATA", "nowhere")) / "tiny_imagenet"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason="METASHOT_DATA has no Tiny-ImageNet")
WNIDS = ("n01", "n02", "n03")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with three classes of two pictures each, one class a part."""
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path))
    folder = tmp_path / "tiny_imagenet"
    rng = np.random.default_rng(0)
    for wnid, part in zip(WNIDS, ("train", "val", "test"), strict=True):
        (folder / wnid).mkdir(parents=True)
        (folder / f"split_{part}.txt").write_text(f"{wnid}\n")
        for i in range(2):
            image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
            image.save(folder / wnid / f"{wnid}_{i}.JPEG")
    return folder


def test_it_is_found_and_read_at_its_own_size(source: Path):
    splits = tiny_imagenet()
    assert [part and part.names for part in splits] == [("n01",), ("n02",), ("n03",)]
    picture = Image.open(source / "n03" / "n03_1.JPEG")
    np.testing.assert_array_equal(splits.test.arrays.images[1], picture)


def test_a_smaller_size_is_the_mean_of_squares(source: Path):
    picture = np.asarray(Image.open(source / "n01" / "n01_0.JPEG"), float)
    mean = picture.reshape(32, 2, 32, 2, 3).mean((1, 3))
    # Rounded after each axis.
    np.testing.assert_allclose(tiny_imagenet(size=32).train.arrays.images[0], mean, atol=1)


@pytest.mark.parametrize("size", [7, 65])
def test_a_size_that_it_does_not_have(source: Path, size: int):
    with pytest.raises(ValueError, match=f"sizes of 8 to 64, not {size}"):
        tiny_imagenet(size=size)


def test_it_is_looked_for_in_the_cache_without_a_place(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("METASHOT_DATA")
    with pytest.raises(FileNotFoundError, match=r"there is no .*cache/tiny_imagenet"):
        tiny_imagenet()
    (tmp_path / "cache").mkdir()
    source.rename(tmp_path / "cache" / "tiny_imagenet")
    assert tiny_imagenet().train.names == ("n01",)


@needs_data
@pytest.mark.slow
def test_the_real_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path))
    splits = tiny_imagenet(REAL, size=32)
    for part, name, classes in zip(splits, ("train", "val", "test"), (128, 32, 40), strict=True):
        assert part is not None
        assert list(part.names) == (REAL / f"split_{name}.txt").read_text().split()
        np.testing.assert_array_equal(part.arrays.count, [105] * classes)
        assert part.shape == (32, 32, 3)
    [archive] = REAL.glob("*.zip")
    with zipfile.ZipFile(archive) as file:
        for row in range(0, 40 * 105, 50):
            picture = Image.open(file.open(splits.test.paths[row])).convert("RGB")
            mean = np.asarray(picture, float).reshape(32, 2, 32, 2, 3).mean((1, 3))
            np.testing.assert_allclose(splits.test.arrays.images[row], mean, atol=1)


@needs_data
def test_some_real_pictures_at_their_own_size(source: Path):
    [archive] = REAL.glob("*.zip")
    wnids = [(REAL / f"split_{part}.txt").read_text().split()[0] for part in Splits._fields]
    with zipfile.ZipFile(archive) as file:
        members = [path for path in file.namelist() if path.split("/")[0] in wnids]
        file.extractall(source, members)
    for part, wnid in zip(Splits._fields, wnids, strict=True):
        (source / f"split_{part}.txt").write_text(wnid)
    for part in tiny_imagenet(source):
        assert part is not None
        assert part.arrays.images.shape == (105, 64, 64, 3)
        for row in range(105):
            picture = Image.open(source / part.paths[row]).convert("RGB")
            np.testing.assert_array_equal(part.arrays.images[row], picture)
