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
from .glyphs import glyphs
from .omniglot import omniglot, prepare_omniglot

__all__ = [
    "INK",
    "ClassImages",
    "Dataset",
    "Episodes",
    "Prepare",
    "Splits",
    "episode_key",
    "episodes",
    "from_arrays",
    "glyphs",
    "omniglot",
    "prepare_omniglot",
    "rotations",
    "sample_episode",
    "select",
]
