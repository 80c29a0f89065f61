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
from .mini_imagenet import mini_imagenet
from .omniglot import omniglot, prepare_omniglot
from .omniglot_runs import omniglot_runs
from .pairs import paired, pairs, problems
from .tfds import tfds
from .tiny_imagenet import tiny_imagenet

__all__ = [
    "INK",
    "ClassImages",
    "Dataset",
    "Episodes",
    "Prepare",
    "Splits",
    "augment",
    "batches",
    "caltech101",
    "class_folders",
    "copies",
    "cub",
    "episode_key",
    "episodes",
    "four_views",
    "from_arrays",
    "glyphs",
    "inaturalist",
    "mini_imagenet",
    "omniglot",
    "omniglot_runs",
    "paired",
    "pairs",
    "prepare_omniglot",
    "problems",
    "redraw",
    "redrawn",
    "rotations",
    "sample_episode",
    "select",
    "tfds",
    "tiny_imagenet",
]
