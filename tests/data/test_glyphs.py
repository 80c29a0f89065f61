"""The embedded glyphs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from metashot.data.dataset import INK, Dataset, Splits
from metashot.data.glyphs import glyphs


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METASHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return glyphs(train=60, val=30, test=200)


def val(splits: Splits) -> Dataset:
    assert splits.val is not None
    return splits.val


def pictures(dataset: Dataset) -> NDArray[np.uint8]:
    """[classes, drawings, H * W]"""
    images = np.asarray(dataset.arrays.images)
    return images.reshape(dataset.classes, -1, images[0].size)


def test_counts_and_names(splits: Splits):
    for dataset, classes in zip(splits, (60, 30, 200), strict=True):
        assert dataset is not None
        assert dataset.arrays.images.shape == (20 * classes, 28, 28, 1)
        np.testing.assert_array_equal(dataset.arrays.count, np.full(classes, 20))
        np.testing.assert_array_equal(dataset.drawers, np.tile(np.arange(20), classes))
        assert len(set(dataset.names)) == len(dataset.groups) == classes
        assert dataset.prepare == INK
    assert [splits.train.groups.count(g) for g in sorted(set(splits.train.groups))] == [26, 26, 8]


def test_splits_share_no_class_alphabet_or_picture(splits: Splits):
    train, test = splits.train, splits.test
    for one, other in [(train, val(splits)), (train, test), (val(splits), test)]:
        assert not set(one.names) & set(other.names)
        assert not set(one.groups) & set(other.groups)
        seen = {picture.tobytes() for picture in pictures(one).reshape(-1, 784)}
        assert not any(p.tobytes() in seen for p in pictures(other).reshape(-1, 784))


def test_every_drawing_is_dark_ink_on_white_and_different(splits: Splits):
    every = pictures(splits.test).reshape(-1, 784)
    ink = 1 - every / 255
    assert (every.max(1) == 255).all()
    assert (every.min(1) < 64).all()
    assert ink.mean(1).min() > 0.01
    assert ink.mean(1).max() < 0.5
    assert len(np.unique(every, axis=0)) == len(every)


def test_a_split_depends_on_its_own_arguments_and_the_seed_only(splits: Splits):
    again = glyphs(train=30, val=30, test=5)
    np.testing.assert_array_equal(pictures(again.train), pictures(splits.train)[:30])
    np.testing.assert_array_equal(pictures(val(again)), pictures(val(splits)))
    np.testing.assert_array_equal(pictures(again.test), pictures(splits.test)[:5])
    other = glyphs(train=30, val=30, test=5, seed=1)
    assert not np.array_equal(pictures(other.train), pictures(again.train))


def test_the_second_start_draws_nothing(monkeypatch: pytest.MonkeyPatch):
    first = glyphs(train=2, val=1, test=1)
    module = sys.modules[glyphs.__module__]  # the package's attribute is the function
    monkeypatch.setattr(module, "_draw", None)
    second = glyphs(train=2, val=1, test=1)
    np.testing.assert_array_equal(first.train.arrays.images, second.train.arrays.images)
    monkeypatch.setattr(module, "VERSION", "another")
    with pytest.raises(TypeError):
        glyphs(train=2, val=1, test=1)


def test_other_sizes_and_drawings():
    small = glyphs(train=1, val=1, test=3, drawings=2, size=8).test
    assert small.arrays.images.shape == (6, 8, 8, 1)
    large = glyphs(train=1, val=1, test=3, size=105).test
    assert large.shape == (105, 105, 1)
    # The same character at every size.
    coarse = glyphs(train=1, val=1, test=3, size=35).test
    means = pictures(large).reshape(60, 35, 3, 35, 3).mean((2, 4)).reshape(60, -1)
    for mean, picture in zip(means, pictures(coarse).reshape(60, -1), strict=True):
        assert np.corrcoef(mean, picture)[0, 1] > 0.9


@pytest.mark.parametrize(
    "wrong", [{"train": 0}, {"val": 0}, {"test": -1}, {"drawings": 1}, {"size": 7}, {"seed": -1}]
)
def test_wrong_arguments_are_named(wrong: dict[str, int]):
    with pytest.raises(ValueError, match=f"glyphs: {next(iter(wrong))} must be at least"):
        glyphs(**wrong)


def neighbour_accuracy(dataset: Dataset, shot: int, episodes: int) -> float:
    """Of the nearest support picture by cosine, 5-way with 10 queries a class."""
    rng = np.random.default_rng(0)
    ink = 1 - pictures(dataset) / 255
    right: list[float] = []
    for _ in range(episodes):
        classes = rng.choice(len(ink), 5, replace=False)
        chosen = np.stack([rng.permutation(ink[c]) for c in classes])
        support, query = chosen[:, :shot], chosen[:, shot : shot + 10]
        model = KNeighborsClassifier(1, metric="cosine")
        model.fit(support.reshape(-1, 784), np.repeat(np.arange(5), shot))
        right.append(model.score(query.reshape(-1, 784), np.repeat(np.arange(5), 10)))
    return float(np.mean(right))


def test_pixels_alone_do_not_tell_classes_apart_but_more_pictures_help(splits: Splits):
    assert 0.4 < neighbour_accuracy(splits.test, 1, 200) < 0.6
    assert neighbour_accuracy(splits.test, 10, 50) > 0.7
