"""Data sets prepared by TensorFlow Datasets, read without TensorFlow."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from . import cache, pictures
from .dataset import Dataset, Splits, from_arrays
from .folders import shared_out, split_as


def tfds(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    size: int = 84,
    val: float = 0.16,
    test: float = 0.2,
    seed: int = 0,
    image_key: str = "image",
    label_key: str = "label",
) -> Splits:
    """Images of TensorFlow Datasets, split by class; nothing is downloaded.

    Args:
        name: of the data set, `NAME[/CONFIG][:VERSION]`; it must have been prepared as array_record
            (`tfds build NAME --file_format=array_record`).
        data_dir: where it was prepared. None means TFDS's own: the environment's TFDS_DATA_DIR,
            else `~/tensorflow_datasets`.
        split: which of its examples, such as "train" or "train+test". None means all: its splits
            are of examples, those of few-shot learning of classes.
        size: pixels along a side; pictures are stretched to a square, by area where they shrink.
        val, test: shares of the classes for choosing and for testing; the rest is for training.
            With a share of 0 there is no val.
        seed: of that random split.
        image_key, label_key: the features that hold the image and its class.

    Returns:
        Images [n, size, size, C] uint8, C = 1 where the feature is grey, else 3, decoded once and
        then cached; names are those of the label, paths the positions of the examples.

    Raises:
        ImportError: tensorflow-datasets is not installed.
        FileNotFoundError: the data set is not prepared as array_record.
        ValueError: an unknown split, features that are not there or of another kind, an image that
            cannot be decoded, a bad size, bad shares.
    """
    if size < 8:
        raise ValueError(f"size is {size}; it is at least 8")
    builder = _prepared(name, data_dir)
    _check(name, dict(builder.info.features.items()), image_key, label_key)
    files = sorted((file.name, file.stat()) for file in builder.data_path.iterdir())
    stamps = [(path, stat.length, stat.mtime) for path, stat in files]
    split = split or "+".join(builder.info.splits)
    where = pictures.digest(str(builder.data_path), split, image_key, label_key)
    everything = cache.cached(
        f"tfds-{builder.info.full_name.replace('/', '-')}-{size}-{where[:8]}",
        pictures.digest(stamps),
        lambda: _decode(builder, split, size, image_key, label_key),
    )
    names = list(everything.names)
    return split_as(everything, shared_out(name, names, val=val, test=test, seed=seed))


def _prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """The builder of a data set whose examples can be read."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "data sets of TensorFlow Datasets are read by tensorflow-datasets, which is not "
            'installed: pip install "metashot[data]"'
        ) from error
    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir)
        builder.as_data_source()  # which opens no file yet
    except (
        tensorflow_datasets.core.DatasetNotFoundError,
        AssertionError,  # a version it doesn't know
        NotImplementedError,  # another format
    ) as error:
        where = f"--data_dir={data_dir} " if data_dir else ""
        raise FileNotFoundError(
            f"there is no {name} prepared as array_record in {data_dir or 'the default data_dir'}: "
            f"run tfds build {name} {where}--file_format=array_record, or in Python "
            'download_and_prepare(file_format="array_record") of its builder'
        ) from error
    return builder


def _check(name: str, features: dict[str, Any], image_key: str, label_key: str) -> None:
    """Refuse features that are not there, or of another kind."""
    from tensorflow_datasets import features as kinds

    wanted = {"image_key": (image_key, kinds.Image), "label_key": (label_key, kinds.ClassLabel)}
    for setting, (key, kind) in wanted.items():
        if not isinstance(features.get(key), kind):
            known = [other for other, feature in features.items() if isinstance(feature, kind)]
            raise ValueError(
                f"{setting} is {key}, which is no {kind.__name__} among the features of {name}; "
                f"of this kind it has {', '.join(known) or 'none'}"
            )


def _decode(builder: Any, split: str, size: int, image_key: str, label_key: str) -> Dataset:
    """All examples of a split, by class."""
    from tensorflow_datasets import decode

    features = builder.info.features
    source = builder.as_data_source(split, decoders={image_key: decode.SkipDecoding()})
    labels = np.array([source[i][label_key] for i in range(len(source))])
    rows = np.argsort(labels, kind="stable")
    channels = 1 if features[image_key].shape[-1] == 1 else 3
    read = lambda i: source[rows[i]][image_key]
    images, ailing = pictures.squares(read, len(rows), size, channels)
    if ailing:
        first, error = next(iter(ailing.items()))
        raise ValueError(
            f"{len(ailing):,} images of {builder.info.full_name} cannot be decoded, the first of "
            f"them example {rows[first]} ({error}): prepare it again"
        )
    present, labels = np.unique(labels[rows], return_inverse=True)
    names = tuple(features[label_key].names[c] for c in present)
    return from_arrays(images, labels, names, paths=tuple(map(str, rows.tolist())))
