"""Where images come from: the fields are the keywords of the functions in metashot.data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..data import Dataset, Episodes, MaskDataset, MaskSplits, Splits


@dataclass(frozen=True)
class Glyphs:
    """Procedural handwriting: nothing to download."""

    train: int = 1000
    """classes for meta-training"""
    val: int = 100
    """classes for validation"""
    test: int = 200
    """classes for testing"""
    drawings: int = 20
    """drawings of each class"""
    size: int = 28
    """side of a picture in pixels"""
    seed: int = 0
    """of the glyphs"""

    def load(self) -> Splits:
        from ..data import glyphs

        return glyphs(**vars(self))


@dataclass(frozen=True)
class GlyphScenes(Glyphs):
    """Sheets with several characters of procedural handwriting, and masks: nothing to download."""

    canvas: int = 128
    """side of a sheet in pixels"""
    objects: int = 5
    """characters of a sheet"""
    same: int = 2
    """most of them that are of the class"""

    def load(self) -> Splits:
        from ..data import glyphs

        own = ("canvas", "objects", "same")
        return glyphs(**{name: value for name, value in vars(self).items() if name not in own})

    def episodes(self, dataset: Dataset, *, shot: int, query: int) -> Episodes:
        """Scenes of a part of the characters."""
        from ..data import scene_episodes

        settings = {"objects": self.objects, "same": self.same}
        return scene_episodes(dataset, size=self.canvas, shot=shot, query=query, **settings)


@dataclass(frozen=True)
class Pascal5i:
    """A fold of PASCAL-5i: pictures with masks of 20 classes, five of them for testing."""

    source: tuple[str, ...] = ()
    """folders or archives in the layout of PASCAL VOC; by default VOC2012 in METASHOT_DATA"""
    fold: int = 0
    """0 to 3, whose classes are for testing"""
    size: int = 500
    """side of a picture in pixels"""
    lists: bool = True
    """train on the lists train and sbd, and test on val; else pictures go by their classes"""
    small: Literal["grid", "area", "none"] | float = "grid"
    """which objects are too small to be asked for: the release's rule, PFENet's, or a share"""
    dedupe: bool = True
    """a picture of two lists counts once"""
    sampling: Literal["paper", "pairs", "classes"] = "paper"
    """how what is asked for is drawn in training"""
    void: Literal["background", "ignore"] = "background"
    """what pixels are of which nobody says what they are"""

    def load(self) -> MaskSplits:
        from ..data import pascal_5i
        from ..data.cache import folder

        here = Path(os.environ.get("METASHOT_DATA") or folder()) / "VOC2012"
        lists: Any = {} if self.lists else {"train": None, "test": None}
        settings = {"fold": self.fold, "size": self.size, "small": self.small}
        return pascal_5i(self.source or here, **settings, dedupe=self.dedupe, **lists)

    def episodes(self, dataset: MaskDataset, *, shot: int, query: int) -> Episodes:
        """Of the classes for testing, the release's list of 1,000."""
        from ..data import fold_classes, mask_episodes, official_pairs

        if dataset.names == fold_classes(self.fold):
            return official_pairs(dataset, shot=shot, void=self.void)
        settings: Any = {"sampling": self.sampling, "void": self.void}
        return mask_episodes(dataset, shot=shot, query=query, **settings)


@dataclass(frozen=True)
class MaskFolder:
    """Any pictures with indexed masks in the layout of PASCAL VOC, split by class."""

    source: str
    """folder or ZIP archive, with JPEGImages, SegmentationClass and ImageSets/classes.txt; or its
    name in METASHOT_DATA"""
    test: tuple[str, ...]
    """names of the classes for testing"""
    val: tuple[str, ...] = ()
    """names of those for choosing"""
    classes: tuple[str, ...] = ()
    """names of all that count; by default all there are"""
    halves: bool = False
    """test on the second half of the pictures; else on those that show a class for testing"""
    size: int = 288
    """side of a picture in pixels"""
    small: Literal["grid", "area", "none"] | float = 0.01
    """which objects are too small to be asked for: the release's rule, PFENet's, or a share"""
    sampling: Literal["paper", "pairs", "classes"] = "classes"
    """how what is asked for is drawn"""
    void: Literal["background", "ignore"] = "background"
    """what pixels are of which nobody says what they are"""

    def load(self) -> MaskSplits:
        from ..data import split_by_class, voc_layout

        settings: Any = {"size": self.size, "small": self.small, "classes": self.classes or None}
        named = Path(os.environ.get("METASHOT_DATA") or "") / self.source
        whole = voc_layout(self.source if Path(self.source).exists() else named, **settings)
        return split_by_class(whole, self.test, self.val, halves=self.halves)

    def episodes(self, dataset: MaskDataset, *, shot: int, query: int) -> Episodes:
        from ..data import mask_episodes

        settings: Any = {"sampling": self.sampling, "void": self.void}
        return mask_episodes(dataset, shot=shot, query=query, **settings)


@dataclass(frozen=True)
class Omniglot:
    """1,623 handwritten characters of 50 alphabets, 20 drawings each."""

    source: str | None = None
    """folder of the archives; by default METASHOT_DATA, or what `metashot data prepare` stored"""
    size: int = 28
    """side of a picture in pixels"""
    split: Literal["tuning", "characters", "alphabets", "alphabets_tuning"] = "tuning"
    """1,028/172/423 characters; 1,200/none/423 characters; 30/none/20 or 25/5/20 alphabets"""
    rotations: bool = True
    """turned by 90, 180 and 270 degrees, a character is three more classes"""
    turned_tests: bool = True
    """so it is for validation and testing, not only for training"""
    repacked: bool = False
    """accept archives other than the official ones"""

    def load(self) -> Splits:
        from ..data import omniglot

        return omniglot(**vars(self))


@dataclass(frozen=True)
class TinyImageNet:
    """Photographs of 200 classes, 64x64 pixels, split by class."""

    source: str | None = None
    """its folder; by default tiny_imagenet in METASHOT_DATA or in the cache"""
    size: int = 64
    """side of a picture in pixels"""

    def load(self) -> Splits:
        from ..data import tiny_imagenet

        return tiny_imagenet(**vars(self))


@dataclass(frozen=True)
class Caltech101:
    """Photographs of 101 kinds of object, split by class."""

    source: str | None = None
    """its folder; by default caltech101 in METASHOT_DATA or in the cache"""
    size: int = 84
    """side of a picture in pixels"""

    def load(self) -> Splits:
        from ..data import caltech101

        return caltech101(**vars(self))


@dataclass(frozen=True)
class ClassFolders:
    """Any pictures in class folders, split by class."""

    source: str
    """directory or ZIP archive with a folder of pictures a class"""
    size: int = 84
    """side of a picture in pixels"""
    val: float = 0.16
    """share of the classes for choosing, where the source has no split"""
    test: float = 0.2
    """share of the classes for testing, where the source has no split"""
    seed: int = 0
    """of that random split"""

    def load(self) -> Splits:
        from ..data import class_folders

        return class_folders(**vars(self))


@dataclass(frozen=True)
class MiniImageNet:
    """Photographs of 100 classes of ImageNet, 84x84 pixels, in the published split."""

    source: str | None = None
    """its folder; by default mini_imagenet in METASHOT_DATA or in the cache"""
    size: int = 84
    """side of a picture in pixels"""

    def load(self) -> Splits:
        from ..data import mini_imagenet

        return mini_imagenet(**vars(self))


@dataclass(frozen=True)
class CUB:
    """Photographs of 200 species of birds (CUB-200-2011), of which 100 are for training."""

    source: str | None = None
    """its folder CUB_200_2011; by default in cub in METASHOT_DATA or in the cache"""
    size: int = 224
    """side of a picture in pixels"""
    official: Literal["all", "train", "test"] = "all"
    """the pictures that are officially for training, those for testing, or both"""
    base: int = 100
    """classes for training"""

    def load(self) -> Splits:
        from ..data import cub

        return cub(**vars(self))


@dataclass(frozen=True)
class INaturalist:
    """Photographs of 5,089 species (iNaturalist 2017); those of many pictures are for training."""

    source: str | None = None
    """folder of its lists and pictures; by default inaturalist in METASHOT_DATA or in the cache"""
    size: int = 64
    """side of a picture in pixels"""
    official: Literal["train", "val"] = "train"
    """the pictures that are officially for training, or those for validation"""
    least: int = 100
    """pictures for training of a class for training"""

    def load(self) -> Splits:
        from ..data import inaturalist

        return inaturalist(**vars(self))


@dataclass(frozen=True)
class Tfds:
    """A data set that TensorFlow Datasets has prepared as array_record, split by class."""

    name: str
    """of the data set: NAME[/CONFIG][:VERSION]"""
    data_dir: str | None = None
    """where it was prepared; by default TFDS's own folder"""
    split: str | None = None
    """which of its examples, such as train+test; all by default"""
    size: int = 84
    """side of a picture in pixels"""
    val: float = 0.16
    """share of the classes for choosing"""
    test: float = 0.2
    """share of the classes for testing"""
    seed: int = 0
    """of that random split"""
    image_key: str = "image"
    """feature that holds the image"""
    label_key: str = "label"
    """feature that holds its class"""

    def load(self) -> Splits:
        from ..data import tfds

        return tfds(**vars(self))


SOURCES = {
    "glyphs": Glyphs,
    "omniglot": Omniglot,
    "caltech101": Caltech101,
    "class_folders": ClassFolders,
    "tiny_imagenet": TinyImageNet,
    "mini_imagenet": MiniImageNet,
    "cub": CUB,
    "inaturalist": INaturalist,
    "tfds": Tfds,
}
"""By the names of their functions."""
