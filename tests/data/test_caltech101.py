"""Caltech-101: a folder made up here, and the real pictures where METASHOT_DATA has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metashot.data import caltech101

REAL = Path(os.environ.get("METASHOT_DATA", "nowhere")) / "caltech101"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason="METASHOT_DATA has no Caltech-101")


def test_it_is_found_split_and_stretched_to_squares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path))
    folder = tmp_path / "caltech101"
    for name, part in (("ant", "base"), ("bass", "val"), ("camera", "novel")):
        (folder / name).mkdir(parents=True)
        (folder / f"split_{part}.txt").write_text(f"{name}\n")
        Image.new("RGB", (40, 20), (200, 10, 30)).save(folder / name / "image_0001.png")
    splits = caltech101(size=16)
    assert [part and part.names for part in splits] == [("ant",), ("bass",), ("camera",)]
    wanted = np.broadcast_to(np.array([200, 10, 30], np.uint8), (1, 16, 16, 3))
    np.testing.assert_array_equal(splits.test.arrays.images, wanted)


def test_without_it_the_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no .*caltech101"):
        caltech101()


@needs_data
@pytest.mark.slow
def test_the_real_pictures():
    splits = caltech101(size=32)
    assert splits.val is not None
    assert [part.classes for part in (splits.train, splits.val, splits.test)] == [64, 12, 25]
    assert {part.smallest >= 31 for part in (splits.train, splits.val, splits.test)} == {True}
