"""Nearest neighbour on Tiny-ImageNet at 32 pixels on the embedding of a classifier.

The classifier learns all training classes at once, on plain batches.
"""

from metashot.config import Adam, Batch, Experiment, NearestEmbedding, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=NearestEmbedding(classes=128),
        steps=3000,
        train=Batch(64),
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=500,
    )
