"""The layout of VOC, the rules for small objects, folds, DAVIS, and what is refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from metashot.config import MaskFolder, Pascal5i
from metashot.data import (
    VOC,
    davis,
    first_frame_episodes,
    fold_classes,
    joined,
    pascal_5i,
    split_by_class,
    voc_layout,
)
from metashot.data.voc import _kept

pytestmark = pytest.mark.usefixtures("quick_compile")


def write(folder: Path, name: str, labels: Any, *, size: Any = None, mode: str = "P") -> None:
    """A picture whose colour is 10 times its first class, and its mask."""
    labels = np.asarray(labels, np.uint8)
    for part in ("JPEGImages", "SegmentationClass"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(labels)
    if mode == "P":
        mask.putpalette([0] * 768)
    (mask if mode == "P" else mask.convert(mode)).save(folder / f"SegmentationClass/{name}.png")
    grey = Image.new("RGB", size or mask.size, (10 * int(labels.max()),) * 3)
    grey.save(folder / f"JPEGImages/{name}.png")


def listing(folder: Path, name: str, *ids: str) -> None:
    path = folder / "ImageSets/Segmentation"
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))


def block(value: int, *others: int, side: int = 8) -> np.ndarray:
    """A label map whose upper half is of a class, and its last row of others."""
    labels = np.zeros((side, side), np.uint8)
    labels[: side // 2] = value
    for i, other in enumerate(others):
        labels[-1, 2 * i : 2 * i + 2] = other
    return labels


@pytest.mark.parametrize(
    ("rows", "columns", "hits", "area"),
    [
        ((0, 70), (0, 70), 9, 4900),
        ((2, 66), (2, 66), 4, 4096),
        ((2, 34), (2, 66), 2, 2048),
        ((2, 34), (2, 98), 3, 3072),
        ((40, 60), (40, 400), 0, 7200),
        ((0, 2), (0, 97), 3, 194),
        ((2, 33), (0, 500), 0, 15500),
    ],
)
def test_small_objects(rows: Any, columns: Any, hits: int, area: int) -> None:
    labels = np.zeros((500, 500), np.uint8)
    labels[slice(*rows), slice(*columns)] = 7
    assert int((labels == 7).sum()) == area
    assert bool(_kept(labels, "grid")[7]) == (hits > 2)
    assert bool(_kept(labels, "area")[7]) == (area >= 2048)
    assert _kept(labels, "none")[7]
    assert bool(_kept(labels, 0.02)[7]) == (area > 5000)
    with pytest.raises(ValueError, match="small is 'tiny'; it is one of grid, area, none"):
        _kept(labels, "tiny")  # type: ignore[arg-type]


def test_a_folder_and_an_archive_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "voc"
    write(folder, "b", block(2, 255))
    write(folder, "a", block(1, 2))
    made = voc_layout(folder, size=4, small="none")
    assert made.names == VOC
    assert made.paths == ("JPEGImages/a", "JPEGImages/b")
    assert made.items.tolist() == [[0, 0], [0, 1], [1, 1]]
    labels = np.asarray(made.arrays.labels)
    assert labels[1].tolist() == [[2] * 4] * 2 + [[0] * 4] + [[255, 0, 0, 0]]
    prepared = np.asarray(made.prepare(np.asarray(made.arrays.images)))
    assert prepared[0, 0, 0, 0] == pytest.approx((20 - 127) / 128)
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, f"VOCdevkit/{path.relative_to(folder)}")
    again = voc_layout(tmp_path / "one.zip", size=4, small="none")
    np.testing.assert_array_equal(again.arrays.labels, made.arrays.labels)
    assert again.items.tolist() == made.items.tolist()
    assert voc_layout(folder, size=4, small=0.1).items.tolist() == [[0, 0], [1, 1]]


def test_classes_are_known_by_their_names(tmp_path: Path) -> None:
    """Of a set in which 5 is an airplane and 6 is no class of VOC; index 0 is background."""
    write(tmp_path, "a", block(5, 6))
    (tmp_path / "ImageSets").mkdir()
    names = "0\tnull\n1\tperson\n5\tairplane\tcoco_id 5\n6\tkite\n"
    (tmp_path / "ImageSets/classes.txt").write_text(names)
    every = voc_layout(tmp_path, size=8, small="none")
    assert every.names == ("person", "aeroplane", "kite")
    assert every.items.tolist() == [[0, 1], [0, 2]]
    some = voc_layout(tmp_path, size=8, small="none", classes=("aeroplane", "person"))
    assert some.items.tolist() == [[0, 0]]
    assert set(np.unique(some.arrays.labels)) == {0, 1}
    with pytest.raises(ValueError, match="has no class bird; it has person, aeroplane, kite"):
        voc_layout(tmp_path, classes=("bird",))


def test_a_fold_by_lists(tmp_path: Path) -> None:
    """A picture for testing is not for training; classes for testing are background there."""
    write(tmp_path, "t1", block(6, 1))
    write(tmp_path, "t2", block(7))
    write(tmp_path, "v1", block(1, 6))
    write(tmp_path, "v2", block(1))
    write(tmp_path, "s1", block(8))
    listing(tmp_path, "train", "t1", "t2", "v1")
    listing(tmp_path, "sbd", "s1", "t2")
    listing(tmp_path, "val", "v1", "v2")
    train, val, test = pascal_5i(tmp_path, fold=0, size=8, small="none")
    assert val is None
    assert test.names == fold_classes(0) == VOC[:5]
    assert train.names == VOC[5:]
    assert train.paths == ("JPEGImages/t1", "JPEGImages/t2", "JPEGImages/s1")
    assert train.items.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert test.items.tolist() == [[0, 0], [1, 0]]
    twice = pascal_5i(tmp_path, size=8, small="none", dedupe=False).train
    assert [path[-2:] for path in twice.paths] == ["t1", "t2", "s1", "t2"]
    with pytest.raises(ValueError, match="fold is 4; it is one of 0, 1, 2, 3"):
        pascal_5i(tmp_path, fold=4)
    with pytest.raises(ValueError, match="train and test are lists both, or neither is"):
        pascal_5i(tmp_path, train=None)
    by_content = pascal_5i(tmp_path, size=8, small=0.1, train=None, test=None)
    assert [path[-2:] for path in by_content.test.paths] == ["v1", "v2"]
    assert [path[-2:] for path in by_content.train.paths] == ["s1", "t1", "t2"]


def test_the_folds_are_the_classes_of_voc() -> None:
    assert [fold_classes(i)[0] for i in range(4)] == [
        "aeroplane",
        "bus",
        "diningtable",
        "pottedplant",
    ]
    assert sum(map(fold_classes, range(4)), ()) == VOC


def test_videos_ask_for_each_frame_by_the_first(tmp_path: Path) -> None:
    for name, n in (("cows", 3), ("goat", 2)):
        for part in ("JPEGImages", "Annotations"):
            (tmp_path / part / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (6, 4)).save(tmp_path / f"JPEGImages/{name}/{i:05d}.jpg")
            mask = Image.new("1", (6, 4))
            mask.putpixel((i, 0), 1)
            mask.save(tmp_path / f"Annotations/{name}/{i:05d}.png")
    (tmp_path / "val.txt").write_text("goat\ncows\n")
    videos = davis(tmp_path, size=8)
    assert videos.names == ("goat", "cows")
    source = first_frame_episodes(videos)
    episodes = [source.listed(i, source.arrays) for i in range(3)]  # type: ignore[misc]
    assert [int(e.about["class"]) for e in episodes] == [0, 1, 1]
    assert [int(e.about["pictures"][0]) for e in episodes] == [1, 3, 4]
    first = np.asarray(episodes[2].support.targets)[0]
    assert first[0, 0] == 1
    assert np.asarray(jax.tree.leaves(episodes[2].query.targets)[0])[0, 0].argmax() > 0


@pytest.mark.parametrize(
    ("labels", "settings", "said"),
    [
        (block(1), {"size": (8, 9)}, "a.png has 8 x 8 pixels, but its picture has 8 x 9"),
        (block(1), {"mode": "RGB"}, "a.png is a colour mask .RGB., whose classes nobody can know"),
        (block(77), {}, "a.png has a pixel of 77, which is no class: 0, 1, 2, ... are"),
    ],
)
def test_masks_that_cannot_be_are_refused(
    tmp_path: Path, labels: Any, settings: Any, said: str
) -> None:
    write(tmp_path, "a", labels, **settings)
    with pytest.raises(ValueError, match=said):
        voc_layout(tmp_path)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name a folder or archive that exists"):
        voc_layout(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has 0 folders JPEGImages"):
        voc_layout(tmp_path)
    write(tmp_path, "a", block(1))
    with pytest.raises(FileNotFoundError, match=r"has no list ImageSets/Segmentation/val.txt or"):
        voc_layout(tmp_path, lists=["val"])
    listing(tmp_path, "val", "a", "b")
    with pytest.raises(FileNotFoundError, match=r"has no JPEGImages/b.jpg, but its lists name b"):
        voc_layout(tmp_path, lists=["val"])
    (tmp_path / "JPEGImages/a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"JPEGImages/a.png is not a picture that can be decoded"):
        voc_layout(tmp_path)


DATA = Path(os.environ.get("METASHOT_DATA", "nowhere"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "pascal").is_dir(), reason="needs METASHOT_DATA")
def test_the_real_pictures() -> None:
    settings: Any = {"size": 64, "classes": VOC, "small": 0.02}
    pascal = voc_layout(DATA / "pascal", **settings)
    assert len(pascal.paths) == 967
    cows, cats = (int(np.asarray(pascal.arrays.count)[VOC.index(n)]) for n in ("cow", "cat"))
    assert (cows, cats) == (191, 179)
    both = joined(pascal, voc_layout(DATA / "coco_mini", **settings))
    assert len(both.paths) == 1385
    parts = [split_by_class(both, fold_classes(fold)) for fold in range(4)]
    assert [len(p.test.paths) for p in parts] == [85, 551, 688, 422]
    assert [len(p.test.items) for p in parts] == pytest.approx([85, 617, 876, 429], abs=1)
    assert [len(p.train.items) for p in parts] == pytest.approx([1840, 1025, 713, 1257], abs=3)
    assert len(davis(DATA / "davis", size=32).items) == 690
    assert len(voc_layout(DATA / "fashion_ccp", size=32, small="none").paths) == 1004


def test_several_folders_are_one_data_set_of_a_configurations_fold(tmp_path: Path) -> None:
    for name, (a, b) in {"one": (1, 7), "two": (2, 7)}.items():
        write(tmp_path / name, "a", block(a))
        write(tmp_path / name, "b", block(b))
    sources = (str(tmp_path / "one"), str(tmp_path / "two"))
    data = Pascal5i(sources, fold=1, size=8, lists=False, small="none", sampling="classes")
    train, _, test = data.load()
    assert (test.names, len(test.arrays.labels)) == (fold_classes(1), 2)
    assert np.asarray(test.arrays.count).tolist() == [0, 2, 0, 0, 0]
    assert len(train.arrays.labels) == 2
    with pytest.raises(ValueError, match="no class has two items"):
        data.episodes(train, shot=1, query=1)
    asked = data.episodes(test, shot=1, query=1)
    assert asked.listed  # the release's list
    episode = asked.listed(0, asked.arrays)
    assert episode.query.targets.sum() == 32


def test_the_data_of_pascal_5i_are_looked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no .*VOC2012"):
        Pascal5i().load()


def test_the_second_half_of_pictures_may_be_for_testing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pictures show both classes; the folder is known by its name in METASHOT_DATA."""
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path.parent))
    for name in "abcd":
        write(tmp_path, name, block(7, 12))
    classes = ("car", "dog")
    folder = MaskFolder(tmp_path.name, ("dog",), classes=classes, size=8, small="none", halves=True)
    train, _, test = folder.load()
    assert (train.paths, test.paths) == (
        ("JPEGImages/a", "JPEGImages/b"),
        ("JPEGImages/c", "JPEGImages/d"),
    )
    assert (train.names, test.names) == (("car",), ("dog",))
    source = folder.episodes(train, shot=1, query=1)
    episode = source.sample(jax.random.key(0), source.arrays)
    assert int(episode.query.targets.sum()) == 32  # the dog is background
    with pytest.raises(ValueError, match="no picture is left for train"):
        MaskFolder(str(tmp_path), ("dog",), classes=classes, size=8, small="none").load()
