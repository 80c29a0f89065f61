"""Data sets of classes of images, and the episodes drawn from them."""

from .augmentation import augment, copies, four_views, redraw
from .caltech101 import caltech101
from .cub import cub
from .dataset import (
    INK,
    ClassImages,
    Dataset,
    Prepare,
    Splits,
    from_arrays,
    rotations,
    select,
)
from .episodes import Episodes, batches, episode_key, episodes, redrawn, sample_episode
from .folders import class_folders
from .glyphs import glyphs
from .inaturalist import inaturalist
from .masks import (
    MaskDataset,
    MaskedImages,
    MaskSplits,
    encoded,
    from_masks,
    joined,
    listed,
    mask_batches,
    mask_episodes,
    official_pairs,
    part,
    split_by_class,
)
from .mini_imagenet import mini_imagenet
from .omniglot import omniglot, prepare_omniglot
from .omniglot_runs import omniglot_runs
from .pairs import paired, pairs, problems
from .scenes import scene_episodes
from .tfds import tfds
from .tiny_imagenet import tiny_imagenet
from .voc import VOC, davis, first_frame_episodes, fold_classes, pascal_5i, voc_layout

__all__ = [
    "INK",
    "VOC",
    "ClassImages",
    "Dataset",
    "Episodes",
    "MaskDataset",
    "MaskSplits",
    "MaskedImages",
    "Prepare",
    "Splits",
    "augment",
    "batches",
    "caltech101",
    "class_folders",
    "copies",
    "cub",
    "davis",
    "encoded",
    "episode_key",
    "episodes",
    "first_frame_episodes",
    "fold_classes",
    "four_views",
    "from_arrays",
    "from_masks",
    "glyphs",
    "inaturalist",
    "joined",
    "listed",
    "mask_batches",
    "mask_episodes",
    "mini_imagenet",
    "official_pairs",
    "omniglot",
    "omniglot_runs",
    "paired",
    "pairs",
    "part",
    "pascal_5i",
    "prepare_omniglot",
    "problems",
    "redraw",
    "redrawn",
    "rotations",
    "sample_episode",
    "scene_episodes",
    "select",
    "split_by_class",
    "tfds",
    "tiny_imagenet",
    "voc_layout",
]
