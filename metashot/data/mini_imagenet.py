"""miniImageNet: 100 classes of ImageNet with 600 photographs each, of 84x84 pixels.

Vinyals et al., "Matching networks for one shot learning", 2016; the published split is that of
Ravi & Larochelle, "Optimization as a model for few-shot learning", 2017.
"""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import cache, pictures
from .dataset import Dataset, Splits, from_arrays


def mini_imagenet(source: str | os.PathLike[str] | None = None, *, size: int = 84) -> Splits:
    """miniImageNet as it was published: lists of file names, and the pictures.

    Args:
        source: the folder with the lists `train.csv`, `val.csv` and `test.csv` (or `.csv.gz`), of
            columns `filename,label`, and the pictures in its folder `images` or beside the lists.
            None means the folder `mini_imagenet` in the environment's METASHOT_DATA, else in the
            cache folder.
        size: pixels along a side; pictures are stretched to a square, by area where they shrink.

    Returns:
        Images [n, size, size, 3] uint8, decoded once and then cached; classes are in the order of
        their labels, images in that of the lists; paths are the lists' file names.

    Raises:
        FileNotFoundError: a list or a picture that is not there.
        ValueError: a bad size, a list of another form, a picture that cannot be decoded.
    """
    if size < 8:
        raise ValueError(f"size is {size}; it is at least 8")
    place = source or Path(os.environ.get("METASHOT_DATA") or cache.folder()) / "mini_imagenet"
    lists = [_listed(Path(place), part) for part in Splits._fields]
    images = Path(place) / "images" if (Path(place) / "images").is_dir() else Path(place)
    listed = [row.filename for rows in lists for row in rows]
    missing = [name for name in listed if not (images / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of the {len(listed):,} pictures of miniImageNet are not in "
            f"{images}, the first of them {missing[0]}: put them there, or name the folder that "
            "holds the lists and the pictures"
        )
    train, val, test = lists
    return Splits(
        _part("train", images, train, size),
        _part("val", images, val, size),
        _part("test", images, test, size),
    )


class Row(NamedTuple):
    """A picture, as a list has it."""

    filename: str
    label: str


def _listed(place: Path, part: str) -> list[Row]:
    """The rows of a part's list, by label."""
    paths = (place / f"{part}.csv", place / f"{part}.csv.gz")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"there is no {part}.csv in {place}: name the folder that has miniImageNet's lists "
            "train.csv, val.csv and test.csv and its pictures"
        )
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if header != list(Row._fields) or not rows or any(len(row) != 2 for row in rows):
        raise ValueError(f"{path} is not a list of the form filename,label, with this first line")
    return sorted((Row(*row) for row in rows), key=lambda row: row.label)


def _part(part: str, images: Path, rows: list[Row], size: int) -> Dataset:
    """The pictures of a list."""
    stats = [(images / row.filename).stat() for row in rows]
    stamps = [(*row, stat.st_size, stat.st_mtime_ns) for row, stat in zip(rows, stats, strict=True)]

    def build() -> Dataset:
        read = lambda i: (images / rows[i].filename).read_bytes()
        decoded, ailing = pictures.squares(read, len(rows), size)
        if ailing:
            first, error = next(iter(ailing.items()))
            raise ValueError(
                f"{len(ailing):,} pictures of miniImageNet cannot be decoded, the first of them "
                f"{images / rows[first].filename} ({error}): fetch them again"
            )
        names, labels = np.unique([row.label for row in rows], return_inverse=True)
        paths = tuple(row.filename for row in rows)
        return from_arrays(decoded, labels, tuple(names.tolist()), paths=paths)

    where = pictures.digest(str(images.resolve()))[:8]
    return cache.cached(f"mini_imagenet-{part}-{size}-{where}", pictures.digest(stamps), build)
