"""Pictures in class folders: one folder a class, in a directory or in a ZIP archive.

Which classes are for training, choosing and testing is said by folders `train/`, `val/`, `test/`,
else by lists of class names `split_train.txt`, ... in the source, else drawn at random.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import cache
from .dataset import Dataset, Splits, from_arrays, select

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
PARTS = {"train": ("train", "base"), "val": ("val",), "test": ("test", "novel")}


def class_folders(
    source: str | os.PathLike[str],
    *,
    size: int = 84,
    val: float = 0.16,
    test: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Any pictures in class folders, split by class.

    Args:
        source: a directory of class folders, a ZIP archive of them, or a directory that holds one
            such archive. Where it has folders `train`, `val` and `test`, the class folders lie in
            these; where it has lists `split_train.txt` (or `split_base.txt`), `split_val.txt` and
            `split_test.txt` (or `split_novel.txt`), these name the classes. `val` may be missing.
        size: pixels along a side; pictures are stretched to a square, by area where they shrink.
        val: share of the classes for choosing, test: for testing, where the source doesn't say;
            with a share of 0 there is no val. The rest is for training.
        seed: of that random split.

    Returns:
        Images [n, size, size, 3] uint8, decoded once and then cached; names are the folders',
        paths lie within the source. Files that aren't pictures are left out with a warning.

    Raises:
        FileNotFoundError: no such source.
        ValueError: no class folders, a list that names a class that isn't there, bad shares.
    """
    place = Path(source)
    if size < 8:
        raise ValueError(f"size is {size}; it is at least 8")
    if not place.exists():
        raise FileNotFoundError(f"there is no {place}: name a directory of class folders")
    with _opened(place) as (stamps, open_file):
        members = _members(place, list(stamps))
        digest = hashlib.sha256(repr(sorted(stamps.items())).encode()).hexdigest()
        name = f"folders-{place.absolute().name}-{size}-{digest[:8]}"
        everything = cache.cached(name, digest, lambda: _decode(members, open_file, size))
    parts = _foldered(members) or _listed(place, everything.names)
    parts = parts or _drawn(everything.names, val, test, seed)
    number = {name: c for c, name in enumerate(everything.names)}
    train_part, val_part, test_part = (
        select(everything, [number[name] for name in part]) if part else None for part in parts
    )
    if train_part is None or test_part is None:
        raise ValueError(f"{place} leaves no classes for training or none for testing: {parts}")
    return Splits(train_part, val_part, test_part)


class Member(NamedTuple):
    """A picture's place."""

    path: str  # within the source
    part: str  # "train", "val" or "test" where the source has such folders, else ""
    name: str  # of the class


@contextlib.contextmanager
def _opened(place: Path) -> Generator[tuple[dict[str, str], Callable[[str], IO[bytes]]]]:
    """The pictures within a source, each with what changes when it does, and how to open one."""
    if place.is_dir():
        archives = sorted(place.glob("*.zip"))
        if len(archives) != 1:
            found = (path for path in sorted(place.rglob("*")) if _wanted(path))
            stats = {path.relative_to(place).as_posix(): path.stat() for path in found}
            stamps = {path: f"{stat.st_size}-{stat.st_mtime_ns}" for path, stat in stats.items()}
            yield stamps, lambda path: (place / path).open("rb")
            return
        place = archives[0]
    try:
        with zipfile.ZipFile(place) as archive:
            infos = [info for info in archive.infolist() if _wanted(PurePosixPath(info.filename))]
            stamps = {info.filename: f"{info.file_size}-{info.CRC}" for info in infos}
            yield stamps, archive.open
    except zipfile.BadZipFile as error:
        raise ValueError(f"{place} is neither a directory nor a ZIP archive: {error}") from error


def _wanted(path: PurePath) -> bool:
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return path.suffix.lower() in ENDINGS and not hidden


def _members(place: Path, paths: list[str]) -> list[Member]:
    """Which class each picture is of, and of which part where there are such folders."""
    folders = [PurePosixPath(path).parts[:-1] for path in paths]
    while folders and all(len(f) > 1 and f[0] == folders[0][0] for f in folders):
        folders = [f[1:] for f in folders]  # an archive's only folder says nothing
    part_of = {name: part for part, names in PARTS.items() for name in names}
    parted = {f[0] for f in folders if f} <= set(part_of) and all(len(f) > 1 for f in folders)
    if not folders or not all(folders):
        raise ValueError(f"{place} has no class folders: put each class's pictures in a folder")
    place_in = lambda f: (part_of[f[0]], f[1]) if parted else ("", f[0])
    return [Member(path, *place_in(f)) for path, f in zip(paths, folders, strict=True)]


def _decode(members: list[Member], open_file: Callable[[str], IO[bytes]], size: int) -> Dataset:
    images: list[NDArray[np.uint8]] = []
    kept: list[Member] = []
    for member in members:
        try:
            with open_file(member.path) as file:
                images.append(_square(Image.open(file), size))
            kept.append(member)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            warnings.warn(f"{member.path} is left out: {error}", stacklevel=2)
    if not kept:
        raise ValueError("none of the files is a picture that can be read")
    names = sorted({member.name for member in kept})
    number = {name: c for c, name in enumerate(names)}
    labels = np.array([number[member.name] for member in kept])
    paths = tuple(member.path for member in kept)
    return from_arrays(np.stack(images), labels, tuple(names), paths=paths)


def _square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """[size, size, 3]: stretched, by area where it shrinks."""
    shrinks = min(image.size) >= size
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.asarray(image.convert("RGB").resize((size, size), method))


Parts = tuple[list[str], ...]  # names of the classes for training, choosing and testing


def _foldered(members: list[Member]) -> Parts | None:
    """The classes in the folders train, val and test, if there are these."""
    if not members[0].part:
        return None
    parts = tuple(sorted({m.name for m in members if m.part == part}) for part in PARTS)
    for name, count in Counter(itertools.chain(*parts)).items():
        if count > 1:
            raise ValueError(
                f"class {name} is in more than one of the folders {', '.join(PARTS)}: a class "
                "belongs to one of them; to split by class at random, name a directory with all "
                "pictures of a class in one folder"
            )
    return parts


def _listed(place: Path, names: tuple[str, ...]) -> Parts | None:
    """The classes that the source's lists name, if it has lists."""
    folder = place if place.is_dir() else place.parent
    options = {part: [folder / f"split_{n}.txt" for n in ns] for part, ns in PARTS.items()}
    found = {part: next((p for p in paths if p.is_file()), None) for part, paths in options.items()}
    if found["train"] is None or found["test"] is None:
        return None
    parts = {part: path.read_text("utf-8").split() if path else [] for part, path in found.items()}
    for part, chosen in parts.items():
        for name in chosen:
            if name not in names:
                raise ValueError(f"{found[part]} names the class {name}; there is no such folder")
    return tuple(parts.values())


def _drawn(names: tuple[str, ...], val: float, test: float, seed: int) -> Parts:
    """The classes shared out at random."""
    if not (val >= 0 and test > 0 and val + test < 1):
        raise ValueError(f"val and test are {val} and {test}; they are shares that leave some over")
    order = [str(name) for name in np.random.default_rng(seed).permutation(names)]
    n_test = max(round(test * len(order)), 1)
    n_val = max(round(val * len(order)), 1) if val else 0
    chosen = order[:n_test], order[n_test : n_test + n_val], order[n_test + n_val :]
    return sorted(chosen[2]), sorted(chosen[1]), sorted(chosen[0])
