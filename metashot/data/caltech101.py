"""Caltech-101: photographs of 101 kinds of object, split by class."""

from __future__ import annotations

import os
from pathlib import Path

from . import cache
from .dataset import Splits
from .folders import class_folders


def caltech101(source: str | os.PathLike[str] | None = None, *, size: int = 84) -> Splits:
    """Caltech-101's class folders (Fei-Fei, Fergus & Perona 2004).

    Args:
        source: a directory or an archive of the class folders, such as 101_ObjectCategories; with
            the lists `split_base.txt`, `split_val.txt` and `split_novel.txt` of class names, a
            class a line (without these the classes are shared out at random, as `class_folders`
            does; take the folder BACKGROUND_Google away first). None means the folder `caltech101`
            in the environment's METASHOT_DATA, else in the cache folder.
        size: pixels along a side; pictures are stretched to a square.

    Returns:
        Images [n, size, size, 3] uint8, decoded once and then cached; names are the folders'.

    Raises:
        FileNotFoundError: no such source.
        ValueError: what `class_folders` raises.
    """
    place = source or Path(os.environ.get("METASHOT_DATA") or cache.folder()) / "caltech101"
    return class_folders(place, size=size)
