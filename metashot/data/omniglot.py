"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn once by 20 people.

Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 2015; the published split is that of Vinyals et al., "Matching networks for
one shot learning", 2016.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.resources
import io
import itertools
import os
import re
import shutil
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import cache
from .dataset import INK, Dataset, Splits, from_arrays, select
from .dataset import rotations as with_rotations

URL = "https://github.com/brendenlake/omniglot/raw/master/python"
DRAWERS = 20
SIDE = 105  # pixels, of the original drawings

Split = Literal["tuning", "characters", "alphabets", "alphabets_tuning"]
# The background alphabets for choosing: Omniglot's "background small 1".
SMALL = ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")


class Archive(NamedTuple):
    """One of the two official archives."""

    part: str
    characters: int
    size: int  # in bytes
    md5: str

    @property
    def name(self) -> str:
        return f"images_{self.part}.zip"

    @property
    def names(self) -> tuple[str, str]:
        """The official name, and that of a copy packed differently."""
        return self.name, f"omniglot_{self.part}.zip"


ARCHIVES = (
    Archive("background", 964, 9_464_212, "68d2efa1b9178cc56df9314c21c6e718"),
    Archive("evaluation", 659, 6_462_886, "6b91aef0f799c5bb55b94e3f2daec811"),
)


def omniglot(
    source: str | os.PathLike[str] | None = None,
    *,
    size: int = 28,
    split: Split = "tuning",
    rotations: bool = True,
    turned_tests: bool = True,
    repacked: bool = False,
) -> Splits:
    """Omniglot, split for meta-training and meta-testing.

    Args:
        source, size, repacked: as for `prepare_omniglot`.
        split: "tuning" is the published 1,028 / 172 / 423 characters; "characters" trains on its
            1,200 and has no val; "alphabets" trains on the 30 background alphabets and tests on
            the 20 evaluation alphabets, without val; "alphabets_tuning" has 5 of the 30 for val.
        rotations: each character also turned by 90, 180 and 270 degrees, as further classes.
        turned_tests: so are those of val and test, not only those of train.

    Returns:
        Images [n, size, size, 1] uint8, dark ink (0) on white paper (255), with alphabets as
        groups, drawers 1..20 and paths within the archives.

    Raises:
        ValueError: an unknown split; and all that `prepare_omniglot` raises.
    """
    if split not in get_args(Split):
        raise ValueError(f"no Omniglot split {split!r}: it is one of {', '.join(get_args(Split))}")
    everything = prepare_omniglot(source, size=size, repacked=repacked)
    number = {name: c for c, name in enumerate(everything.names)}

    def part(names: list[str], turned: bool = rotations and turned_tests) -> Dataset:
        chosen = select(everything, [number[name] for name in names])
        return with_rotations(chosen) if turned else chosen

    if split.startswith("alphabets"):
        border = ARCHIVES[0].characters
        background, evaluation = everything.names[:border], everything.names[border:]
        held_out = [name for name in background if name.split("/")[0] in SMALL]
        if split == "alphabets":
            return Splits(part([*background], rotations), None, part([*evaluation]))
        trained = [name for name in background if name not in held_out]
        return Splits(part(trained, rotations), part(held_out), part([*evaluation]))
    train, val, test = map(_published, ("train", "val", "test"))
    if split == "characters":
        return Splits(part(train + val, rotations), None, part(test))
    return Splits(part(train, rotations), part(val), part(test))


def prepare_omniglot(
    source: str | os.PathLike[str] | None = None,
    *,
    size: int = 28,
    repacked: bool = False,
    download: bool = False,
) -> Dataset:
    """All of Omniglot, background before evaluation, unrotated; decoded once, then cached.

    Args:
        source: the folder with `images_background.zip` and `images_evaluation.zip`, or one with
            these in a folder `omniglot` or `omniglot-py`. None means the environment's
            METASHOT_DATA, else the cache folder. Where none was given and none is found, the
            cached data set is used as it is.
        size: pixels along a side, 1 to 105; drawings are reduced by area.
        repacked: also accept archives that are not the official files, byte for byte, once their
            structure is checked; they may be named `omniglot_background.zip` and
            `omniglot_evaluation.zip`. Archives accepted once need not be accepted again.
        download: fetch the official archives first, unless `source` has them.

    Returns:
        Images [32460, size, size, 1] uint8, memory-mapped.

    Raises:
        FileNotFoundError: no archives, and nothing cached.
        ValueError: an archive that is not the official one, or not Omniglot; a bad size.
        OSError: a failed download; a cache folder that cannot be written.
    """
    if not 1 <= size <= SIDE:
        raise ValueError(f"Omniglot's drawings have sizes of 1 to {SIDE}, not {size}")
    folder = Path(source or os.environ.get("METASHOT_DATA") or cache.folder())
    if download:
        for archive in ARCHIVES:
            _download(archive, folder)
    name = f"omniglot-{size}"
    found = {a: path for a in ARCHIVES if (path := find(folder, a.names)) is not None}
    if len(found) < len(ARCHIVES):
        if source is None and (dataset := cache.stored(name)) is not None:
            return dataset
        missing = " and ".join(archive.name for archive in ARCHIVES if archive not in found)
        raise FileNotFoundError(
            f"{missing} not found in {folder}: name the folder that has them (metashot data "
            "prepare omniglot --source DIR, or METASHOT_DATA=DIR), or fetch them with --download"
        )
    md5 = {archive: _md5(path) for archive, path in found.items()}

    def build() -> Dataset:
        for archive, path in found.items():
            if not repacked and md5[archive] != archive.md5:
                raise ValueError(
                    f"{path} is not the official {archive.name} ({archive.size} bytes, MD5 "
                    f"{archive.md5}): fetch that one (--download), or, if this is Omniglot packed "
                    "differently, say so once with metashot data prepare omniglot --repacked "
                    "(repacked=True)"
                )
        paths, images = zip(*(_decode(a, path, size) for a, path in found.items()), strict=True)
        return _dataset(tuple(itertools.chain(*paths)), np.concatenate(images))

    return cache.cached(name, "-".join(md5.values()), build)


def _published(part: str) -> list[str]:
    """The names of a part's characters in the published split."""
    lists = importlib.resources.files(__name__.rpartition(".")[0]) / "splits"
    return (lists / f"omniglot_{part}.txt").read_text("utf-8").split()


def find(folder: Path, names: Sequence[str]) -> Path | None:
    """An archive of one of these names, in the folder or in one that Omniglot is kept in."""
    for name in names:
        for place in (folder, folder / "omniglot", folder / "omniglot-py"):
            if (place / name).is_file():
                return place / name
    return None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _download(archive: Archive, folder: Path) -> None:
    """Fetches an official archive, unless the folder has it."""
    path = find(folder, [archive.name]) or folder / "omniglot" / archive.name
    if path.is_file() and _md5(path) == archive.md5:
        return
    url, partial = f"{URL}/{archive.name}", path.with_name(f".{archive.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as reply, partial.open("wb") as file:
            shutil.copyfileobj(reply, file)
        size, md5 = partial.stat().st_size, _md5(partial)
        if (size, md5) != (archive.size, archive.md5):
            raise OSError(f"it came as {size} bytes with MD5 {md5}")
        partial.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"{url} could not be fetched ({error}): put {archive.name} ({archive.size} bytes, MD5 "
            f"{archive.md5}) in {path.parent} by hand"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _decode(archive: Archive, path: Path, size: int) -> tuple[list[str], NDArray[np.uint8]]:
    """The paths within an archive, by character and drawer, and images [n, size, size]."""
    member = re.compile(rf"images_{archive.part}/([^/]+/character\d+)/\d+_(\d+)\.png")
    try:
        with zipfile.ZipFile(path) as file:
            found = [match for match in map(member.fullmatch, file.namelist()) if match]
            found.sort(key=lambda match: match.groups())
            characters = len({match[1] for match in found})
            drawers = [int(match[2]) for match in found]
            whole = drawers == characters * list(range(1, DRAWERS + 1))
            if not whole or characters != archive.characters:
                raise ValueError(
                    f"{path} has {len(found)} drawings of {characters} characters: Omniglot's "
                    f"{archive.part} set is {archive.characters} characters by {DRAWERS} drawers"
                )
            return [m[0] for m in found], np.stack([drawing(file, m[0], size) for m in found])
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise ValueError(f"{path} cannot be read as an archive of pictures: {error}") from error


def drawing(file: zipfile.ZipFile, path: str, size: int) -> NDArray[np.uint8]:
    """A picture of an archive, [size, size], reduced by area."""
    image = Image.open(io.BytesIO(file.read(path)), formats=["PNG"])
    if image.size != (SIDE, SIDE):
        raise ValueError(f"{path} in {file.filename} is {image.size}, not {SIDE} x {SIDE} pixels")
    return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BOX))


def _dataset(paths: tuple[str, ...], images: NDArray[np.uint8]) -> Dataset:
    """Omniglot of its paths and images [n, size, size], 20 to a class."""
    names = ["/".join(path.split("/")[1:3]) for path in paths[::DRAWERS]]
    return from_arrays(
        images[..., None],
        np.repeat(np.arange(len(names)), DRAWERS),
        tuple(names),
        groups=tuple(name.split("/")[0] for name in names),
        drawers=np.tile(np.arange(1, DRAWERS + 1), len(names)),
        paths=paths,
        prepare=INK,
    )
