"""Nearest neighbour on Omniglot on the embedding of a classifier.

The classifier learns all training classes at once, on plain batches.
"""

from metashot.config import Adam, Batch, Experiment, NearestEmbedding, Omniglot


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=NearestEmbedding(classes=4112),
        steps=3000,
        train=Batch(64),
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=500,
    )
