"""Pictures and indexed masks in the layout of PASCAL VOC, the folds of PASCAL-5i, and DAVIS."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..devices import cores
from .dataset import Prepare
from .episodes import Episodes
from .masks import VOID, MaskDataset, MaskSplits, from_masks, joined, listed, part, split_by_class

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# What other data sets call them.
SYNONYMS = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
Small = Literal["grid", "area", "none"] | float

Read = Callable[[str], bytes]


Source = str | Path | Sequence[str | Path]


def voc_layout(
    source: Source,
    *,
    size: int = 500,
    lists: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    small: Small = "grid",
    dedupe: bool = True,
) -> MaskDataset:
    """Pictures with masks from a folder or ZIP archive in the layout of PASCAL VOC.

    JPEGImages/ID.jpg (or .png) is the picture, SegmentationClass/ID.png its indexed mask: 0
    background, 255 void, else a class. ImageSets/Segmentation/NAME.txt or ImageSets/NAME.txt list
    IDs. ImageSets/classes.txt may name the classes, an index and a name a line, separated by a tab;
    else they are VOC's 20.

    Args:
        source: the folder or archive, or a folder that holds just one such archive; or several,
            whose pictures are one data set. Several need `classes`.
        size: pixels along a side; pictures are stretched to a square, bilinearly where they grow
            and by area where they shrink, masks by the nearest pixel.
        lists: whose pictures; by default all that have a mask. With `dedupe`, an ID in several
            counts once (the release of OSLSM has 1,134 twice).
        classes: names of those that count, in this order, known by VOC's names or by COCO's; all
            others are background. By default all.
        small: which objects are too small for an item, judged by the mask as it was stored: fewer
            than 3 pixels on a "grid" of 32 (the release's rule), an "area" under 2,048 pixels
            (PFENet's), no more than a share of the picture (a number), or "none".

    Returns:
        Images [n, size, size, 3] uint8 and label maps, in the order of the lists; they become
        (pixel - 127) / 128.

    Raises:
        FileNotFoundError: no such source, list or file.
        ValueError: a picture that cannot be decoded, or a mask that is not indexed, has an unknown
            value or another size than its picture.
    """
    if not isinstance(source, str | Path):
        settings: Any = {"size": size, "lists": lists, "classes": classes, "small": small}
        every = (voc_layout(one, **settings, dedupe=dedupe) for one in source)
        return functools.reduce(joined, every)
    read, paths = _opened(Path(source))
    found = _names(read, paths)
    wanted = list(found.values()) if classes is None else list(classes)
    for name in wanted:
        if name not in found.values():
            raise ValueError(f"{source} has no class {name}; it has {', '.join(found.values())}")
    number = np.zeros(256, np.uint8)
    number[VOID] = VOID
    for value, name in found.items():
        number[value] = wanted.index(name) + 1 if name in wanted else 0
    ids = _listed(source, read, paths, lists, dedupe)
    known = {0, VOID, *found}

    def one(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
        picture = next(
            (p for end in (".jpg", ".png") if (p := f"JPEGImages/{name}{end}") in paths), None
        )
        mask_path = f"SegmentationClass/{name}.png"
        if picture is None or mask_path not in paths:
            missing = mask_path if picture else f"JPEGImages/{name}.jpg"
            raise FileNotFoundError(f"{source} has no {missing}, but its lists name {name}")
        image = decoded(read(paths[picture]), picture)
        mask = indexed_mask(read(paths[mask_path]), mask_path, image.size, known)
        return _square(image, size), _nearest(number[mask], size), _kept(number[mask], small)

    images, labels, kept = _all(one, ids)
    items = [(i, c - 1) for i, row in enumerate(kept) for c in range(1, len(wanted) + 1) if row[c]]
    return from_masks(
        images,
        labels,
        wanted,
        items=np.array(items, int).reshape(-1, 2),
        paths=tuple(f"JPEGImages/{name}" for name in ids),
        prepare=Prepare(1 / 128, -127 / 128),
    )


def pascal_5i(
    source: Source,
    *,
    fold: int = 0,
    size: int = 500,
    train: Sequence[str] | None = ("train", "sbd"),
    test: Sequence[str] | None = ("val",),
    small: Small = "grid",
    dedupe: bool = True,
) -> MaskSplits:
    """A fold of PASCAL-5i: five classes of VOC for testing, the other 15 for training.

    Training pictures are those of the lists `train` that no list of `test` names; objects of the
    test classes in them are background. With neither list, a picture with an item of a class for
    testing is for testing, and the others are for training.

    Args:
        source, size, small, dedupe: as of `voc_layout`.
        fold: 0..3; its classes are 5 fold + 1 .. 5 fold + 5.
        train, test: names of lists, both or neither.

    Raises:
        ValueError: no such fold, one list without the other; and as `voc_layout`.
    """
    names = fold_classes(fold)
    if (train is None) != (test is None):
        raise ValueError("train and test are lists both, or neither is")
    settings = {"size": size, "small": small, "classes": VOC, "dedupe": dedupe}
    if train is None or test is None:
        return split_by_class(voc_layout(source, **settings), names)
    tested = voc_layout(source, lists=test, **settings)
    trained = voc_layout(source, lists=train, **settings)
    left = np.array([path not in tested.paths for path in trained.paths])
    own = [VOC.index(name) for name in names]
    others = [c for c in range(len(VOC)) if c not in own]
    return MaskSplits(part(trained, others, left), None, part(tested, own))


def fold_classes(fold: int) -> tuple[str, ...]:
    """The five classes for testing of a fold of PASCAL-5i.

    Raises:
        ValueError: no such fold.
    """
    if fold not in range(4):
        raise ValueError(f"fold is {fold}; it is one of 0, 1, 2, 3")
    return VOC[5 * fold : 5 * fold + 5]


def davis(source: str | Path, *, size: int = 384, sequences: str = "val") -> MaskDataset:
    """Videos of DAVIS-2016: a class a sequence, with all of its frames as items in their order.

    Args:
        source: a folder or ZIP archive with JPEGImages/SEQUENCE/*.jpg, the masks in
            Annotations/SEQUENCE/*.png, and lists of sequences; `first_frame_episodes` asks for
            each frame by the first.
        size: as of `voc_layout`.
        sequences: the list, without its .txt.

    Raises:
        FileNotFoundError, ValueError: as `voc_layout`.
    """
    read, paths = _opened(Path(source))
    if f"{sequences}.txt" not in paths:
        raise FileNotFoundError(f"{source} has no list {sequences}.txt of sequences")
    names = read(paths[f"{sequences}.txt"]).decode().split()
    folders = {name: f"JPEGImages/{name}/" for name in names}
    frames = [
        (c, p) for c, name in enumerate(names) for p in sorted(paths) if p.startswith(folders[name])
    ]

    def one(frame: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
        place = PurePosixPath(frame)
        mask_path = f"Annotations/{place.parent.name}/{place.stem}.png"
        if mask_path not in paths:
            raise FileNotFoundError(f"{source} has no {mask_path}, but a frame {frame}")
        image = decoded(read(paths[frame]), frame)
        mask = indexed_mask(read(paths[mask_path]), mask_path, image.size, {0, 1, VOID})
        return _square(image, size), _nearest((mask > 0).astype(np.uint8), size), np.ones(1, bool)

    images, labels, _ = _all(one, [path for _, path in frames])
    items = np.array([(i, c) for i, (c, _) in enumerate(frames)])
    prepare, every = Prepare(1 / 128, -127 / 128), tuple(path for _, path in frames)
    values = [1] * len(names)
    return from_masks(
        images, labels, names, values=values, items=items, paths=every, prepare=prepare
    )


def first_frame_episodes(dataset: MaskDataset) -> Episodes:
    """All frames of videos but the first, each with the first of its sequence as support.

    Args:
        dataset: of `davis`.
    """
    offset, count = (np.asarray(x) for x in (dataset.arrays.offset, dataset.arrays.count))
    chosen = [
        (i, first)
        for first, n in zip(offset, count, strict=True)
        for i in range(first + 1, first + n)
    ]
    return listed(dataset, np.array(chosen, np.int32))


def decoded(data: bytes, name: str) -> Image.Image:
    """A picture as RGB, upright.

    Raises:
        ValueError: it cannot be decoded.
    """
    try:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    except Exception as error:  # a decoder of damaged bytes may raise anything
        raise ValueError(f"{name} is not a picture that can be decoded: replace it") from error


def indexed_mask(
    data: bytes, name: str, size: tuple[int, int], known: set[int]
) -> NDArray[np.uint8]:
    """[H, W] uint8: the indices of a mask file for a picture of this size (W, H).

    Raises:
        ValueError: a mask that cannot be decoded, is not indexed, has another size or an unknown
            value.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:
        raise ValueError(f"{name} is not a picture that can be decoded: replace it") from error
    if image.mode not in ("P", "L", "1"):
        raise ValueError(
            f"{name} is a colour mask ({image.mode}), whose classes nobody can know: save it as an "
            "indexed PNG (mode P) with a number for each class"
        )
    if image.size != size:
        raise ValueError(
            f"{name} has {image.size[0]} x {image.size[1]} pixels, but its picture has {size[0]} x "
            f"{size[1]}: draw the mask on the picture as it is"
        )
    mask = np.asarray(image).astype(np.uint8)
    for value in np.unique(mask).tolist():
        if value not in known:
            few = ", ".join(map(str, sorted(known)[:3]))
            raise ValueError(f"{name} has a pixel of {value}, which is no class: {few}, ... are")
    return mask


def _kept(labels: NDArray[np.uint8], small: Small) -> NDArray[np.bool_]:
    """[256] bool: the values of a label map that are large enough for an item."""
    if small == "grid":  # of a picture padded by 15 and shrunk by 32 with the nearest pixels
        return np.bincount(labels[1::32, 1::32].reshape(-1), minlength=256) > 2
    count = np.bincount(labels.reshape(-1), minlength=256)
    if small == "area":
        return count >= 2048
    if small == "none":
        return count > 0
    if isinstance(small, str):
        raise ValueError(f"small is {small!r}; it is one of grid, area, none, or a share")
    return count > small * labels.size


def _square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    shrinks = min(image.size) >= size
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.asarray(image.resize((size, size), method))


def _nearest(labels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST))


def _all(one: Callable[[str], tuple], names: list[str]) -> tuple:
    """What `one` gives of each name, on all cores, stacked."""
    with ThreadPoolExecutor(cores()) as pool:
        return tuple(map(np.stack, zip(*pool.map(one, names), strict=True)))


def _opened(source: Path) -> tuple[Read, dict[str, str]]:
    """How to read a file of a source, and {path within the layout: path within the source}."""
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}: name a folder or archive that exists")
    archives = sorted(source.glob("*.zip")) if source.is_dir() else [source]
    if source.is_dir() and len(archives) != 1:
        paths = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
        return lambda path: (source / path).read_bytes(), _within(source, paths)
    try:
        archive = zipfile.ZipFile(io.BytesIO(archives[0].read_bytes()))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archives[0]} is neither a folder nor a ZIP archive: {error}") from error
    return archive.read, _within(archives[0], archive.namelist())


def _within(source: Path, paths: list[str]) -> dict[str, str]:
    """Without the folders around JPEGImages."""
    around = {path.split("JPEGImages/")[0] for path in paths if "JPEGImages/" in path}
    if len(around) != 1:
        raise ValueError(
            f"{source} has {len(around)} folders JPEGImages: name a folder or archive in the "
            "layout of PASCAL VOC, with JPEGImages and SegmentationClass"
        )
    (top,) = around
    return {path.removeprefix(top): path for path in paths if path.startswith(top)}


def _names(read: Read, paths: dict[str, str]) -> dict[int, str]:
    """{value: name} of the classes, those of VOC by VOC's names."""
    path = paths.get("ImageSets/classes.txt")
    if path is None:
        return dict(enumerate(VOC, 1))
    rows = [line.split("\t") for line in read(path).decode().splitlines() if line.strip()]
    return {int(row[0]): SYNONYMS.get(row[1], row[1]) for row in rows if int(row[0])}


def _listed(
    source: str | Path, read: Read, paths: dict[str, str], lists: Sequence[str] | None, dedupe: bool
) -> list[str]:
    """The IDs that lists name, in their order; without lists, all that have a mask."""
    if lists is None:
        masks = [PurePosixPath(path) for path in sorted(paths)]
        return [mask.stem for mask in masks if str(mask.parent) == "SegmentationClass"]
    ids = list[str]()
    for name in lists:
        options = (f"ImageSets/Segmentation/{name}.txt", f"ImageSets/{name}.txt")
        path = next((paths[option] for option in options if option in paths), None)
        if path is None:
            raise FileNotFoundError(f"{source} has no list {' or '.join(options)}")
        ids += read(path).decode().split()
    return list(dict.fromkeys(ids)) if dedupe else ids
