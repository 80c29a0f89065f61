"""What a configuration is: frozen dataclasses of plain data, returned by `get_config()` in a file.

Nothing here imports jax, so that a command can show and check a configuration at once. The fields
of a learner's or a network's dataclass are the keywords of its constructor, with the same defaults.
"""

from .data import Glyphs, Omniglot, TinyImageNet
from .experiment import Adam, Experiment, Sizes
from .files import ConfigError, as_text, check, installed, read, summary
from .learners import Conv4, MetaLSTM, Prototypical

__all__ = [
    "Adam",
    "ConfigError",
    "Conv4",
    "Experiment",
    "Glyphs",
    "MetaLSTM",
    "Omniglot",
    "Prototypical",
    "Sizes",
    "TinyImageNet",
    "as_text",
    "check",
    "installed",
    "read",
    "summary",
]
