"""Omniglot: small archives made up here, and the real ones where METASHOT_DATA has them."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metashot.data import cache
from metashot.data.dataset import INK, Dataset, Splits
from metashot.data.omniglot import Archive, omniglot, prepare_omniglot

MODULE = sys.modules[omniglot.__module__]  # the package's attribute is the function
REAL = Path(os.environ.get("METASHOT_DATA", "nowhere"))
BACKGROUND = REAL / "omniglot" / "omniglot_background.zip"
needs_data = pytest.mark.skipif(not BACKGROUND.is_file(), reason="METASHOT_DATA has no Omniglot")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METASHOT_DATA", raising=False)
    return tmp_path / "cache"


def png(seed: int, side: int = 105) -> bytes:
    pixels = np.random.default_rng(seed).random((side, side)) < 0.9
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, part: str, characters: int, drawers: int = 20, side: int = 105) -> None:
    """An archive like the official ones, of two alphabets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"images_{part}/", "")
        for c in reversed(range(characters)):
            alphabet, letter = (("Alpha", c + 1), ("Beta_(late)", c))[c > 0]
            for d in range(1, drawers + 1):
                name = f"images_{part}/{part}_{alphabet}/character{letter:02d}/{c:04d}_{d:02d}.png"
                file.writestr(name, png(100 * c + d, side))


def archive(path: Path, part: str, characters: int) -> Archive:
    content = path.read_bytes()
    return Archive(part, characters, len(content), hashlib.md5(content).hexdigest())


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose two archives, of 3 and 2 characters, pass for the official ones."""
    made: list[Archive] = []
    for part, characters in (("background", 3), ("evaluation", 2)):
        path = tmp_path / "source" / f"images_{part}.zip"
        pack(path, part, characters)
        made.append(archive(path, part, characters))
    monkeypatch.setattr(MODULE, "ARCHIVES", tuple(made))
    return tmp_path / "source"


def reduced(content: bytes, size: int) -> NDArray[np.uint8]:
    """Pillow's own reading of a drawing."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L").resize((size, size), 4))


def test_what_is_read_is_what_was_packed(source: Path):
    dataset = prepare_omniglot(source)
    assert dataset.arrays.images.shape == (100, 28, 28, 1)
    assert dataset.names == (
        "background_Alpha/character01",
        "background_Beta_(late)/character01",
        "background_Beta_(late)/character02",
        "evaluation_Alpha/character01",
        "evaluation_Beta_(late)/character01",
    )
    assert dataset.groups == tuple(name.split("/")[0] for name in dataset.names)
    np.testing.assert_array_equal(dataset.drawers, np.tile(np.arange(1, 21), 5))
    assert dataset.paths[22] == "images_background/background_Beta_(late)/character01/0001_03.png"
    assert dataset.prepare == INK
    np.testing.assert_array_equal(dataset.arrays.images[22, ..., 0], reduced(png(103), 28))


def test_a_size_of_one_s_own(source: Path):
    images = prepare_omniglot(source, size=105).arrays.images
    np.testing.assert_array_equal(images[0, ..., 0], reduced(png(1), 105))
    assert set(np.unique(images).tolist()) == {0, 255}
    for size in (0, 106):
        with pytest.raises(ValueError, match="sizes of 1 to 105"):
            prepare_omniglot(source, size=size)


@pytest.mark.parametrize("place", ["omniglot", "omniglot-py"])
def test_archives_are_found_in_known_folders(source: Path, tmp_path: Path, place: str):
    (tmp_path / "data").mkdir()
    source.rename(tmp_path / "data" / place)
    assert prepare_omniglot(tmp_path / "data").classes == 5


def test_the_alphabets_split_is_that_of_the_archives(source: Path):
    train, val, test = omniglot(source, split="alphabets")
    assert (train.classes, val, test.classes) == (12, None, 8)
    assert {group.split("_")[0] for group in train.groups} == {"background"}
    assert omniglot(source, split="alphabets", rotations=False).test.classes == 2
    train, _, test = omniglot(source, split="alphabets", turned_tests=False)
    assert (train.classes, test.classes) == (12, 2)


def test_some_background_alphabets_may_be_for_choosing(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(MODULE, "SMALL", ("background_Alpha",))
    train, val, test = omniglot(source, split="alphabets_tuning", rotations=False)
    assert val is not None
    assert val.names == ("background_Alpha/character01",)
    assert (set(train.groups), train.classes, test.classes) == ({"background_Beta_(late)"}, 2, 2)


def test_an_unknown_split_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'random'.* tuning, characters, alphabets, alph"):
        omniglot(split="random")  # pyright: ignore[reportArgumentType]


def test_nothing_at_all_is_answered_with_the_remedies():
    with pytest.raises(FileNotFoundError, match=r"--source DIR.*METASHOT_DATA.*--download"):
        omniglot()


def test_a_source_without_archives_is_refused_though_one_is_cached(source: Path, tmp_path: Path):
    prepare_omniglot(source)
    (source / "images_evaluation.zip").unlink()
    with pytest.raises(FileNotFoundError, match=f"^images_evaluation.zip not found in {source}"):
        prepare_omniglot(source)


def test_the_environment_names_the_source(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METASHOT_DATA", str(source))
    assert prepare_omniglot().classes == 5


def test_without_a_source_the_cache_is_used(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = prepare_omniglot(source)
    monkeypatch.setattr(MODULE, "_decode", None)
    for again in (prepare_omniglot(), prepare_omniglot(source)):
        np.testing.assert_array_equal(again.arrays.images, before.arrays.images)
    monkeypatch.setenv("METASHOT_DATA", str(tmp_path / "elsewhere"))
    assert prepare_omniglot().classes == 5
    with pytest.raises(FileNotFoundError):
        prepare_omniglot(size=20)


def test_another_archive_is_decoded_anew(source: Path):
    prepare_omniglot(source)
    with zipfile.ZipFile(source / "images_background.zip", "a") as file:
        file.writestr("note.txt", "packed again")
    with pytest.raises(ValueError, match=r"not the official images_background.zip"):
        prepare_omniglot(source)
    prepare_omniglot(source, repacked=True)
    assert prepare_omniglot(source).classes == 5  # accepted once


def test_repacked_archives_are_taken_on_request_only(source: Path):
    for part in ("background", "evaluation"):
        (source / f"images_{part}.zip").unlink()
        pack(source / f"omniglot_{part}.zip", part, {"background": 3, "evaluation": 2}[part])
        with zipfile.ZipFile(source / f"omniglot_{part}.zip", "a") as file:
            file.writestr("README", "packed again")
    with pytest.raises(ValueError, match=r"omniglot_background\.zip is not .*repacked=True"):
        prepare_omniglot(source)
    assert prepare_omniglot(source, repacked=True).classes == 5


def spoil(path: Path) -> None:
    """Changes one byte within the first picture."""
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: pack(path, "background", 2), "has 40 drawings of 2 characters"),
        (lambda path: pack(path, "background", 3, drawers=19), "has 57 drawings of 3 characters"),
        (lambda path: pack(path, "evaluation", 3), "has 0 drawings"),
        (lambda path: pack(path, "background", 3, side=28), "not 105 x 105"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read"),
        (spoil, "cannot be read"),
    ],
)
def test_a_repacked_archive_is_checked(
    source: Path, folder: Path, damage: Callable[[Path], object], message: str
):
    damage(source / "images_background.zip")
    with pytest.raises(ValueError, match=rf"images_background\.zip.*{message}"):
        prepare_omniglot(source, repacked=True)
    assert cache.stored("omniglot-28") is None


def test_a_download_is_checked_and_found_again(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(MODULE, "URL", source.as_uri())
    assert prepare_omniglot(download=True).classes == 5
    names = ["images_background.zip", "images_evaluation.zip"]
    assert sorted(path.name for path in (folder / "omniglot").iterdir()) == names
    monkeypatch.setattr(MODULE, "URL", "http://127.0.0.1:9")  # nothing is fetched twice
    assert prepare_omniglot(download=True).classes == 5


def test_a_bad_download_changes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = tmp_path / "here" / "images_background.zip"
    here.parent.mkdir()
    here.write_bytes(b"not the official one")
    spoil(source / "images_background.zip")
    monkeypatch.setattr(MODULE, "URL", source.as_uri())
    with pytest.raises(OSError, match=r"came as \d+ bytes with MD5 \w{32}\): put .* by hand"):
        prepare_omniglot(here.parent, download=True)
    assert here.read_bytes() == b"not the official one"
    assert [path.name for path in here.parent.iterdir()] == [here.name]


def test_no_network_is_answered_with_where_to_put_the_files(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(MODULE, "URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=rf"could not be fetched .*put images_.* in {folder}"):
        prepare_omniglot(download=True)


def test_the_published_lists_are_disjoint_and_whole():
    read: Callable[[str], list[str]] = MODULE._published
    lists = [set(read(part)) for part in ("train", "val", "test")]
    assert [len(names) for names in lists] == [1028, 172, 423]
    assert len(set.union(*lists)) == 1623


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the real Omniglot."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METASHOT_CACHE", str(folder))
        prepare_omniglot(REAL, repacked=True)
    return folder


@pytest.fixture
def cached(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METASHOT_CACHE", str(real))


def classes(splits: Splits) -> list[int | None]:
    return [None if part is None else part.classes for part in splits]


@needs_data
@pytest.mark.usefixtures("cached")
def test_real_counts():
    assert classes(omniglot()) == [4112, 688, 1692]
    assert classes(omniglot(rotations=False)) == [1028, 172, 423]
    assert classes(omniglot(rotations=False, split="characters")) == [1200, None, 423]
    alphabets = omniglot(rotations=False, split="alphabets")
    assert classes(alphabets) == [964, None, 659]
    assert [len(set(part.groups)) for part in alphabets if part] == [30, 20]
    parts = omniglot(split="alphabets_tuning", rotations=False)
    assert [part.classes for part in parts if part] == [964 - 136, 136, 659]
    everything = prepare_omniglot()
    assert everything.arrays.images.shape == (32_460, 28, 28, 1)
    np.testing.assert_array_equal(everything.drawers, np.tile(np.arange(1, 21), 1623))


@needs_data
@pytest.mark.usefixtures("cached")
def test_real_drawings_are_pillow_s_own():
    with zipfile.ZipFile(BACKGROUND) as file:
        everything = prepare_omniglot()
        for row in (0, 777, 19_279):
            drawing = reduced(file.read(everything.paths[row]), 28)
            np.testing.assert_array_equal(everything.arrays.images[row, ..., 0], drawing)
    everything = np.asarray(prepare_omniglot().arrays.images)
    assert np.median(everything) == 255  # paper
    assert everything.min((1, 2, 3)).max() < 128  # ink


@needs_data
@pytest.mark.usefixtures("cached")
def test_real_splits_share_no_drawing():
    splits = omniglot(rotations=False)
    paths = [set(part.paths) for part in splits if part is not None]
    assert [len(part) for part in paths] == [20_560, 3_440, 8_460]
    assert len(set.union(*paths)) == 32_460


@needs_data
@pytest.mark.usefixtures("cached")
def test_real_classes_are_the_published_ones_turned():
    test: Dataset = omniglot().test
    lines = (REAL / "omniglot" / "splits_vinyals" / "test.txt").read_text().split()
    assert list(test.names) == lines
    upright = omniglot(rotations=False).test.arrays.images
    for k in range(4):
        picture = Image.fromarray(np.asarray(upright[20 * 7, ..., 0])).rotate(90 * k)
        row = int(test.arrays.offset[4 * 7 + k])
        np.testing.assert_array_equal(test.arrays.images[row, ..., 0], picture)


@needs_data
@pytest.mark.usefixtures("cached")
def test_real_archives_are_not_decoded_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MODULE, "_decode", None)
    assert prepare_omniglot(REAL).classes == 1623
