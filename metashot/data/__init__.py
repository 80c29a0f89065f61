"""Data sets of classes of images, and the episodes drawn from them."""

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
from .episodes import Episodes, batches, episode_key, episodes, sample_episode
from .folders import class_folders
from .glyphs import glyphs
from .mini_imagenet import mini_imagenet
from .omniglot import omniglot, prepare_omniglot
from .pairs import pairs, problems
from .tfds import tfds
from .tiny_imagenet import tiny_imagenet

__all__ = [
    "INK",
    "ClassImages",
    "Dataset",
    "Episodes",
    "Prepare",
    "Splits",
    "batches",
    "class_folders",
    "episode_key",
    "episodes",
    "from_arrays",
    "glyphs",
    "mini_imagenet",
    "omniglot",
    "pairs",
    "prepare_omniglot",
    "problems",
    "rotations",
    "sample_episode",
    "select",
    "tfds",
    "tiny_imagenet",
]
