"""What a configuration is: frozen dataclasses of plain data, returned by `get_config()` in a file.

Nothing here imports jax, so that a command can show and check a configuration at once. The fields
of a learner's or a network's dataclass are the keywords of its constructor, with the same defaults.
"""

from .data import (
    CUB,
    SOURCES,
    Caltech101,
    ClassFolders,
    Glyphs,
    INaturalist,
    MiniImageNet,
    Omniglot,
    Tfds,
    TinyImageNet,
)
from .experiment import SGD, Adam, Batch, Experiment, MixedSizes, Pairs, RMSProp, Sizes
from .files import ConfigError, Ranges, as_text, check, installed, ranges, read, summary
from .learners import (
    ANIL,
    MAML,
    Conv4,
    EfficientNetLite0,
    FineTune,
    Imprinting,
    Learnet,
    Matching,
    MemoryMatching,
    MetaLSTM,
    NearestEmbedding,
    Prototypical,
    Siamese,
    Stream,
)

__all__ = [
    "ANIL",
    "CUB",
    "MAML",
    "SGD",
    "SOURCES",
    "Adam",
    "Batch",
    "Caltech101",
    "ClassFolders",
    "ConfigError",
    "Conv4",
    "EfficientNetLite0",
    "Experiment",
    "FineTune",
    "Glyphs",
    "INaturalist",
    "Imprinting",
    "Learnet",
    "Matching",
    "MemoryMatching",
    "MetaLSTM",
    "MiniImageNet",
    "MixedSizes",
    "NearestEmbedding",
    "Omniglot",
    "Pairs",
    "Prototypical",
    "RMSProp",
    "Ranges",
    "Siamese",
    "Sizes",
    "Stream",
    "Tfds",
    "TinyImageNet",
    "as_text",
    "check",
    "installed",
    "ranges",
    "read",
    "summary",
]
