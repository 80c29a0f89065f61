"""Pictures in class folders: one folder a class, in a directory or in a ZIP archive.

Which classes are for training, choosing and testing is said by folders `train`, `val`, `test`,
else by lists of class names `split_train.txt`, ... in the source, else drawn at random.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from . import cache, pictures
from .dataset import Dataset, Prepare, Splits, from_arrays, select

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
PARTS = {
    "train": ("train", "base"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "novel"),
}
PART_OF = {name: part for part, names in PARTS.items() for name in names}


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
        source: a directory of class folders, a ZIP archive of them, or a directory that holds
            just one such archive. A folder around all class folders says nothing, folders within
            a class folder say nothing either, and pictures that lie in no class folder are passed
            over. Where class folders lie in folders `train`, `val` and `test`, these split them;
            else lists `split_train.txt`, `split_val.txt` and `split_test.txt` do, in the directory
            or beside the archive, a class a line. (`base`, `valid`, `validation` and `novel` are
            known too.) There may be no val, and classes that no list names are not used.
        size: pixels along a side; pictures are stretched to a square, by area where they shrink.
        val, test: shares of the classes for choosing and for testing, where the source doesn't
            say; the rest is for training. With a share of 0 there is no val.
        seed: of that random split.

    Returns:
        Images [n, size, size, 3] uint8, decoded once and then cached; names are the folders',
        paths lie within the source. A picture that cannot be decoded is left out with a warning.

    Raises:
        FileNotFoundError: no such source.
        ValueError: no class folders; a class in two parts, without a folder, or without a picture
            that can be decoded; a bad size, bad shares.
    """
    place = Path(source)
    if size < 8:
        raise ValueError(f"size is {size}; it is at least 8")
    with _opened(place) as (stamps, read):
        members = _members(place, list(stamps))
        names = sorted({member.name for member in members})
        parts = (
            _foldered(place, members)
            or _listed(place, names)
            or shared_out(str(place), names, val=val, test=test, seed=seed)
        )
        where = place.resolve()
        everything = cache.cached(
            f"folders-{where.name}-{size}-{pictures.digest(str(where))[:8]}",
            pictures.digest(list(stamps.items())),
            lambda: _decode(place, members, read, size),
        )
    _tell_left_out(place, members, everything)
    return split_as(everything, parts)


def labelled(
    source: str | os.PathLike[str], *, size: int, channels: int = 3, crop: bool = False
) -> Dataset:
    """Pictures in class folders as they are now: all classes in one data set, nothing cached.

    A picture that cannot be decoded, or a folder without pictures, is left out with a warning.

    Args:
        source: as for `class_folders`; folders `train` and `test` of class folders say nothing.
        size: pixels along a side.
        channels: 3 for RGB, 1 for grey.
        crop: cut pictures to the square in their middle; else they are stretched.

    Raises:
        FileNotFoundError: no such source.
        ValueError: no class folders, or a class without a picture that can be decoded.
    """
    place = Path(source)
    with _opened(place) as (stamps, read):
        members = _members(place, list(stamps))
        everything = _decode(place, members, read, size, channels, crop=crop)
    _tell_left_out(place, members, everything)
    if place.is_dir():
        told = {PurePosixPath(path).parts[0] for path in stamps}
        folders = (path for path in sorted(place.iterdir()) if path.is_dir())
        for folder in folders:
            if folder.name not in told and not folder.name.startswith("."):
                message = f"{folder} has no pictures ({', '.join(ENDINGS)}): it is left out"
                warnings.warn(message, pictures.LeftOut, stacklevel=2)
    return everything


def listed_pictures(entry: str, place: Path, members: list[Member], *, size: int) -> Dataset:
    """Pictures that a published list names, decoded once and then cached, which become -1 to 1.

    Args:
        entry: of the cache, to which the size and the place are added.
        place: the folder that their paths lie in.
        members: the pictures.
        size: pixels along a side.

    Raises:
        FileNotFoundError: pictures that are not there.
        ValueError: a class without a picture that can be decoded.
    """
    missing = [member.path for member in members if not (place / member.path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of the {len(members):,} pictures listed are not in {place}, the "
            f"first of them {missing[0]}: unpack the archive of pictures there"
        )
    members = sorted(members, key=lambda member: member.name)
    stats = [(place / member.path).stat() for member in members]
    stamps = [(*m, stat.st_size, stat.st_mtime_ns) for m, stat in zip(members, stats, strict=True)]
    everything = cache.cached(
        f"{entry}-{size}-{pictures.digest(str(place.resolve()))[:8]}",
        pictures.digest(stamps),
        lambda: _decode(place, members, lambda path: (place / path).read_bytes(), size),
    )
    _tell_left_out(place, members, everything)
    return dataclasses.replace(everything, prepare=Prepare(1 / 127.5, -1.0))


def _tell_left_out(place: Path, members: list[Member], decoded: Dataset) -> None:
    for path in sorted({member.path for member in members}.difference(decoded.paths)):
        message = f"{path} in {place} is not a picture that can be decoded: it is left out"
        warnings.warn(message, pictures.LeftOut, stacklevel=3)


class Member(NamedTuple):
    """A picture's place."""

    path: str  # within the source
    part: str  # "train", "val" or "test" where the source has such folders, else ""
    name: str  # of the class


class Parts(NamedTuple):
    """The names of the classes of each part."""

    train: list[str]
    val: list[str]
    test: list[str]


@contextlib.contextmanager
def _opened(place: Path) -> Generator[tuple[dict[str, str], Callable[[str], bytes]]]:
    """The pictures within a source, each with what changes when it does, and how to read one."""
    if not place.exists():
        raise FileNotFoundError(f"there is no {place}: name a directory or archive that exists")
    if place.is_dir():
        if stamps := _stamps(place):
            yield stamps, lambda path: (place / path).read_bytes()
            return
        archives = [path for path in place.iterdir() if path.suffix.lower() == ".zip"]
        if len(archives) != 1:
            raise ValueError(
                f"{place} has neither class folders nor just one ZIP archive of them: put each "
                f"class's pictures ({', '.join(ENDINGS)}) in a folder, or name one archive"
            )
        place = archives[0]
    try:
        archive = zipfile.ZipFile(place)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{place} is neither a directory nor a ZIP archive: {error}") from error
    with archive:
        infos = {info.filename: info for info in archive.infolist() if _wanted(info.filename)}
        yield {path: f"{info.file_size}-{info.CRC}" for path, info in infos.items()}, archive.read


def _stamps(place: Path) -> dict[str, str]:
    """The size and time of each picture in the folders of a directory, by path."""
    found = [
        (Path(folder) / file).relative_to(place).as_posix()
        for folder, _, files in os.walk(place, followlinks=True)
        for file in files
        if Path(folder) != place
    ]
    stats = {path: (place / path).stat() for path in sorted(found) if _wanted(path)}
    return {path: f"{stat.st_size}-{stat.st_mtime_ns}" for path, stat in stats.items()}


def _wanted(path: str) -> bool:
    """Whether a file looks like a picture, and not like a system's leavings."""
    file = PurePosixPath(path)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in file.parts)
    return file.suffix.lower() in ENDINGS and not hidden


def _members(place: Path, paths: list[str]) -> list[Member]:
    """Which class each picture is of, and of which part where there are such folders; by class."""
    folders = {path: PurePosixPath(path).parts[:-1] for path in paths}
    # Tiny-ImageNet has a folder `images` in each class folder, and in `val`, where it is no class.
    folders = {
        path: f[:-1] if len(f) > 1 and f[-1] == "images" else f for path, f in folders.items()
    }
    while len({f[0] for f in folders.values() if f}) == 1 and max(map(len, folders.values())) > 1:
        folders = {path: f[1:] for path, f in folders.items()}
    folders = {path: f for path, f in folders.items() if f}
    if len({PART_OF[f[0]] for f in folders.values() if f[0] in PART_OF}) > 1:
        inner = {path: f for path, f in folders.items() if f[0] in PART_OF and len(f) > 1}
        members = [Member(path, PART_OF[f[0]], f[1]) for path, f in inner.items()]
    else:
        members = [Member(path, "", f[0]) for path, f in folders.items()]
    if not members:
        raise ValueError(f"{place} has no class folders: put each class's pictures in a folder")
    return sorted(members, key=lambda member: member.name)


def _decode(
    place: Path,
    members: list[Member],
    read: Callable[[str], bytes],
    size: int,
    channels: int = 3,
    *,
    crop: bool = False,
) -> Dataset:
    """All that can be decoded, by class."""
    open_one = lambda i: read(members[i].path)
    images, ailing = pictures.squares(open_one, len(members), size, channels, crop=crop)
    kept = [i for i in range(len(members)) if i not in ailing]
    names = sorted({members[i].name for i in kept})
    for i, error in ailing.items():
        if members[i].name not in names:
            raise ValueError(
                f"no picture of class {members[i].name} in {place} can be decoded, such as "
                f"{members[i].path} ({error}): mend or remove that folder"
            )
    number = {name: c for c, name in enumerate(names)}
    return from_arrays(
        images[kept] if ailing else images,
        np.array([number[members[i].name] for i in kept]),
        tuple(names),
        paths=tuple(members[i].path for i in kept),
    )


def _foldered(place: Path, members: list[Member]) -> Parts | None:
    """The classes in the folders train, val and test, if class folders lie in several of these."""
    if len({member.part for member in members}) == 1:
        return None
    found = {part: sorted({m.name for m in members if m.part == part}) for part in PARTS}
    return _disjoint(f"the folders of {place}", Parts(**found))


def _listed(place: Path, names: list[str]) -> Parts | None:
    """The classes that the source's lists name, if it has lists."""
    folder = place if place.is_dir() else place.parent
    options = ((part, folder / f"split_{name}.txt") for name, part in PART_OF.items())
    lists = {part: path for part, path in options if path.is_file()}
    if not lists:
        return None
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for part, path in lists.items():
        lines = path.read_text("utf-8-sig").splitlines()
        found[part] = [line.strip() for line in lines if line.strip()]
        for name in found[part]:
            if name not in names:
                raise ValueError(
                    f"{path} names the class {name}, but {place} has no folder of that name: "
                    "correct the list or add the folder"
                )
    return _disjoint(f"the lists split_*.txt in {folder}", Parts(**found))


def _disjoint(where: str, parts: Parts) -> Parts:
    for part in ("train", "test"):
        if not getattr(parts, part):
            raise ValueError(f"{where} leave no classes for {part}: name some")
    for name, count in Counter(itertools.chain(*parts)).items():
        if count > 1:
            raise ValueError(
                f"{where} name the class {name} {count} times: a class belongs to one part; "
                "to split by class at random, name a source without these"
            )
    return parts


def shared_out(where: str, names: list[str], *, val: float, test: float, seed: int) -> Parts:
    """The classes of a source, shared out at random.

    Raises:
        ValueError: bad shares, or too few classes for them.
    """
    if not (val >= 0 and test > 0 and val + test < 1):
        raise ValueError(
            f"val and test are {val} and {test}; they are shares that leave some for training"
        )
    n_test = max(round(test * len(names)), 1)
    n_val = max(round(val * len(names)), 1) if val else 0
    if n_test + n_val >= len(names):
        raise ValueError(
            f"{where}: {len(names)} classes are too few to be split by class; it takes at least "
            f"{3 if val else 2}, and smaller val and test than {val} and {test} may help"
        )
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    left = order[n_test:]
    return Parts(sorted(left[n_val:]), sorted(left[:n_val]), sorted(order[:n_test]))


def split_as(everything: Dataset, parts: Parts) -> Splits:
    """The data set in its parts."""
    number = {name: c for c, name in enumerate(everything.names)}
    train, val, test = ([number[name] for name in part] for part in parts)
    return Splits(
        select(everything, train),
        select(everything, val) if val else None,
        select(everything, test),
    )
