"""Tiny-ImageNet: 200 classes of photographs, 64x64 pixels, here split by class."""

from __future__ import annotations

import os
from pathlib import Path

from . import cache
from .dataset import Splits
from .folders import class_folders

SIDE = 64


def tiny_imagenet(source: str | os.PathLike[str] | None = None, *, size: int = 64) -> Splits:
    """Tiny-ImageNet's class folders `<wnid>/`, at their own size or smaller.

    Args:
        source: a directory or an archive of the class folders, or the official folder or archive
            `tiny-imagenet-200`, of which the pictures for training are used; with the lists
            `split_train.txt`, `split_val.txt` and `split_test.txt` of class names (without these
            the classes are shared out at random, as `class_folders` does). None means the folder
            `tiny_imagenet` in the environment's METASHOT_DATA, else in the cache folder.
        size: pixels along a side, 8 to 64; pictures are reduced by area.

    Returns:
        Images [n, size, size, 3] uint8, decoded once and then cached; names are the wnids.

    Raises:
        FileNotFoundError: no such source.
        ValueError: a bad size, and all that `class_folders` raises.
    """
    if not 8 <= size <= SIDE:
        raise ValueError(f"Tiny-ImageNet's pictures have sizes of 8 to {SIDE}, not {size}")
    place = source or Path(os.environ.get("METASHOT_DATA") or cache.folder()) / "tiny_imagenet"
    return class_folders(place, size=size)
