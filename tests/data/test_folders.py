"""Class folders: made up here, in every layout; the oracle is Pillow and numpy by hand."""

from __future__ import annotations

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

from metashot.data import class_folders
from metashot.data.dataset import Prepare, Splits
from metashot.data.folders import labelled
from metashot.data.pictures import LeftOut

PICTURES = sys.modules["metashot.data.pictures"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pixels(seed: int, height: int = 16, width: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(image: Image.Image | NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, "PNG")
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def pack(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def classes(*names: str, images: int = 2, under: str = "") -> dict[str, bytes]:
    return {
        f"{under}{name}/{i}.png": png(pixels(1000 * sum(name.encode()) + i))
        for name in names
        for i in range(images)
    }


def names(splits: Splits) -> list[tuple[str, ...] | None]:
    return [None if part is None else part.names for part in splits]


TEN = classes(*"abcdefghij")


def test_what_is_read_is_what_was_written(tmp_path: Path):
    ragged = TEN | {"b/2.png": png(pixels(7)), "b/inner/deep/9.png": png(pixels(8))}
    splits = class_folders(write(tmp_path / "own", ragged), size=8)
    everything = {name: part for part in splits if part for name in part.names}
    assert sorted(everything) == list("abcdefghij")
    part = everything["b"]
    row, number = int(part.arrays.offset[part.names.index("b")]), part.names.index("b")
    assert part.arrays.count[number] == 4
    assert part.paths[row : row + 4] == ("b/0.png", "b/1.png", "b/2.png", "b/inner/deep/9.png")
    assert part.arrays.images.shape[1:] == (8, 8, 3)
    assert part.arrays.images.dtype == np.uint8
    assert part.prepare == Prepare()
    # 16 x 24 to 8 x 8: the mean of blocks of 2 x 3 pixels, rounded after each axis.
    blocks = pixels(7).reshape(8, 2, 8, 3, 3).mean((1, 3))
    np.testing.assert_allclose(part.arrays.images[row + 2], blocks, atol=1)


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path):
    """By area as any other picture; one that is not eight times as large is decoded whole."""
    rows, columns = np.mgrid[:256, :512]
    waves = 128 + 100 * np.sin(rows / 15) * np.cos(columns / 20)
    large = np.repeat(waves[..., None], 3, -1).astype(np.uint8)
    small = pixels(1, 63, 80)
    for name, image in {"large": large, "small": small}.items():
        (tmp_path / "own" / name).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "own" / name / "0.jpg", quality=95)
    found = np.asarray(labelled(tmp_path / "own", size=8).arrays.images)
    wanted = large.reshape(8, 32, 8, 64, 3).mean((1, 3))
    np.testing.assert_allclose(found[0], wanted, atol=2)
    whole = Image.open(tmp_path / "own" / "small" / "0.jpg").resize((8, 8), Image.Resampling.BOX)
    np.testing.assert_array_equal(found[1], whole)


def test_a_small_picture_is_enlarged_smoothly(tmp_path: Path):
    files = TEN | {"a/0.png": png(pixels(1, 10, 30))}
    splits = class_folders(write(tmp_path / "own", files), size=20)
    everything = {path: p.arrays.images[i] for p in splits if p for i, path in enumerate(p.paths)}
    wanted = Image.fromarray(pixels(1, 10, 30)).resize((20, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(everything["a/0.png"], wanted)


def test_shares_are_of_the_classes_and_drawn_from_the_seed(tmp_path: Path):
    place = write(tmp_path / "own", TEN)
    splits = class_folders(place, size=8, val=0.3, test=0.2)
    assert [part and part.classes for part in splits] == [5, 3, 2]
    assert sorted(name for part in splits if part for name in part.names) == list("abcdefghij")
    assert all(part and list(part.names) == sorted(part.names) for part in splits)
    again = [names(class_folders(place, size=8, val=0.3, test=0.2, seed=s)) for s in (0, 0, 1)]
    assert again[0] == again[1] == names(splits) != again[2]
    assert [part and part.classes for part in class_folders(place, size=8)] == [6, 2, 2]
    assert [part and part.classes for part in class_folders(place, size=8, val=0)] == [8, None, 2]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("base", "valid", "novel"), ("train", "validation", "test")],
)
def test_folders_split(tmp_path: Path, train: str, val: str, test: str):
    files = classes("b", "a", under=f"{train}/") | classes("c", under=f"{val}/")
    files |= classes("d", "e", under=f"{test}/") | classes("x", under="extra/")
    files |= {f"{train}/sheet.png": png(pixels(0)), "notes.txt": b"no picture"}
    wanted = [("a", "b"), ("c",), ("d", "e")]
    assert names(class_folders(write(tmp_path / "own", files), size=8)) == wanted
    rooted = {f"root/{path}": content for path, content in files.items()}
    assert names(class_folders(pack(tmp_path / "own.zip", rooted), size=8)) == wanted


def test_lists_split(tmp_path: Path):
    files = classes("red fox", "ox", "ant", "bee", "cow")
    lists = {
        "split_base.txt": "\ufeffox\r\n\r\n  red fox \r\n".encode(),
        "split_novel.txt": b"bee\nant",
    }
    place = write(tmp_path / "own", files | lists)
    assert names(class_folders(place, size=8)) == [("ox", "red fox"), None, ("bee", "ant")]
    (place / "split_val.txt").write_text("cow\n")
    assert names(class_folders(place, size=8))[1] == ("cow",)


def test_an_archive_is_read_like_a_directory(tmp_path: Path):
    listed = {"split_train.txt": b"b\na\n", "split_test.txt": b"c\n"}
    plain = write(tmp_path / "plain", TEN | listed)
    junk = {"__MACOSX/a/._0.png": b"junk", "data/a/.0.png": b"junk", "data/cover.png": b"junk"}
    rooted = {f"data/{path}": content for path, content in reversed(TEN.items())} | junk
    archive = pack(tmp_path / "archived" / "any.ZIP", rooted)
    write(tmp_path / "archived", listed)
    for place in (archive, archive.parent):
        for one, other in zip(
            class_folders(plain, size=8), class_folders(place, size=8), strict=True
        ):
            if one is None or other is None:
                assert one is other
                continue
            assert one.names == other.names
            order = [other.paths.index(f"data/{path}") for path in one.paths]
            np.testing.assert_array_equal(one.arrays.images, other.arrays.images[order])
            assert order == [1, 0, 3, 2][: len(order)]  # an archive keeps its own order


def test_a_hidden_folder_above_and_links_within(tmp_path: Path):
    place = write(tmp_path / ".hidden" / "own", classes("a", under="train/"))
    write(tmp_path / "elsewhere", classes("b"))
    (place / "test").mkdir()
    (place / "test" / "b").symlink_to(tmp_path / "elsewhere" / "b", target_is_directory=True)
    assert names(class_folders(place, size=8)) == [("a",), None, ("b",)]


def test_the_official_layout_of_tiny_imagenet(tmp_path: Path):
    wnids = ("n01", "n02", "n03", "n04", "n05")
    files = {f"train/{w}/images/{w}_{i}.JPEG": png(pixels(i)) for w in wnids for i in range(2)}
    files |= {f"{part}/images/{part}_0.JPEG": png(pixels(3)) for part in ("val", "test")}
    splits = class_folders(write(tmp_path / "tiny-imagenet-200", files), size=8)
    assert sorted(name for part in splits if part for name in part.names) == list(wnids)


def as_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image[..., :1], 3, -1)


def rgba(image: NDArray[np.uint8]) -> Image.Image:
    """Clear on the left, opaque on the right."""
    alpha = np.zeros((*image.shape[:2], 1), np.uint8)
    alpha[:, 8:] = 255
    return Image.fromarray(np.concatenate([image, alpha], -1))


def on_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = image.copy()
    image[:, :8] = 255
    return image


def palette(image: NDArray[np.uint8]) -> Image.Image:
    made = Image.new("P", (16, 16))
    made.putpalette(bytes(range(48)))
    made.putdata((image[..., 0] % 16).reshape(-1).tolist())
    return made


def of_palette(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (image[..., :1] % 16) * 3 + np.arange(3, dtype=np.uint8)


@pytest.mark.parametrize(
    ("made", "seen"),
    [
        (lambda image: Image.fromarray(image[..., 0]), as_grey),
        (lambda image: Image.fromarray(image[..., 0].astype(np.uint16) * 256 + 9), as_grey),
        (rgba, on_white),
        (palette, of_palette),
    ],
    ids=["grey", "16 bits", "RGBA", "palette"],
)
def test_pictures_of_every_kind(
    tmp_path: Path,
    made: Callable[[NDArray[np.uint8]], Image.Image],
    seen: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
):
    image = pixels(5, 16, 16)
    place = write(tmp_path / "own", classes("b", "c") | {"a/0.png": png(made(image))})
    write(place, {"split_train.txt": b"a", "split_test.txt": b"b"})
    np.testing.assert_array_equal(class_folders(place, size=16).train.arrays.images[0], seen(image))


def test_a_camera_held_upright(tmp_path: Path):
    image = pixels(5, 16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture's top is at the right: turn it clockwise
    (tmp_path / "own" / "a").mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / "own" / "a" / "0.png", exif=exif)
    place = write(tmp_path / "own", {"split_train.txt": b"a", "split_test.txt": b"b"})
    write(place, classes("b"))
    seen = class_folders(place, size=16).train.arrays.images[0]
    np.testing.assert_array_equal(seen, np.rot90(image, -1))


def test_all_classes_as_they_are_now(tmp_path: Path):
    """One data set of all folders: nothing is split, and nothing is cached."""
    place = write(tmp_path / "own", {"b/0.png": png(pixels(1)), "a/1.png": png(pixels(2))})
    (place / "split_train.txt").write_text("a")
    assert labelled(place, size=16).names == ("a", "b")
    write(place, {"b/0.png": png(pixels(3))})
    grey = labelled(place, size=16, channels=1).arrays.images
    wanted = Image.fromarray(pixels(3)).convert("L").resize((16, 16), Image.Resampling.BOX)
    np.testing.assert_array_equal(np.asarray(grey)[1, :, :, 0], wanted)


def test_a_crop_is_the_square_in_the_middle(tmp_path: Path):
    image = pixels(1, 16, 24)
    place = write(tmp_path / "own", {"a/0.png": png(image)})
    found = np.asarray(labelled(place, size=16, crop=True).arrays.images)
    np.testing.assert_array_equal(found[0], image[:, 4:20])


def test_damaged_pictures_are_left_out_and_named_every_time(tmp_path: Path):
    whole = png(pixels(1))
    damaged = {"a/2.png": whole[:200], "c/7.jpg": b"no picture", "b/empty.png": b""}
    archive = pack(tmp_path / "own.zip", TEN | damaged | {"b/torn.png": whole})
    content = archive.read_bytes()
    spot = content.index(b"b/torn.png") + len("b/torn.png") + 100
    archive.write_bytes(content[:spot] + bytes([content[spot] ^ 255]) + content[spot + 1 :])
    wanted = {f"{path} in {archive}" for path in (*damaged, "b/torn.png")}
    for _ in range(2):  # the second time from the cache
        with pytest.warns(LeftOut) as caught:
            splits = class_folders(archive, size=8)
        assert {str(w.message).split(" is not a picture")[0] for w in caught} == wanted
        paths = {path for part in splits if part for path in part.paths}
        assert paths == set(TEN)


def test_changed_files_are_read_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    lists = {"split_train.txt": b"a", "split_test.txt": b"b"}
    place = write(tmp_path / "own", TEN | lists)
    twin = write(tmp_path / "twin" / "own", classes("a", "b", images=3) | lists)
    before = np.array(class_folders(place, size=8).train.arrays.images)
    class_folders(twin, size=8)
    class_folders(place, size=9)
    entries = sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))
    assert len(entries) == 3  # two sources of one name, two sizes

    with monkeypatch.context() as patch:
        patch.setattr(PICTURES, "squares", None)  # nothing is decoded twice
        np.testing.assert_array_equal(class_folders(place, size=8).train.arrays.images, before)
        assert class_folders(twin, size=8).train.smallest == 3

    stat = (place / "a/0.png").stat()
    (place / "a/0.png").write_bytes(png(pixels(99)))
    os.utime(place / "a/0.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = class_folders(place, size=8).train.arrays.images
    assert (after[0] != before[0]).any()
    np.testing.assert_array_equal(after[1], before[1])
    assert sorted(p.name for p in cache.iterdir() if not p.name.startswith(".")) == entries


@pytest.mark.parametrize(
    ("files", "settings", "said"),
    [
        ({}, {}, "neither class folders nor just one ZIP"),
        ({"0.png": png(pixels(0))}, {}, "neither class folders"),
        ({"a.zip": b"", "b.zip": b""}, {}, "neither class folders nor just one ZIP"),
        ({"a.zip": b"no archive"}, {}, "a.zip is neither a directory nor a ZIP archive"),
        (classes("a", "b"), {}, "2 classes are too few .* at least 3"),
        (classes("a"), {"val": 0}, "1 classes are too few .* at least 2"),
        (TEN, {"size": 7}, "size is 7; it is at least 8"),
        (TEN, {"val": 0.6, "test": 0.4}, r"val and test are 0\.6 and 0\.4"),
        (TEN, {"val": -0.1}, r"val and test are -0\.1"),
        (TEN, {"test": 0}, r"val and test are 0\.16 and 0; they are shares"),
        (
            classes("a", "b", under="train/") | classes("b", under="test/"),
            {},
            "the folders of .*own name the class b 2 times",
        ),
        (
            classes("a", under="train/") | classes("b", under="val/"),
            {},
            "the folders of .*own leave no classes for test",
        ),
        (TEN | {"split_train.txt": b"a"}, {}, r"lists split_\*\.txt in .* no classes for test"),
        (
            TEN | {"split_train.txt": b"a\nb", "split_test.txt": b"b"},
            {},
            "name the class b 2 times: a class belongs to one part",
        ),
        (
            TEN | {"split_train.txt": b"a\nsnow leopard", "split_test.txt": b"b"},
            {},
            "split_train.txt names the class snow leopard, but .* has no folder of that name",
        ),
        (TEN | {"k/0.png": b"x"}, {}, r"no picture of class k .* such as k/0\.png \(cannot"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    tmp_path: Path, files: dict[str, bytes], settings: dict[str, float], said: str
):
    (tmp_path / "own").mkdir()
    write(tmp_path / "own", files)
    with pytest.raises(ValueError, match=said) as refused:
        class_folders(tmp_path / "own", **settings)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(refused.value)


def test_a_source_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere: name a directory"):
        class_folders(tmp_path / "nowhere")


def test_a_file_that_cannot_be_opened_is_the_disk_s_fault(tmp_path: Path):
    place = write(tmp_path / "own", TEN)
    (place / "a" / "gone.png").symlink_to(place / "nothing.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        class_folders(place)
