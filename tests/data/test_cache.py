"""The cache on disk: what survives kills, damage and company."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metashot.data import cache
from metashot.data.dataset import INK, Dataset, from_arrays


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def dataset(first: int = 0) -> Dataset:
    """Classes of 2 and 4 images; `first` is the first pixel."""
    images = np.random.default_rng(1).integers(0, 256, (6, 5, 4, 3), np.uint8)
    images[0, 0, 0, 0] = first
    return from_arrays(
        images,
        np.array([0, 0, 1, 1, 1, 1]),
        ("alpha", "\N{GREEK SMALL LETTER BETA}"),
        groups=("greek", "greek"),
        drawers=np.arange(6),
        paths=tuple("abcdef"),
        prepare=INK,
    )


def never() -> Dataset:
    raise AssertionError("built again")


def same(one: Dataset, other: Dataset) -> bool:
    arrays = zip(
        (one.arrays.images, one.arrays.offset, one.arrays.count, one.drawers),
        (other.arrays.images, other.arrays.offset, other.arrays.count, other.drawers),
        strict=True,
    )
    return (
        all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in arrays)
        and (one.names, one.groups, one.paths) == (other.names, other.groups, other.paths)
        and (one.prepare, one.arrays.largest) == (other.prepare, other.arrays.largest)
    )


def test_an_entry_is_built_once_and_comes_back_whole():
    assert same(cache.cached("e", "d", dataset), dataset())
    assert same(cache.cached("e", "d", never), dataset())


def test_a_data_set_without_what_may_be_empty():
    plain = from_arrays(np.zeros((2, 3, 3, 1), np.uint8), np.array([0, 1]))
    assert same(cache.cached("e", "d", lambda: plain), plain)


def test_images_are_memory_mapped_and_read_only():
    images = cache.cached("e", "d", dataset).arrays.images
    assert isinstance(images, np.ndarray)
    assert isinstance(images.base, np.memmap)
    assert not images.flags.writeable


def test_another_digest_is_built_again(folder: Path):
    cache.cached("e", "old", dataset)
    assert cache.stored("e", "new") is None
    assert same(cache.cached("e", "new", lambda: dataset(7)), dataset(7))
    assert cache.stored("e", "old") is None
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["e"]


def test_stored_without_a_digest_takes_what_is_there():
    assert cache.stored("e") is None
    cache.cached("e", "d", dataset)
    found = cache.stored("e")
    assert found is not None
    assert same(found, dataset())


def cut(entry: Path) -> None:
    images = entry / "images.npy"
    images.write_bytes(images.read_bytes()[:-1])


def lengthen(entry: Path) -> None:
    with (entry / "images.npy").open("ab") as file:
        file.write(b"\0")


def edit(key: str, value: object) -> Callable[[Path], None]:
    def damage(entry: Path) -> None:
        header = json.loads((entry / "header.json").read_text("utf-8"))
        (entry / "header.json").write_text(json.dumps({**header, key: value}), "utf-8")

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut short": cut,
    "too long": lengthen,
    "empty": lambda entry: (entry / "images.npy").write_bytes(b""),
    "another version": edit("format", cache.FORMAT + 1),
    "another digest": edit("digest", "other"),
    "another shape": edit("arrays", {"images": {"shape": [6, 5, 4, 1], "dtype": "uint8"}}),
    "fewer classes": edit("names", ["alpha"]),
    "not JSON": lambda entry: (entry / "header.json").write_bytes(b"{\xff"),
    "another JSON": lambda entry: (entry / "header.json").write_text("[1]"),
    "no header": lambda entry: (entry / "header.json").unlink(),
    "no labels": lambda entry: (entry / "labels.npy").unlink(),
    "other labels": lambda entry: np.save(entry / "labels.npy", np.arange(6, dtype=np.int32)),
    "pickled labels": lambda entry: np.save(entry / "labels.npy", np.array([{}] * 6)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_built_again(folder: Path, damage: Callable[[Path], object]):
    cache.cached("e", "d", dataset)
    damage(folder / "e")
    assert same(cache.cached("e", "d", lambda: dataset(9)), dataset(9))
    assert same(cache.cached("e", "d", never), dataset(9))


def test_a_file_in_the_place_of_an_entry_is_named(folder: Path):
    folder.mkdir()
    (folder / "e").write_text("")
    with pytest.raises(OSError, match="METASHOT_CACHE"):
        cache.cached("e", "d", dataset)


def test_a_failed_build_damages_nothing(folder: Path):
    cache.cached("e", "old", dataset)
    with pytest.raises(AssertionError):
        cache.cached("e", "new", never)
    assert same(cache.cached("e", "old", never), dataset())


def test_a_folder_that_cannot_be_written_is_named(folder: Path):
    folder.write_text("a file, where a folder should be")
    with pytest.raises(OSError, match=rf"{folder} cannot be written .*METASHOT_CACHE"):
        cache.cached("e", "d", dataset)


@pytest.mark.skipif(sys.platform != "linux", reason="the place differs by system")
def test_the_user_s_cache_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("METASHOT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "metashot"


def start(program: str) -> subprocess.Popen[str]:
    """A Python of its own that builds; `program` may use `built()`, the data set."""
    prelude = """
        import time
        import numpy as np
        from metashot.data import cache
        from metashot.data.dataset import from_arrays

        def built():
            return from_arrays(np.full((6, 5, 5, 1), 3, np.uint8), np.repeat([0, 1], 3))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


WHILE_BUILDING = """
    def slow():
        print("now", flush=True)
        time.sleep(60)

    cache.cached("e", "d", slow)
"""
WHILE_WRITING = """
    save = np.save

    def slow(path, array):
        save(path, array)
        print("now", flush=True)
        time.sleep(60)

    np.save = slow
    cache.cached("e", "d", built)
"""


@pytest.mark.parametrize(
    ("program", "leftovers"), [(WHILE_BUILDING, 0), (WHILE_WRITING, 1)], ids=["build", "write"]
)
def test_a_killed_build_leaves_no_entry(folder: Path, program: str, leftovers: int):
    with start(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert len(list(folder.glob(".e.tmp"))) == leftovers
    assert not (folder / "e").exists()
    assert cache.stored("e") is None
    assert same(cache.cached("e", "d", dataset), dataset())
    assert not list(folder.glob(".e.tmp"))


def test_two_builders_at_once_build_once_and_both_end_well():
    program = """
        def slow():
            print("built", flush=True)
            time.sleep(3)
            return built()

        print(int(cache.cached("e", "d", slow).arrays.images.sum()))
    """
    outputs: list[str] = []
    with start(program) as one, start(program) as other:
        for process in (one, other):
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            outputs.append(output)
    assert sorted(outputs) == ["450\n", "built\n450\n"]
