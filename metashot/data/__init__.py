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
from .episodes import Episodes, episode_key, episodes, sample_episode
from .folders import class_folders
from .glyphs import glyphs
from .omniglot import omniglot, prepare_omniglot
from .tiny_imagenet import tiny_imagenet

__all__ = [
    "INK",
    "ClassImages",
    "Dataset",
    "Episodes",
    "Prepare",
    "Splits",
    "class_folders",
    "episode_key",
    "episodes",
    "from_arrays",
    "glyphs",
    "omniglot",
    "prepare_omniglot",
    "rotations",
    "sample_episode",
    "select",
    "tiny_imagenet",
]
