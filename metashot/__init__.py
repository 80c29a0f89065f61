"""metashot: learning to learn as a set of pure functions.

A learner turns a support set into the parameters of a task, and the task answers queries:

    learner = metashot.meta_lstm(way=5)
    data = metashot.data.glyphs()
    trained = metashot.train(learner, metashot.episodes(data.train), optax.adam(1e-3), steps=1000)
    metashot.evaluate(learner, trained.variables, metashot.episodes(data.test)).summary

Names are loaded when they are first used, so that importing metashot imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        config,
        data,
        devices,
        enrolment,
        losses,
        memory,
        metrics,
        nets,
        optim,
        plots,
        pretrained,
        recognition,
        similarities,
    )
    from .base import Aux, Episode, Examples, Learner, Network, Variables
    from .data import (
        Dataset,
        Episodes,
        Splits,
        batches,
        episodes,
        pairs,
        problems,
        sample_episode,
    )
    from .enrolment import enroll, forget
    from .evaluation import Evaluation, evaluate
    from .experiment import run
    from .learners.baselines import classifier, fine_tune, nearest_embedding, nearest_neighbor
    from .learners.hausdorff import hausdorff
    from .learners.imprinting import grow, imprint, imprinting, random_columns, remove_class
    from .learners.learnet import filter_responses, from_siamese, learnet
    from .learners.maml import anil, maml
    from .learners.matching import matching
    from .learners.memory_matching import memory_matching
    from .learners.meta_lstm import meta_lstm
    from .learners.pixels import (
        logistic_cells,
        masked_average,
        nearest_cell,
        pixel_classifier,
        siamese_cells,
    )
    from .learners.prototypical import prototypical
    from .learners.segmentation import one_shot_segmentation
    from .learners.siamese import siamese
    from .loading import load
    from .portable import export
    from .recognition import classify, few_shot, stored
    from .segmenting import segment, segmenter
    from .selection import choose
    from .training import train

_MODULES = (
    "config",
    "data",
    "devices",
    "enrolment",
    "losses",
    "memory",
    "metrics",
    "nets",
    "optim",
    "plots",
    "pretrained",
    "recognition",
    "similarities",
)
_HOMES = {
    "base": ("Aux", "Episode", "Examples", "Learner", "Network", "Variables"),
    "data": (
        "Dataset",
        "Episodes",
        "Splits",
        "batches",
        "episodes",
        "pairs",
        "problems",
        "sample_episode",
    ),
    "enrolment": ("enroll", "forget"),
    "evaluation": ("Evaluation", "evaluate"),
    "experiment": ("run",),
    "learners.baselines": ("classifier", "fine_tune", "nearest_embedding", "nearest_neighbor"),
    "learners.hausdorff": ("hausdorff",),
    "learners.imprinting": ("grow", "imprint", "imprinting", "random_columns", "remove_class"),
    "learners.learnet": ("filter_responses", "from_siamese", "learnet"),
    "learners.maml": ("anil", "maml"),
    "learners.matching": ("matching",),
    "learners.memory_matching": ("memory_matching",),
    "learners.meta_lstm": ("meta_lstm",),
    "learners.prototypical": ("prototypical",),
    "learners.pixels": (
        "logistic_cells",
        "masked_average",
        "nearest_cell",
        "pixel_classifier",
        "siamese_cells",
    ),
    "learners.segmentation": ("one_shot_segmentation",),
    "learners.siamese": ("siamese",),
    "loading": ("load",),
    "portable": ("export",),
    "recognition": ("classify", "few_shot", "stored"),
    "segmenting": ("segment", "segmenter"),
    "selection": ("choose",),
    "training": ("train",),
}

__all__ = [
    "Aux",
    "Dataset",
    "Episode",
    "Episodes",
    "Evaluation",
    "Examples",
    "Learner",
    "Network",
    "Splits",
    "Variables",
    "anil",
    "batches",
    "choose",
    "classifier",
    "classify",
    "config",
    "data",
    "devices",
    "enroll",
    "enrolment",
    "episodes",
    "evaluate",
    "export",
    "few_shot",
    "filter_responses",
    "fine_tune",
    "forget",
    "from_siamese",
    "grow",
    "hausdorff",
    "imprint",
    "imprinting",
    "learnet",
    "load",
    "logistic_cells",
    "losses",
    "maml",
    "masked_average",
    "matching",
    "memory",
    "memory_matching",
    "meta_lstm",
    "metrics",
    "nearest_cell",
    "nearest_embedding",
    "nearest_neighbor",
    "nets",
    "one_shot_segmentation",
    "optim",
    "pairs",
    "pixel_classifier",
    "plots",
    "pretrained",
    "problems",
    "prototypical",
    "random_columns",
    "recognition",
    "remove_class",
    "run",
    "sample_episode",
    "segment",
    "segmenter",
    "siamese",
    "siamese_cells",
    "similarities",
    "stored",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    raise AttributeError(f"module 'metashot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
