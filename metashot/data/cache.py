"""Data sets on disk, written once and memory-mapped ever after.

An entry is a folder: a header of JSON beside one .npy file an array. It is written under a
temporary name and then renamed, so an entry cut short by a kill never carries the final name. Who
builds an entry holds its lock, which the system lets go when a process dies: a second builder
waits and then reads, and a temporary folder found under the lock is that of a dead build.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..places import cache_folder as folder
from .dataset import Dataset, Prepare, from_arrays

FORMAT = 1  # of the entries; an entry of another format is built anew


def cached(name: str, digest: str, build: Callable[[], Dataset]) -> Dataset:
    """The entry `name`, built and stored first unless it is there, whole and of this digest.

    Args:
        name: the entry's folder within the cache.
        digest: stands for all that the data set is made from.
        build: makes the data set; called at most once.

    Returns:
        The data set, its images memory-mapped and read-only.

    Raises:
        OSError: the cache folder cannot be written.
    """
    if (found := stored(name, digest)) is not None:
        return found
    with _lock(name):
        if (found := stored(name, digest)) is not None:  # built while this process waited
            return found
        dataset = build()
        with _remedy():
            _write(name, digest, dataset)
        return _read(folder() / name)[1]


def stored(name: str, digest: str | None = None) -> Dataset | None:
    """The entry `name` if it is whole and of this digest (None: of any), else None."""
    try:
        found, dataset = _read(folder() / name)
    except Exception:  # whatever ails an entry, the remedy is to build it again
        return None
    return dataset if digest in (None, found) else None


def _read(entry: Path) -> tuple[str, Dataset]:
    """The digest and the data set of an entry; raises anything if it is not whole."""
    header = json.loads((entry / "header.json").read_text("utf-8"))
    if header["format"] != FORMAT:
        raise ValueError(f"{entry} has format {header['format']}, not {FORMAT}")
    arrays = {key: _map(entry / f"{key}.npy", **about) for key, about in header["arrays"].items()}
    dataset = from_arrays(
        **arrays,
        names=tuple(header["names"]),
        groups=tuple(header["groups"]),
        paths=tuple(header["paths"]),
        prepare=Prepare(*header["prepare"]),
    )
    return header["digest"], dataset


def _map(path: Path, shape: list[int], dtype: str) -> NDArray[Any]:
    array = np.load(path, mmap_mode="r")
    whole = array.offset + array.nbytes == path.stat().st_size
    if not whole or list(array.shape) != shape or array.dtype != dtype:
        raise ValueError(f"{path} is not {shape} {dtype}")
    return array


def _write(name: str, digest: str, dataset: Dataset) -> None:
    """Stores an entry; the caller holds its lock."""
    entry, temporary = folder() / name, folder() / f".{name}.tmp"
    if temporary.exists():  # of a build that was killed
        shutil.rmtree(temporary)
    temporary.mkdir()
    count = np.asarray(dataset.arrays.count)
    arrays = {
        "images": np.asarray(dataset.arrays.images),
        "labels": np.repeat(np.arange(dataset.classes, dtype=np.int32), count),
        "drawers": dataset.drawers,
    }
    for key, array in arrays.items():
        np.save(temporary / f"{key}.npy", array)
    header = {
        "format": FORMAT,
        "name": name,
        "digest": digest,
        "arrays": {
            key: {"shape": array.shape, "dtype": str(array.dtype)} for key, array in arrays.items()
        },
        "names": dataset.names,
        "groups": dataset.groups,
        "paths": dataset.paths,
        "prepare": dataset.prepare,
    }
    (temporary / "header.json").write_text(json.dumps(header), "utf-8")
    if entry.exists():  # outdated or damaged, and a folder cannot be renamed over another
        shutil.rmtree(entry)
    temporary.rename(entry)


@contextlib.contextmanager
def _lock(name: str) -> Generator[None, None, None]:
    with contextlib.ExitStack() as held:
        with _remedy():
            folder().mkdir(parents=True, exist_ok=True)
            file = held.enter_context((folder() / f".{name}.lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _remedy() -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"the cache folder {folder()} cannot be written ({error.strerror or error}): "
            "set METASHOT_CACHE to a folder that can"
        ) from error
